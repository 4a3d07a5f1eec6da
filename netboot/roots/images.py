"""Reads file system images as a tar stream: ext4 and squashfs, whole files or partitions of a disk's image.

sqfs2tar reads squashfs. What it cannot read is mounted, read only, in a mount namespace that dies with its process;
whoever imports such an image trusts it as far as the kernel's file system does. Without root, debugfs reads what it can
of ext4. MBR and GPT after UEFI 2.10, 5.2.1 and 5.3.
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from netboot.roots import sources
from netboot.roots.errors import LossError, SourceError
from netboot.roots.sources import TAR_CREATE, Opened, SourceKind
from netboot.roots.tar_stream import CHUNK_BYTES, Reader

SECTOR_BYTES = 512
MAX_PARTITIONS = 128
LOOP_CONTROL = Path("/dev/loop-control")
DEBUGFS_TIMEOUT_S = 3600.0
_SUPERBLOCK_AT = 1024
_NEEDS_RECOVERY = 0x4  # linux/fs/ext4/ext4.h, EXT4_FEATURE_INCOMPAT_RECOVER
_EXTENDED = {0x05, 0x0F, 0x85}
_PROTECTIVE = 0xEE
Read = Callable[[int, int], bytes]
_MOUNT_AND_READ = 'mount -t "$1" -o "$2" -- "$3" "$4" && shift 4 && exec "$@"'
_OTHERS = ((0x52, b"FAT32"), (0x36, b"FAT1"), (0, b"XFSB"), (0x10040, b"_BHRfS_M"), (0x400, b"\x10\x20\xf5\xf2"))
_OTHER_NAMES = ("vfat", "vfat", "xfs", "btrfs", "f2fs")


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of a disk's image. `holds` is the name of its file system, `?` where it is none we know."""

    number: int
    start_bytes: int
    size_bytes: int
    holds: str


def partitions(path: Path) -> list[Partition]:
    """The partitions of a disk's image, those that reach beyond its end left out; none: it has no table.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)

        def read(at: int, count: int) -> bytes:
            file.seek(at)
            return file.read(count)

        found = []
        for number, start, length in table(read):
            if start > 0 < length and start + length <= size:
                found.append(Partition(number, start, length, _holds(read, start)))
        return found


def table(read: Read) -> list[tuple[int, int, int]]:
    """Number, start and length in octets of each partition. `read` takes position and count and may give less."""
    head = read(0, SECTOR_BYTES)
    if head[510:512] != b"\x55\xaa":
        return []
    entries = _mbr_entries(head)
    if any(kind == _PROTECTIVE for kind, _, _ in entries):
        return _gpt(read)
    found = []
    for number, (kind, start, count) in enumerate(entries, 1):
        if kind in _EXTENDED:
            found += _logical(read, start)
        elif kind and count:
            found.append((number, start * SECTOR_BYTES, count * SECTOR_BYTES))
    return sorted(found)


def _mbr_entries(sector: bytes) -> list[tuple[int, int, int]]:
    """Type, first sector and number of sectors of the four entries."""
    return [struct.unpack_from("<4xB3xII", sector, 446 + 16 * index) for index in range(4)]


def _logical(read: Read, first: int) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    at = first
    while len(found) < MAX_PARTITIONS:
        sector = read(at * SECTOR_BYTES, SECTOR_BYTES)
        if sector[510:512] != b"\x55\xaa":
            break
        (kind, start, count), (_, further, _), *_ = _mbr_entries(sector)
        if not kind or not count:
            break
        found.append((5 + len(found), (at + start) * SECTOR_BYTES, count * SECTOR_BYTES))
        if not further:
            break
        at = first + further
    return found


def _gpt(read: Read) -> list[tuple[int, int, int]]:
    for sector in (SECTOR_BYTES, 4096):
        header = read(sector, 92)
        if header[:8] == b"EFI PART" and len(header) == 92:
            break
    else:
        return []
    at, count, size = struct.unpack_from("<QII", header, 72)
    found = []
    for index in range(min(count, MAX_PARTITIONS)):
        entry = read(at * sector + index * size, 48)
        if len(entry) == 48 and any(entry[:16]):
            first, last = struct.unpack_from("<QQ", entry, 32)
            found.append((index + 1, first * sector, (last - first + 1) * sector))
    return found


def _holds(read: Read, start: int) -> str:
    kind = sources.kind_of(read(start, sources.SNIFFED_BYTES))
    if kind in sources.IMAGES and kind is not SourceKind.DISK:
        return str(kind)
    others = zip(_OTHERS, _OTHER_NAMES, strict=True)
    return next((name for (at, magic), name in others if read(start + at, len(magic)) == magic), "?")


def chosen(path: Path, number: int | None) -> tuple[Partition, SourceKind]:
    """The partition of a disk's image that is to be imported, and what it is.

    Raises:
        SourceError: none was chosen, there is none of that number, or it holds nothing that can be imported.
        OSError: the image cannot be read.
    """
    there = partitions(path)
    listed = ", ".join(f"{part.number} ({part.holds}, {part.size_bytes / 1e6:.0f} MB)" for part in there) or "none"
    if number is None:
        raise SourceError(f"{path}: is the image of a disk: say with --partition which of these is the root: {listed}")
    part = next((part for part in there if part.number == number), None)
    if part is None:
        raise SourceError(f"{path}: has no partition {number}; it has: {listed}")
    if part.holds not in {SourceKind.EXT4, SourceKind.SQUASHFS}:
        raise SourceError(f"{path}: partition {number} holds neither ext4 nor squashfs; it has: {listed}")
    return part, SourceKind(part.holds)


@contextmanager
def opened(path: Path, kind: SourceKind, scratch: Path, *, lossy: bool, partition: int | None) -> Iterator[Opened]:
    """The image as a tar stream; `scratch` is an empty folder.

    Raises:
        SourceError, LossError, ToolMissingError: as `sources.opened`.
    """
    part = None
    if kind is SourceKind.DISK:
        part, kind = chosen(path, partition)
    elif partition is not None:
        raise SourceError(f"{path}: holds one file system and no partitions: leave --partition out")
    if kind is SourceKind.EXT4:
        _must_be_clean(path, 0 if part is None else part.start_bytes)
    lost: dict[str, int] = {}
    inside = scratch / "inside"
    inside.mkdir()
    if kind is SourceKind.SQUASHFS and shutil.which("sqfs2tar") is not None:
        command = ["sqfs2tar", "--root-becomes", ".", str(_alone(path, part, scratch))]
    elif os.geteuid() == 0 and LOOP_CONTROL.exists():
        command = _mount_and_read(path, kind, part, inside)
    elif kind is SourceKind.SQUASHFS:
        command = [sources.need("sqfs2tar")]
    else:
        if not lossy:
            raise LossError(
                f"{path}: without root and loop devices, hard links, device nodes and attributes of an ext4 image "
                "cannot be read: run this as root, or allow the loss with --lossy"
            )
        _dump_ext4(_alone(path, part, scratch), inside)
        command = [*TAR_CREATE, f"--directory={inside}", "."]
        lost = {"hard links, device nodes and attributes of an ext4 image": 1}
    with sources.program(command, path, None) as stream:
        yield Opened(stream, None, lambda: 0, lost)


def _mount_and_read(path: Path, kind: SourceKind, part: Partition | None, place: Path) -> list[str]:
    options = "ro,loop,nosuid,nodev,noexec"
    options += ",noload" if kind is SourceKind.EXT4 else ""  # never write to the source, its journal is clean
    options += f",offset={part.start_bytes},sizelimit={part.size_bytes}" if part is not None else ""
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", _MOUNT_AND_READ, "sh", kind.value,
            options, str(path.absolute()), str(place), *TAR_CREATE, f"--directory={place}", "."]  # fmt: skip


def _must_be_clean(path: Path, start: int) -> None:
    with path.open("rb") as file:
        file.seek(start + _SUPERBLOCK_AT + 0x60)
        features = int.from_bytes(file.read(4), "little")
    if features & _NEEDS_RECOVERY:
        raise SourceError(
            f"{path}: the file system was not unmounted: its journal holds changes that are not in place; "
            "run 'e2fsck -p' on a copy and import that"
        )


def _alone(path: Path, part: Partition | None, scratch: Path) -> Path:
    """A file with nothing but the partition in it, for programs that know no offset."""
    if part is None:
        return path
    copy = scratch / "partition"
    with path.open("rb") as file, copy.open("wb") as out:
        file.seek(part.start_bytes)
        write_sparse(file, out, part.size_bytes)
    return copy


def write_sparse(stream: Reader, out: IO[bytes], most: int) -> int:
    """Copy at most `most` octets and leave holes where there are zeros. Returns how many there were.

    Raises:
        OSError: they cannot be written.
    """
    done = 0
    while done < most and (data := stream.read(min(CHUNK_BYTES, most - done))):
        if any(data):
            out.seek(done)
            out.write(data)
        done += len(data)
    out.truncate(done)
    return done


def _dump_ext4(path: Path, place: Path) -> None:
    command = [sources.need("debugfs"), "-R", f'rdump / "{place}"', str(path)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=DEBUGFS_TIMEOUT_S
    )
    # debugfs ends with 0 whatever happens; that it may not change owners is what we have been told to accept.
    told = [line for line in done.stderr.splitlines()[1:] if line.strip() and "changing ownership" not in line]
    if done.returncode or told:
        raise SourceError(f"{path}: debugfs: {' '.join(told)[-300:] or done.returncode}")
