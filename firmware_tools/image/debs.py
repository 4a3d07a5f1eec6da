"""Puts Debian packages into a tree: the packages' own tars, as a usr-merged Debian lays them out.

Nothing of a package is run. What is in it is read by dpkg-deb; a later package wins where two ship one file, as dpkg
lets it with `Replaces`.
"""

import re
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from firmware_tools.debian_packages import PackageError
from firmware_tools.image.tree import Node, Tree, merged

_DPKG_TIMEOUT_S = 120.0
_TYPES = {
    tarfile.REGTYPE: 0o100000, tarfile.AREGTYPE: 0o100000, tarfile.DIRTYPE: 0o040000, tarfile.SYMTYPE: 0o120000,
    tarfile.CHRTYPE: 0o020000, tarfile.BLKTYPE: 0o060000, tarfile.FIFOTYPE: 0o010000, tarfile.LNKTYPE: 0o100000,
}  # fmt: skip
_FIELD = re.compile(r"^([A-Za-z0-9-]+):[ \t]*(.*)$")


@dataclass(frozen=True, slots=True)
class Deb:
    """An unpacked package.

    Attributes:
        fields: its control fields in order; values may have several lines.
        control: its other control files by name (`postinst`, `conffiles`, `md5sums`, ...).
        paths: what it ships, as it says: for dpkg's list.
    """

    file: Path
    fields: dict[str, str]
    control: dict[str, bytes]
    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.fields["Package"]

    @property
    def version(self) -> str:
        return self.fields["Version"]

    def script(self, name: str) -> str:
        """A maintainer script's text, "" where there is none."""
        return self.control.get(name, b"").decode(errors="replace")


def parse_control(text: str) -> dict[str, str]:
    """The fields of a paragraph (Debian policy, 5.1)."""
    found: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        match = _FIELD.match(line)
        if match is not None:
            last = match[1]
            found[last] = match[2]
        elif last and line[:1] in {" ", "\t"}:
            found[last] += f"\n{line}"
    return found


def unpack(file: Path, tree: Tree, leave_out: Sequence[str]) -> Deb:
    """Put one package into the tree, without what lies below the paths of `leave_out`.

    Raises:
        PackageError: it is none, or damaged.
    """
    control: dict[str, bytes] = {}
    with _tar_of(file, "--ctrl-tarfile") as tar:
        for member in tar:
            if member.isreg() and (source := tar.extractfile(member)) is not None:
                control[member.name.removeprefix("./")] = source.read()
    fields = parse_control(control.pop("control", b"").decode(errors="replace"))
    if "Package" not in fields or "Version" not in fields:
        raise PackageError(f"{file}: has no name and version in its control file; delete it and try again")
    paths: list[str] = []
    out = tuple(path.strip("/") for path in leave_out)
    with _tar_of(file, "--fsys-tarfile") as tar:
        for member in tar:
            path = merged(member.name)
            if not path or any(path == left or path.startswith(f"{left}/") for left in out):
                continue
            paths.append("/" + member.name.removeprefix("./").rstrip("/"))
            _put(tree, path, member, tar.extractfile(member) if member.isreg() else None)
    return Deb(file, fields, control, tuple(paths))


def _put(tree: Tree, path: str, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
    kind = _TYPES.get(member.type)
    if kind is None:
        raise PackageError(f"{path}: is of a kind ({member.type!r}) that no package has")
    known = tree.get(path)
    if known is not None and member.isdir() and not known.is_folder:
        return  # a link to a folder, as /bin, stays one
    tree.parents(path)
    node = Node(
        kind | (member.mode & 0o7777),
        member.uid,
        member.gid,
        int(member.mtime),
        target=member.linkname if member.issym() else "",
        hardlink=merged(member.linkname) if member.islnk() else "",
        device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
    )
    tree.put(path, node, content)


@contextmanager
def _tar_of(file: Path, which: str) -> Iterator[tarfile.TarFile]:
    try:
        child = subprocess.Popen(["dpkg-deb", which, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise PackageError("dpkg-deb is not there: install the package dpkg") from None
    with child:
        try:
            with tarfile.open(fileobj=child.stdout, mode="r|") as tar:
                yield tar
            ended = child.wait(_DPKG_TIMEOUT_S)
        except (tarfile.TarError, subprocess.TimeoutExpired) as error:
            raise PackageError(f"{file}: dpkg-deb cannot read it ({error}); delete it and try again") from error
        finally:
            if child.poll() is None:
                child.kill()
    if ended:
        raise PackageError(f"{file}: dpkg-deb cannot read it; delete it and try again")
