"""Builds the initramfs that a board boots: busybox, kernel modules, the network, and the board's client.

The same inputs give the same bytes, so a build can be compared and cached.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from firmware_tools import cpio
from firmware_tools.kernel_modules import plain_name, read_module
from firmware_tools.python_tree import files_for

GZIP_LEVEL = 6  # 9 gains 1 % and takes twice as long
OWN_FOLDER = "lib/boardhand"
OS_RELEASE = 'PRETTY_NAME="boardhand initramfs"\nID=boardhand\n'


class InitramfsError(Exception):
    """The initramfs cannot be built. The message names the input at fault."""


def _own_file(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()


def _init_entries(arch: str) -> Iterator[cpio.Entry]:
    yield cpio.symlink("init", "bin/busybox")  # busybox looks at its name: as `init` it is PID 1
    yield cpio.symlink("bin/sh", "busybox")
    yield cpio.regular("etc/inittab", _own_file("board_inittab"))
    yield cpio.regular("etc/os-release", f"{OS_RELEASE}VARIANT_ID={arch}\n".encode())
    yield cpio.regular("etc/passwd", b"root::0:0:root:/root:/bin/sh\n")
    yield cpio.regular("etc/group", b"root:x:0:\n")
    yield cpio.regular(f"{OWN_FOLDER}/start.sh", _own_file("board_start.sh"), 0o755)
    yield cpio.regular(f"{OWN_FOLDER}/client-loop.sh", _own_file("board_client_loop.sh"), 0o755)
    yield cpio.regular(f"{OWN_FOLDER}/dhcp.sh", _own_file("board_dhcp.sh"), 0o755)
    yield cpio.character_device("dev/console", 5, 1)  # the kernel opens it before devtmpfs is there
    yield cpio.character_device("dev/null", 1, 3, 0o666)


def _module_entries(modules: Sequence[Path], root_modules: Sequence[Path]) -> Iterator[cpio.Entry]:
    names = {f"{plain_name(path.name)}.ko": path for path in modules}
    yield cpio.regular(f"{OWN_FOLDER}/modules.list", "".join(f"{name}\n" for name in names).encode())
    later = {f"{plain_name(path.name)}.ko": path for path in root_modules}
    later = {name: path for name, path in later.items() if name not in names}
    yield cpio.regular(f"{OWN_FOLDER}/root-modules.list", "".join(f"{name}\n" for name in later).encode())
    for name, path in {**names, **later}.items():
        yield cpio.regular(f"{OWN_FOLDER}/modules/{name}", read_module(path))


def _client_entries(client: str, client_file: Path, python_root: Path | None) -> Iterator[cpio.Entry]:
    if client == "busybox":
        yield cpio.regular(f"{OWN_FOLDER}/client.sh", _read(client_file), 0o755)
        return
    if python_root is None:
        raise InitramfsError("client='python' needs python_root, the folder that fetch_python gives")
    yield cpio.regular(f"{OWN_FOLDER}/client.py", _read(client_file), 0o755)
    for path, source in files_for(python_root, client_file):
        yield cpio.regular(path, _read(source), 0o755 if source.stat().st_mode & 0o111 else 0o644)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InitramfsError(f"{path}: cannot be read: {error.strerror}") from error


def _extra_entries(extra: Mapping[str, bytes | Path]) -> Iterator[cpio.Entry]:
    for path, content in extra.items():
        if isinstance(content, bytes):
            yield cpio.regular(path.lstrip("/"), content, 0o755 if content.startswith(b"#!") else 0o644)
        else:
            executable = os.access(content, os.X_OK)
            yield cpio.regular(path.lstrip("/"), _read(content), 0o755 if executable else 0o644)


def _packed(pieces: Iterable[bytes], compress: str) -> Iterator[bytes]:
    if compress == "none":
        yield from pieces
        return
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # 16: a gzip header, with time 0
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def build_board_initramfs(  # noqa: PLR0913  # an image has that many parts
    out: Path,
    *,
    arch: str,
    busybox: Path,
    modules: Sequence[Path],
    root_modules: Sequence[Path] = (),
    client: Literal["busybox", "python"],
    client_file: Path,
    python_root: Path | None = None,
    extra_files: Mapping[str, bytes | Path] = MappingProxyType({}),
    compress: Literal["gzip", "none"] = "gzip",
) -> int:
    """Writes a board's initramfs to `out`, whole or not at all, and returns its size in bytes.

    `modules` are kernel modules in the order in which they are to be loaded (`kernel_modules.resolve`); `root_modules`
    are those that only a board needs which goes on from here to a root elsewhere: they are loaded when it does.
    `client_file` is `client.sh` or `client.py` of the room `board`. `extra_files` maps paths inside the image to
    contents; a content that begins with `#!` and a file that is executable here are executable there.

    Raises:
        InitramfsError, KernelModuleError, PythonTreeError: an input cannot be read or is missing.
        CpioError: two inputs have the same path in the image.
        OSError: `out` cannot be written.
    """
    entries = [
        cpio.regular("bin/busybox", _read(busybox), 0o755),
        *_init_entries(arch),
        *_module_entries(modules, root_modules),
        *_client_entries(client, client_file, python_root),
        *_extra_entries(extra_files),
    ]
    fresh = out.with_name(f"{out.name}.{os.getpid()}.new")
    try:
        with fresh.open("wb") as file:
            for piece in _packed(cpio.archive(entries), compress):
                file.write(piece)
            size = file.tell()
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)
    return size
