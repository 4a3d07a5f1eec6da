"""A root as it grows: paths with their owners, in memory; contents in one temporary file.

So nobody needs root's rights, and nothing of a foreign file system's habits (order, case, times) gets into an image.
"""

import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Self

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders that packages may ship beside `usr/`, and that are links into it since Debian 12 (usrmerge)."""
_COPY_BYTES = 1 << 20


class TreeError(ValueError):
    """A path that cannot be where it is asked for. The message names it."""


@dataclass(frozen=True, slots=True)
class Node:
    """One thing at a path.

    Attributes:
        mode: type and permissions, as `st_mode`.
        uid, gid: numbers, as names mean something else on each system.
        mtime_s: seconds since 1970.
        target: of a symbolic link.
        hardlink: the path of the file that this is another name of; all else is the other's.
        device: major and minor number.
        start, size: where in the spool the content of a file stands.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    target: str = ""
    hardlink: str = ""
    device: tuple[int, int] = (0, 0)
    start: int = 0
    size: int = 0

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode) and not self.hardlink


def merged(name: str) -> str:
    """Where a package's path goes in a usr-merged root: `./lib/systemd/systemd` is `usr/lib/systemd/systemd`."""
    path = "" if name == "." else name.removeprefix("./").strip("/")
    return f"usr/{path}" if path.partition("/")[0] in MERGED and "/" in path else path


class Tree:
    """A root. Close it, or use it in `with`: its contents lie in a temporary file in `folder`."""

    def __init__(self, folder: Path | None = None) -> None:
        self._nodes: dict[str, Node] = {}
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # lives as long as we do
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def __contains__(self, path: str) -> bool:
        return path in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, path: str) -> Node | None:
        return self._nodes.get(path)

    def items(self) -> Iterator[tuple[str, Node]]:
        """Everything, sorted part by part: a folder before what is in it. Hard links come after what they name."""
        ordered = sorted(self._nodes, key=lambda path: path.split("/"))
        yield from ((path, self._nodes[path]) for path in ordered if not self._nodes[path].hardlink)
        yield from ((path, self._nodes[path]) for path in ordered if self._nodes[path].hardlink)

    def put(self, path: str, node: Node, content: IO[bytes] | bytes | None = None) -> None:
        """Put something at a path, over what was there.

        Raises:
            TreeError: the path is not plain, or a folder would vanish under a file.
        """
        if not path or any(part in {"", ".", ".."} for part in path.split("/")) or "\n" in path or "\0" in path:
            raise TreeError(f"{path!r}: is no plain path")
        known = self._nodes.get(path)
        if known is not None and known.is_folder and not node.is_folder:
            raise TreeError(f"{path}: is a folder already, and something else would take its place")
        if content is not None:
            start, size = self._keep(content)
            node = replace(node, start=start, size=size)
        self._nodes[path] = node

    def _keep(self, content: IO[bytes] | bytes) -> tuple[int, int]:
        start = self._end
        self._spool.seek(start)
        if isinstance(content, bytes):
            self._spool.write(content)
        else:
            shutil.copyfileobj(content, self._spool, _COPY_BYTES)
        self._end = self._spool.tell()
        return start, self._end - start

    def file(self, path: str, content: bytes | str, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        """Put a file of ours, and the folders that lead to it."""
        self.parents(path)
        data = content.encode() if isinstance(content, str) else content
        self.put(path, Node(stat.S_IFREG | mode, *owner), data)

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link, and the folders that lead to it."""
        self.parents(path)
        self.put(path, Node(stat.S_IFLNK | 0o777, target=target))

    def folder(self, path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> None:
        """Put a folder, and those that lead to it."""
        self.parents(path)
        self.put(path, Node(stat.S_IFDIR | mode, *owner))

    def parents(self, path: str) -> None:
        """Make the folders that lead to a path, where they are missing."""
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            at = "/".join(parts[:count])
            known = self._nodes.get(at)
            if known is None:
                self._nodes[at] = Node(stat.S_IFDIR | 0o755)
            elif not known.is_folder:
                raise TreeError(f"{path}: {at} is no folder")

    def remove(self, path: str) -> None:
        """Take something away, if it is there, and what is below it."""
        for known in [known for known in self._nodes if known == path or known.startswith(f"{path}/")]:
            del self._nodes[known]

    def content(self, node: Node) -> bytes:
        """The content of a file, whole."""
        self._spool.seek(node.start)
        return self._spool.read(node.size)

    def text(self, path: str) -> str | None:
        """A small text file, through symbolic links inside its folder or from the root; None where there is none."""
        for _ in range(8):
            node = self._nodes.get(path)
            if node is None:
                return None
            if node.hardlink:
                path = node.hardlink
            elif stat.S_ISLNK(node.mode):
                path = self._followed(path, node.target)
            else:
                return self.content(node).decode(errors="replace") if node.is_file else None
        return None

    @staticmethod
    def _followed(path: str, target: str) -> str:
        parts = [] if target.startswith("/") else path.split("/")[:-1]
        for part in target.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in {"", "."}:
                parts.append(part)
        return merged("/".join(parts))

    def pieces(self, node: Node) -> Iterator[bytes]:
        """The content of a file, piece by piece."""
        at, left = node.start, node.size
        while left:
            self._spool.seek(at)
            piece = self._spool.read(min(left, _COPY_BYTES))
            at, left = at + len(piece), left - len(piece)
            yield piece

    def clamp(self, latest_s: int) -> None:
        """No time is later than this; ours, which have none, get it (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
        for path, node in self._nodes.items():
            if node.mtime_s == 0 or node.mtime_s > latest_s:
                self._nodes[path] = replace(node, mtime_s=latest_s)

    @property
    def newest_s(self) -> int:
        """The latest time of all."""
        return max((node.mtime_s for node in self._nodes.values()), default=0)

    @property
    def content_bytes(self) -> int:
        """All contents together."""
        return sum(node.size for node in self._nodes.values())
