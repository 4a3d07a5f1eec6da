"""Opens what a root is imported from as one tar stream: archives and folders; images of file systems by `images`.

Programs of the system do the work, each with its own end of a pipe: gzip, xz, bzip2 and zstd unpack, tar reads folders.
"""

import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from netboot.roots.errors import SourceError, ToolMissingError
from netboot.roots.tar_stream import BLOCK_BYTES, CHUNK_BYTES, Reader

SNIFFED_BYTES = 2048
END_TIMEOUT_S = 60.0
"""For a program to end after its last octet."""
TAR_CREATE = ("tar", "--create", "--file=-", "--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*",
              "--acls", "--one-file-system", "--sparse", "--warning=no-file-ignored")  # fmt: skip


class SourceKind(StrEnum):
    """What a source is."""

    FOLDER = "folder"
    TAR = "tar"
    GZIP = "gzip"
    XZ = "xz"
    BZIP2 = "bzip2"
    ZSTD = "zstd"
    SQUASHFS = "squashfs"
    EXT4 = "ext4"
    DISK = "disk"

    @property
    def packed(self) -> bool:
        """Whether a program has to unpack it first."""
        return self in _UNPACKERS


_MAGIC = {
    b"\x1f\x8b": SourceKind.GZIP,
    b"\xfd7zXZ\0": SourceKind.XZ,
    b"BZh": SourceKind.BZIP2,
    b"\x28\xb5\x2f\xfd": SourceKind.ZSTD,
    b"hsqs": SourceKind.SQUASHFS,
}
IMAGES = frozenset({SourceKind.SQUASHFS, SourceKind.EXT4, SourceKind.DISK})
_UNPACKERS = {
    SourceKind.GZIP: ("gzip", "-dc"),
    SourceKind.XZ: ("xz", "-dc", "-T0"),
    SourceKind.BZIP2: ("bzip2", "-dc"),
    SourceKind.ZSTD: ("zstd", "-dcq", "--long=31"),
}
_PACKAGES = {"xz": "xz-utils", "sqfs2tar": "squashfs-tools-ng", "debugfs": "e2fsprogs", "unshare": "util-linux"}


@dataclass(frozen=True, slots=True)
class Opened:
    """A source as a stream. `total_bytes` is what `position` reaches at its end, None where nobody knows."""

    stream: Reader
    total_bytes: int | None
    position: Callable[[], int]
    lost: dict[str, int]


def kind_of(head: bytes) -> SourceKind | None:
    """What a file is by its first octets; None: nothing that can be imported."""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar" or (len(head) >= BLOCK_BYTES and _old_tar(head[:BLOCK_BYTES])):
        return SourceKind.TAR
    if head[0x438:0x43A] == b"\x53\xef":  # linux/fs/ext4/ext4.h, EXT4_SUPER_MAGIC in the superblock at 1024
        return SourceKind.EXT4
    if head[510:512] == b"\x55\xaa" and _partitioned(head[446:510]):
        return SourceKind.DISK
    return None


def _partitioned(entries: bytes) -> bool:
    """Whether this is a partition table: a FAT file system has the same signature, and code in its place."""
    found = [entries[at : at + 16] for at in range(0, 64, 16)]
    return any(entry[4] and any(entry[8:12]) for entry in found) and all(entry[0] in {0, 0x80} for entry in found)


def _old_tar(block: bytes) -> bool:
    """Archives of before POSIX have no magic: their checksum says it."""
    digits = block[148:156].strip(b" \0")
    if not digits or not block[0] or digits.strip(b"01234567"):
        return False
    return int(digits, 8) == sum(block[:148]) + 256 + sum(block[156:])


def look_at(path: Path) -> SourceKind:
    """What the source at `path` is.

    Raises:
        SourceError: it cannot be read, or is nothing that can be imported.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return SourceKind.FOLDER
        with path.open("rb") as file:
            kind = kind_of(file.read(SNIFFED_BYTES))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    if kind is None:
        raise SourceError(
            f"{path}: is neither a folder nor a tar archive (plain, gzip, xz, bzip2, zstd), an OCI or docker archive, "
            "or an ext4 or squashfs image or a disk's"
        )
    return kind


def need(program: str) -> str:
    """The program's path.

    Raises:
        ToolMissingError: it is not installed.
    """
    found = shutil.which(program)
    if found is None:
        package = _PACKAGES.get(program, program)
        raise ToolMissingError(f"{program} is not installed: apt-get install --no-install-recommends {package}")
    return found


def first_octets(path: Path, kind: SourceKind) -> bytes:
    """The first octets of a file, unpacked: `SNIFFED_BYTES`, or what there is.

    Raises:
        ToolMissingError: the program that unpacks it is missing.
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        if not kind.packed:
            return file.read(SNIFFED_BYTES)
        program, *options = _UNPACKERS[kind]
        command = [need(program), *options]
        child = subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            return b"" if child.stdout is None else child.stdout.read(SNIFFED_BYTES)
        finally:
            child.kill()
            child.communicate()


@contextmanager
def opened(path: Path, kind: SourceKind) -> Iterator[Opened]:
    """A folder or archive as a stream of what is in it.

    Raises:
        SourceError: it cannot be read; at the end of the block also: it turned out to be damaged.
        ToolMissingError: a program is missing.
    """
    if kind is SourceKind.FOLDER:
        with program([*TAR_CREATE, f"--directory={path}", "."], path, None) as stream:
            yield Opened(stream, None, lambda: 0, {})
        return
    with path.open("rb", buffering=CHUNK_BYTES) as file:
        size, descriptor = path.stat().st_size, file.fileno()
        if not kind.packed:
            yield Opened(file, size, lambda: os.lseek(descriptor, 0, os.SEEK_CUR), {})
            return
        # The program's standard input is our open file: its offset tells how far it is.
        with unpacked(kind, file, path) as stream:
            yield Opened(stream, size, lambda: os.lseek(descriptor, 0, os.SEEK_CUR), {})


@contextmanager
def unpacked(kind: SourceKind, file: IO[bytes], path: Path) -> Iterator[Reader]:
    """What the packed `file`, a real file from where it stands, holds.

    Raises:
        SourceError, ToolMissingError: as `opened`.
    """
    with program(list(_UNPACKERS[kind]), path, file) as stream:
        yield stream


@contextmanager
def unpacked_part(kind: SourceKind, part: IO[bytes], path: Path) -> Iterator[Reader]:
    """What `part` holds, where it is no file of its own but a piece of one.

    Raises:
        SourceError, ToolMissingError: as `opened`.
    """
    reading, writing = os.pipe()

    def feed() -> None:
        try:
            with os.fdopen(writing, "wb", buffering=0) as pipe:
                shutil.copyfileobj(part, pipe, CHUNK_BYTES)
        except (OSError, ValueError):  # the reader has ended, or `part` was closed with it: the reader tells why
            pass

    feeder = threading.Thread(target=feed, name="unpack a layer", daemon=True)
    with os.fdopen(reading, "rb") as file:
        feeder.start()
        try:
            with unpacked(kind, file, path) as stream:
                yield stream
        finally:
            file.close()
            feeder.join(END_TIMEOUT_S)


@contextmanager
def program(command: list[str], path: Path, stdin: IO[bytes] | None) -> Iterator[Reader]:
    """The output of a program. When the block ends well, so must it.

    Raises:
        SourceError: it does not.
        ToolMissingError: it is not installed.
    """
    command = [need(command[0]), *command[1:]]
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=said,
            bufsize=CHUNK_BYTES,
            env={**os.environ, "LC_ALL": "C"},
        )
        if child.stdout is None:
            raise SourceError(f"{path}: {command[0]} has no output")
        failed = True
        try:
            with child.stdout as stream:
                yield stream
            failed = False
        except SourceError as error:
            # Cut or damaged: the program that unpacks it knows better why.
            if type(error) is SourceError and _ended_badly(child):
                raise SourceError(f"{path}: {_words(said) or error}") from error
            raise
        finally:
            if failed:
                child.kill()
            try:
                child.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child.returncode:
            raise SourceError(f"{path}: {Path(command[0]).name}: {_words(said) or f'ended with {child.returncode}'}")


def _ended_badly(child: subprocess.Popen[bytes]) -> bool:
    try:
        return child.wait(1.0) > 0
    except subprocess.TimeoutExpired:
        return False


def _words(said: IO[bytes]) -> str:
    said.seek(0)
    return " ".join(said.read(4096).decode("utf-8", "replace").split())[-400:]
