"""Decides which members of an archive may be written: pure, no file system.

A member may be written through a link of the same archive only where that stays inside, read as the kernel of this
host would read it: an absolute link is a way out, although on the board it is none.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from netboot.roots.errors import UnsafeSourceError
from netboot.roots.import_errors import SourceTooLargeError
from netboot.roots.tar_stream import Member

MAX_LINKS_FOLLOWED = 40  # as the kernel's ELOOP
MAX_PATH_BYTES = 4095
MAX_NAME_BYTES = 255
MAX_ENTRIES = 5_000_000
"""Five times what the largest desktop system has; each costs an import about 300 octets of memory."""
_OVERLAYS_OWN = ("trusted.overlay.", "user.overlay.")
_WHITEOUT_DEVICE = (0, 0)  # Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"


@dataclass(frozen=True, slots=True)
class Rights:
    """What this process can keep of a root. `uid` and `gid` are its own."""

    owners: bool
    devices: bool
    attributes: bool
    uid: int
    gid: int


@dataclass(slots=True)
class PathGuard:
    """Judges members in their order. `lost` counts what `rights` cannot keep, by what it is.

    `max_bytes` bounds the lengths of all files together, holes included: a few octets of an archive may stand for any
    number of them.
    """

    rights: Rights
    max_bytes: int | None = None
    max_entries: int = MAX_ENTRIES
    entries: int = 0
    length_bytes: int = 0
    links: dict[str, str] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)

    def admit(self, member: Member) -> str:
        """The path at which the member will be, from the root, without `/` before it; `""` for the root itself.

        Raises:
            UnsafeSourceError: it would be written or linked outside, or it is part of an overlay.
            SourceTooLargeError: with it, there is more than the import may make.
        """
        self._count(member)
        path = self.resolve(clean(member.path))
        points_to = member.target if member.kind == "l" else None
        if member.kind == "h":
            target = clean(member.target)
            if not target:
                raise UnsafeSourceError(f"{member.path}: is a hard link to nothing")
            points_to = self.links.get(self.resolve(target))
        elif not path and member.kind != "d":
            raise UnsafeSourceError(f"{member.path}: the root itself is no folder in this archive")
        if member.kind == "c" and member.device == _WHITEOUT_DEVICE:
            raise UnsafeSourceError(f"{member.path}: is an overlay's mark of a removed file; import the merged tree")
        own = next((name for name in member.xattrs if name.startswith(_OVERLAYS_OWN)), None)
        if own is not None:
            raise UnsafeSourceError(f"{member.path}: has {own}, which belongs to an overlay; import the merged tree")
        self._note_losses(member)
        if points_to is not None:
            self.links[path] = points_to
        elif self.links:
            self.links.pop(path, None)
        return path

    def _count(self, member: Member) -> None:
        self.entries += 1
        self.length_bytes += member.length_bytes
        if self.entries > self.max_entries:
            raise SourceTooLargeError(f"{member.path}: more than {self.max_entries} files: this is no root")
        if self.max_bytes is not None and self.length_bytes > self.max_bytes:
            self.refuse_size(member.path)

    def refuse_size(self, what: str) -> NoReturn:
        """Raises:
        SourceTooLargeError: `what` makes it more than `max_bytes`.
        """
        raise SourceTooLargeError(
            f"{what}: with it, the import is larger than {(self.max_bytes or 0) / 1e6:.0f} MB in all: "
            "if you trust the source, allow more with --max-size"
        )

    def resolve(self, path: str) -> str:
        """`path` with the links among its folders followed.

        Raises:
            UnsafeSourceError: a link leads out, or in circles.
        """
        if not self.links:
            return path
        *folders, name = path.split("/")
        todo, done, followed = folders[::-1], list[str](), 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if not done:
                    raise UnsafeSourceError(f"{path}: leads out of the root through a symbolic link")
                done.pop()
                continue
            done.append(part)
            target = self.links.get("/".join(done))
            if target is None:
                continue
            followed += 1
            if followed > MAX_LINKS_FOLLOWED or target.startswith("/"):
                raise UnsafeSourceError(f"{path}: goes through the symbolic link {'/'.join(done)} -> {target}")
            done.pop()
            todo += target.split("/")[::-1]
        return "/".join([*done, name])

    def keep_links(self, is_link: Callable[[str], bool]) -> None:
        """Forget the links of earlier layers that are no more."""
        self.links = {path: target for path, target in self.links.items() if is_link(path)}

    def _note_losses(self, member: Member) -> None:
        rights, lost = self.rights, self.lost
        if not rights.owners and (member.uid != rights.uid or member.gid != rights.gid):
            lost["owners"] += 1
        if not rights.devices and member.kind in "cb":
            lost["device nodes"] += 1
        if not rights.attributes and any(not name.startswith("user.") for name in member.xattrs):
            lost["extended attributes"] += 1


def clean(path: str) -> str:
    """`path` without `./` and a `/` at its end.

    Raises:
        UnsafeSourceError: it is absolute, leads upwards or is longer than a file system takes.
    """
    if path.startswith("/"):
        raise UnsafeSourceError(f"{path}: an absolute path in an archive of a root")
    if "\0" in path:
        raise UnsafeSourceError(f"{path!r}: a path with a NUL in it")
    if "/" not in path and path not in {"", ".", ".."} and len(path) <= MAX_NAME_BYTES // 4:
        return path
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise UnsafeSourceError(f"{path}: leads out of the root")
    joined = "/".join(parts)
    encoded = joined.encode("utf-8", "surrogateescape")
    if len(encoded) > MAX_PATH_BYTES or max(map(len, encoded.split(b"/"))) > MAX_NAME_BYTES:
        raise UnsafeSourceError(f"{path[:80]}...: the path is longer than any file system takes")
    return joined
