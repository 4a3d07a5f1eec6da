"""A tree as a tar, plain or packed; `boardhand root import` takes it. The same tree gives the same bytes: sorted, times
as in the tree, owners by number alone."""

import gzip
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from firmware_tools.image.tree import Node, Tree

ZSTD_LEVEL = 9  # 12 takes twice as long for 3 % less
GZIP_LEVEL = 6
XZ_PRESET = 6
_ZSTD_TIMEOUT_S = 600.0
Count = Callable[[int], None]
"""Told after each path how many there were so far."""
_TYPES = {0o100000: tarfile.REGTYPE, 0o040000: tarfile.DIRTYPE, 0o120000: tarfile.SYMTYPE, 0o020000: tarfile.CHRTYPE,
          0o060000: tarfile.BLKTYPE, 0o010000: tarfile.FIFOTYPE}  # fmt: skip


class OutputError(Exception):
    """An image cannot be written. The message says what is missing or full."""


class _Pieces:
    """The pieces of a file, as something to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def write(tree: Tree, target: Path, packed: str, count: Count) -> None:
    """Write the tar, packed with "", "gz", "xz" or "zst".

    Raises:
        OutputError: zstd is missing or fails.
        OSError: the disk is full, or the folder is not there.
    """
    with _opened(target, packed) as out, tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for number, (path, node) in enumerate(tree.items(), start=1):
            source = cast("IO[bytes]", _Pieces(tree.pieces(node))) if node.is_file else None
            tar.addfile(_entry(path, node), source)
            count(number)


def _entry(path: str, node: Node) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type = tarfile.LNKTYPE if node.hardlink else _TYPES[node.mode & 0o170000]
    entry.mode, entry.uid, entry.gid, entry.mtime = node.mode & 0o7777, node.uid, node.gid, node.mtime_s
    entry.linkname = node.hardlink or node.target
    entry.devmajor, entry.devminor = node.device
    entry.size = node.size if node.is_file else 0
    return entry


@contextmanager
def _opened(target: Path, packed: str) -> Iterator[IO[bytes]]:
    if packed == "zst":
        with _zstd(target) as out:
            yield out
        return
    with target.open("wb") as file:
        if packed == "gz":
            with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as out:
                yield cast("IO[bytes]", out)
        elif packed == "xz":
            with lzma.LZMAFile(file, "wb", preset=XZ_PRESET) as out:
                yield cast("IO[bytes]", out)
        else:
            yield file


@contextmanager
def _zstd(target: Path) -> Iterator[IO[bytes]]:
    if shutil.which("zstd") is None:
        raise OutputError("zstd is not there: install the package zstd, or take tar.xz or tar.gz")
    command = ["zstd", "-q", "-f", f"-{ZSTD_LEVEL}", "-T1", "-", "-o", str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        if child.stdin is None or child.stderr is None:
            raise OutputError("zstd was started without pipes")
        try:
            yield child.stdin
            child.stdin.close()
            said = child.stderr.read().decode(errors="replace")
            ended = child.wait(_ZSTD_TIMEOUT_S)
        except BrokenPipeError:
            said, ended = child.stderr.read().decode(errors="replace"), 1
        finally:
            if child.poll() is None:
                child.kill()
    if ended:
        raise OutputError(f"{target}: {said.strip()[-200:] or 'zstd failed'}")
