"""`boardhand image script` and `image identity`: small files that boot programs read."""

import json
import os
from argparse import Namespace
from pathlib import Path

from cli.command_line import as_json
from cli.exits import CliError, Exit
from firmware_tools.image import identity, uboot_image
from firmware_tools.image.device_tree import DeviceTreeError
from firmware_tools.image.identity import Identity, IdentityError
from firmware_tools.image.uboot_image import ScriptError

MAX_TREE_BYTES = 16 * 1024 * 1024


def _read(path: Path, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise CliError(Exit.USAGE, f"{path}: is larger than {limit} bytes")
        return path.read_bytes()
    except OSError as error:
        raise CliError(Exit.USAGE, f"{path}: cannot be read: {error.strerror}") from None


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise CliError(Exit.FAILED, f"{path}: {error.strerror}", "write somewhere else") from None


def _done(args: Namespace, size: int, what: str) -> int:
    if as_json(args):
        print(json.dumps({"ok": True, "path": str(args.out), "bytes": size}))
    else:
        print(f"{args.out}: {size} bytes, {what}")
    return Exit.OK


def script(args: Namespace) -> int:
    """Make a script of U-Boot's from a text.

    Raises:
        CliError: 2 where the text cannot be one, 1 where the image cannot be written.
    """
    try:
        text = _read(args.text, uboot_image.MAX_SCRIPT_BYTES).decode()
        make = uboot_image.fit_script if args.fit else uboot_image.legacy_script
        image = make(text, arch=args.arch, name=args.name)
    except UnicodeDecodeError:
        raise CliError(Exit.USAGE, f"{args.text}: is not UTF-8 text") from None
    except ScriptError as error:
        raise CliError(Exit.USAGE, f"{args.text}: {error}") from None
    _write(args.out, image)
    return _done(args, len(image), f"a {'FIT' if args.fit else 'legacy'} script for {args.arch}")


def set_identity(args: Namespace) -> int:
    """Give a device tree an identity.

    Raises:
        CliError: 2 where the tree or a value cannot be used, 1 where the result cannot be written.
    """
    macs = []
    for pair in args.mac:
        where, equals, mac = pair.rpartition("=")
        if not equals:
            raise CliError(Exit.USAGE, f"--mac {pair}", "write --mac ethernet0=52:54:00:12:34:56")
        macs.append((where, mac))
    wanted = Identity(args.serial, args.model, tuple(args.compatible), tuple(macs), args.bootargs)
    if wanted == Identity() or wanted == Identity("", "", (), (), ""):
        raise CliError(Exit.USAGE, "nothing to set", "give --serial, --model, --compatible, --mac or --bootargs")
    try:
        blob = identity.with_identity(_read(args.tree, MAX_TREE_BYTES), wanted, args.pad)
    except (DeviceTreeError, IdentityError) as error:
        raise CliError(Exit.USAGE, f"{args.tree}: {error}") from None
    _write(args.out, blob)
    return _done(args, len(blob), "a device tree with its identity")
