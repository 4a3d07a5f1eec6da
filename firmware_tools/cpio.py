"""Writes cpio archives in the "newc" format, the one that Linux unpacks as an initramfs
(Documentation/driver-api/early-userspace/buffer-format.rst). No I/O.

The same entries give the same bytes: names are sorted, times and owners are zero where none is given, inode numbers
count from 1.
"""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
MAX_NAME_BYTES = 4095  # PATH_MAX of the kernel that unpacks it, less the NUL
MAX_FILE_BYTES = 2**32 - 1  # eight hexadecimal digits


class CpioError(ValueError):
    """An entry that the format cannot hold. The message names it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in the archive.

    Attributes:
        path: relative, with '/' between its parts, as `bin/busybox`.
        mode: type and permission bits, as in `st_mode`.
        data: the content of a file, the target of a symbolic link.
        device: major and minor number of a device node.
        owner: numbers of user and group.
        mtime_s: seconds since 1970.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    owner: tuple[int, int] = (0, 0)
    mtime_s: int = 0


def directory(path: str, permissions: int = 0o755) -> Entry:
    return Entry(path, stat.S_IFDIR | permissions)


def regular(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | permissions, data)


def symlink(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    return Entry(path, stat.S_IFCHR | permissions, device=(major, minor))


def with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """The entries and the folders that lead to them, sorted so that a folder stands before what is in it.

    Raises:
        CpioError: two entries have one path, or a path is not relative and plain.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        parts = entry.path.split("/")
        if any(part in {"", ".", ".."} for part in parts) or "\0" in entry.path:
            raise CpioError(f"{entry.path!r}: a path in an archive is relative, without '.', '..', '//' and NUL")
        known = found.get(entry.path)
        if known is not None and not (stat.S_ISDIR(known.mode) and stat.S_ISDIR(entry.mode)):
            raise CpioError(f"{entry.path}: stands in the archive twice")
        found[entry.path] = entry
    for path in list(found):
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found[parent] = directory(parent)
            parent = parent.rpartition("/")[0]
    for path in found:
        parent = path.rpartition("/")[0]
        if parent and not stat.S_ISDIR(found[parent].mode):
            raise CpioError(f"{path}: its parent {parent} is no folder")
    return [found[path] for path in sorted(found, key=lambda p: p.split("/"))]


def _record(number: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    if len(name) > MAX_NAME_BYTES + 1:
        raise CpioError(f"{entry.path[:80]}...: a name has at most {MAX_NAME_BYTES} bytes")
    if len(entry.data) > MAX_FILE_BYTES:
        raise CpioError(f"{entry.path}: a file has at most {MAX_FILE_BYTES} bytes")
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (
        number,
        entry.mode,
        *entry.owner,
        links,
        entry.mtime_s,
        len(entry.data),
        0,
        0,
        *entry.device,
        len(name),
        0,
    )
    head = MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + entry.data + bytes(-len(entry.data) % 4)


def archive(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The archive, piece by piece: `with_parents(entries)`, then the trailer.

    Raises:
        CpioError: an entry that the format cannot hold.
    """
    for number, entry in enumerate(with_parents(entries), start=1):
        yield _record(number, entry)
    yield _record(0, Entry(TRAILER, 0))
