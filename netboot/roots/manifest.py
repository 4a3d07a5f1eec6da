"""What is in a root: one line per file, the same for the same content, whichever way it was imported.

A line is a JSON list: kind, mode in octal, uid, gid, then what the kind has (size and SHA-256 of a file, target of a
link, numbers of a device, the first name of a hard link), attributes, path. Times are left out: they are no content.
"""

import gzip
import hashlib
import json
import os
import stat
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from netboot.roots.errors import DamagedRootError

Known = Mapping[str, tuple[int, str]]
"""SHA-256 of files by path, with the size for which it was reckoned."""
Moved = Callable[[int], None]
GZIP_LEVEL = 3
_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}


def lines(tree: Path, known: Known, moved: Moved = lambda _: None) -> Iterator[str]:
    """The manifest of what lies in `tree` now. `moved` gets the octets that were read from files.

    Raises:
        OSError: something in the tree cannot be read.
    """
    names: dict[tuple[int, int], str] = {}
    read = 0
    for path, entry, status in _walk(tree):
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        more: list[object] = []
        if kind == "f":
            first = names.setdefault((status.st_dev, status.st_ino), path) if status.st_nlink > 1 else path
            if first != path:
                kind, more = "h", [first]
            else:
                size, digest = known.get(path, (-1, ""))
                more = [status.st_size, digest if size == status.st_size else _digest(entry)]
                read += status.st_size
                moved(read)
        elif kind == "l":
            more = [os.readlink(entry)]  # noqa: PTH115  # a path object per file costs a third of the walk
        elif kind in "cb":
            more = [os.major(status.st_rdev), os.minor(status.st_rdev)]
        line = [kind, f"{stat.S_IMODE(status.st_mode):o}", status.st_uid, status.st_gid, *more, _xattrs(entry), path]
        yield json.dumps(line, ensure_ascii=True, separators=(",", ":"))


def _walk(tree: Path) -> Iterator[tuple[str, str, os.stat_result]]:
    """Path below the tree, path to open, status; sorted, folders before what is in them."""
    top = str(tree)
    yield "", top, os.lstat(top)
    todo = [("", top)]
    while todo:
        inside, folder = todo.pop()
        deeper = []
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = f"{inside}/{entry.name}" if inside else entry.name
            yield path, entry.path, entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                deeper.append((path, entry.path))
        todo += reversed(deeper)


def _digest(path: str) -> str:
    # O_NOFOLLOW: between the look and this somebody may have put a link there.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY), "rb", buffering=0) as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()


def _xattrs(path: str) -> dict[str, str]:
    names = os.listxattr(path, follow_symlinks=False)
    if not names:
        return {}
    found = {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}
    return {name: b64encode(value).decode() for name, value in found.items()}


def write(file: IO[bytes], rows: Iterator[str]) -> tuple[str, int, int]:
    """Write a manifest. Returns its SHA-256 (unpacked), how many files it has and how many octets they have.

    Raises:
        OSError: a file of the tree cannot be read or the manifest cannot be written.
    """
    whole, count, size = hashlib.sha256(), 0, 0
    with gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0) as out:
        for row in rows:
            data = row.encode() + b"\n"
            whole.update(data)
            out.write(data)
            count += 1
            if row.startswith('["f"'):
                size += int(row.split(",", 5)[4])
    return whole.hexdigest(), count, size


def read(file: IO[bytes], name: str) -> dict[str, str]:
    """The lines of the manifest of root `name`, by path.

    Raises:
        DamagedRootError: it cannot be read.
    """
    try:
        with gzip.open(file, "rt", encoding="ascii") as rows:
            return {json.loads(row)[-1]: row.rstrip("\n") for row in rows}
    except (OSError, EOFError, ValueError, IndexError, TypeError) as error:
        raise DamagedRootError(f"root {name}: its manifest cannot be read ({error}); import it anew") from error


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs, as sentences that begin with the path."""
    found = [f"{path}: is gone" for path in then.keys() - now.keys()]
    found += [f"{path}: was not imported" for path in now.keys() - then.keys()]
    for path in then.keys() & now.keys():
        if then[path] != now[path]:
            found.append(f"{path or '/'}: {_what_changed(json.loads(then[path]), json.loads(now[path]))}")
    return sorted(found)


def _what_changed(then: list[object], now: list[object]) -> str:
    if then[0] != now[0]:
        return f"was of kind {then[0]}, is of kind {now[0]}"
    if then[1] != now[1]:
        return f"its mode was {then[1]}, is {now[1]}"
    if then[2:4] != now[2:4]:
        return f"its owner was {then[2]}:{then[3]}, is {now[2]}:{now[3]}"
    return "its attributes have changed" if then[4:-2] == now[4:-2] else "its content has changed"
