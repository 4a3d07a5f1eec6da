"""`boardhand root` on the command line: its manual pages and options; the work is in `cli.roots` and `cli.root_views`.

Nothing of `netboot` is imported here: it would cost every other command its start.
"""

import os
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from cli.command_line import Command, as_json, connection_options, count, positive, target_of
from cli.exits import usage

FOLDER = "BOARDHAND_ROOTS"
"""Environment: the folder of the store."""
DEFAULT_FOLDER = Path("/var/lib/boardhand/roots")
SAVE_TIMEOUT_S = 3600.0
_SIZE = re.compile(r"([0-9]{1,15})([kMGT]?)")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None or not int(found[1]):
        raise ArgumentTypeError(f"{text!r} is no size: write octets, or as 500M, 20G")
    return int(found[1]) * _UNITS[found[2]]


def _sha256(text: str) -> str:
    if _SHA256.fullmatch(text) is None:
        raise ArgumentTypeError(f"{text!r} is no SHA-256: 64 hexadecimal digits, as sha256sum prints")
    return text.lower()


def _store_options(page: ArgumentParser) -> None:
    where = page.add_mutually_exclusive_group()
    where.add_argument("--dir", metavar="DIR", type=Path, help=f"the store ({FOLDER}, else {DEFAULT_FOLDER})")
    where.add_argument("--settings", metavar="FILE", type=Path, help="the store of the agent with these settings")


def _name(page: ArgumentParser) -> None:
    page.add_argument("name", metavar="NAME")
    _store_options(page)


def _import_options(page: ArgumentParser) -> None:
    page.add_argument("name", metavar="NAME", help="what the root is to be called: a-z, 0-9 and '-'")
    page.add_argument("source", metavar="SOURCE|URL", help="file, folder, or http(s) URL")
    page.add_argument("--sha256", metavar="HEX", type=_sha256, help="what the file has to be; a must for a URL")
    page.add_argument("--arch", metavar="ARCH", help="of an OCI image: arm64, armhf, amd64, riscv64 or as it says")
    page.add_argument("--partition", metavar="N", type=count, help="of a disk's image")
    page.add_argument("--max-size", metavar="SIZE", type=_size, help="of all files together, as 500M or 20G (64G)")
    page.add_argument("--lossy", action="store_true", help="import what this user can keep, and count what is lost")
    _store_options(page)


def _reset_options(page: ArgumentParser) -> None:
    page.add_argument("board", metavar="BOARD")
    page.add_argument("--force", action="store_true", help="also while the board runs from its view")


def _save_options(page: ArgumentParser) -> None:
    page.add_argument("board", metavar="BOARD")
    page.add_argument("name", metavar="NAME", help="of the new root")
    page.add_argument("--live", action="store_true", help="also while the board runs, as its files are at the moment")
    page.add_argument("--no-wait", action="store_true", help="return when the agent has begun")
    page.add_argument("--timeout-s", metavar="S", type=positive, default=SAVE_TIMEOUT_S, help="wait this long (3600)")


def folder_of(args: Namespace) -> Path:
    """Where the store is, by option, settings or environment.

    Raises:
        CliError: the settings cannot be used, or have no store.
    """
    if args.dir is not None:
        return Path(args.dir)
    if args.settings is None:
        return Path(os.environ.get(FOLDER) or DEFAULT_FOLDER)
    from cli.root_settings import store_folder

    return store_folder(args.settings)


def _import(args: Namespace) -> int:
    from cli.roots import bring
    from netboot.roots.importing import DEFAULT_MAX_BYTES, ImportOptions

    options = ImportOptions(
        lossy=args.lossy,
        arch=args.arch,
        partition=args.partition,
        sha256=args.sha256,
        max_bytes=args.max_size or DEFAULT_MAX_BYTES,
    )
    return bring(folder_of(args), args.name, args.source, options, as_json=as_json(args))


def _list(args: Namespace) -> int:
    from cli.roots import show_all

    return show_all(folder_of(args), as_json=as_json(args))


def _show(args: Namespace) -> int:
    from cli.roots import show

    return show(folder_of(args), args.name, args.settings, as_json=as_json(args))


def _verify(args: Namespace) -> int:
    from cli.roots import verify

    return verify(folder_of(args), args.name, as_json=as_json(args))


def _remove(args: Namespace) -> int:
    from cli.roots import remove

    return remove(folder_of(args), args.name, args.settings, as_json=as_json(args))


def _views(args: Namespace) -> int:
    from cli.root_views import show_views

    return show_views(target_of(args), as_json=as_json(args))


def _reset(args: Namespace) -> int:
    from cli.root_views import reset

    return reset(target_of(args), args.board, force=args.force, as_json=as_json(args))


def _save(args: Namespace) -> int:
    from cli.root_views import save

    return save(
        target_of(args), args.board, args.name, live=args.live, as_json=as_json(args),
        wait_s=None if args.no_wait else args.timeout_s,
    )  # fmt: skip


_VERBS: dict[str, Command] = {
    "import": Command(
        "make a root of a file, a folder or a URL",
        "Takes tar (plain, gzip, xz, bzip2, zstd), a folder, an OCI or docker image, an ext4 or squashfs image, or a\n"
        "partition of a disk's image. Owners, modes, attributes, hard links and devices are kept, which needs root.\n"
        "The root appears whole, with its checksums, or not at all.\n"
        "JSON: {root: {name, sha256, size_bytes, files, source, imported_at, lost}}.",
        _import_options,
        _import,
    ),
    "list": Command(
        "list the roots of a store",
        "JSON: {store, free_bytes, roots: [{name, …, users: [board]}]}.",
        _store_options,
        _list,
    ),
    "show": Command(
        "show one root: its checksum, size, source, users",
        "JSON: {root: {name, …}, users, profiles}; profiles needs --settings.",
        _name,
        _show,
    ),
    "verify": Command(
        "read a root whole and compare it with what was imported",
        "Exit 0 when it is the same to the last bit, else 1. JSON: {name, ok, differences}.",
        _name,
        _verify,
    ),
    "remove": Command(
        "remove a root that no board and no profile uses",
        "Exit 5 while one does; profiles are known with --settings. JSON: {removed: name}.",
        _name,
        _remove,
    ),
    "views": Command(
        "list the boards' views of roots, asked of the agents",
        "JSON: {agents: [{agent, roots, views, work, free_bytes, …}], silent}.",
        lambda _page: None,
        _views,
    ),
    "reset": Command(
        "throw away what a board has written into its root",
        "The next boot finds the root as it was imported. JSON: {agent, board, root, generation, took_ms}.",
        _reset_options,
        _reset,
    ),
    "save": Command(
        "make a new root of a board's view",
        "The board's identity is left out. JSON: {agent, board, name}.",
        _save_options,
        _save,
    ),
}


def _options(page: ArgumentParser) -> None:
    group = page.add_subparsers(title="what to do", metavar="VERB", dest="verb")
    for name, verb in _VERBS.items():
        sub = group.add_parser(
            name,
            help=verb.summary,
            description=verb.description,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.options(sub)
        connection_options(sub)
        sub.set_defaults(run_verb=verb.run)


def _run(args: Namespace) -> int:
    if args.verb is None:
        raise usage("root needs a verb", "see 'boardhand root --help'")
    code: int = args.run_verb(args)
    return code


ROOT = Command(
    "import, list, check and remove root file systems, reset and save a board's",
    "A root is imported once and never changed; each board that boots it gets a writable view of its own.\n"
    "import, list, show, verify and remove work on a store of this machine, most often as root; views, reset and save\n"
    "ask agents over MQTT. JSON: as each page says.",
    _options,
    _run,
)
