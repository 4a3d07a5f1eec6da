"""Imports a root: a checked tar stream into GNU tar, hashed on the way, put into the store whole or not at all.

Two processes share the work, so that it takes little longer than `tar -x` alone: this one judges and hashes what the
other one writes.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from netboot.roots import image_layers, images, sources
from netboot.roots.errors import LossError, RootError, SourceError, StoreError, StoreFullError
from netboot.roots.extractor import Extractor
from netboot.roots.oci import WHITEOUT, ArchivedFiles, FolderFiles, OciImage, may_be_image
from netboot.roots.path_guard import PathGuard, Rights
from netboot.roots.source_hash import SourceHash
from netboot.roots.sources import IMAGES, Opened, SourceKind
from netboot.roots.store import Incoming, Progress, RootInfo, RootStore
from netboot.roots.tar_stream import Member, Reader, TarStream

REPORT_EVERY_BYTES = 4 << 20
FETCHED = "fetched"
"""Where a source lies in the place of its import that was fetched for it: not kept."""
DEFAULT_MAX_BYTES = 64 << 30
"""Above any root of a board, and below what fills a disk for a night with the zeros of one sparse file."""


def say_nothing(_what: str, _done: int, _of: int | None) -> None:
    """A `Progress` for those who do not care."""


def rights_in(folder: Path) -> Rights:
    """What this process can keep of a root in `folder`, found by trying.

    Raises:
        StoreError: no root can be kept there.
    """
    with tempfile.TemporaryDirectory(dir=folder) as trial:
        file = Path(trial, "file")
        file.touch()
        if Path(trial, "FILE").exists():
            raise StoreError(f"{folder}: this file system takes 'file' and 'FILE' for one: keep roots elsewhere")
        return Rights(
            owners=_works(lambda: os.chown(file, 1, 1)),
            devices=_works(lambda: os.mknod(Path(trial, "null"), 0o20600, os.makedev(1, 3))),
            attributes=_works(lambda: os.setxattr(file, "trusted.boardhand", b"1")),
            uid=os.geteuid(),
            gid=os.getegid(),
        )


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _begins_as_image(source: Path, kind: SourceKind) -> bool:
    begins = False
    # A program that unpacks does not like to be left early, and what is damaged is told by the import.
    with suppress(SourceError), sources.opened(source, kind) as found:
        begins = may_be_image(found.stream)
    return begins


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What an import may do and must find.

    Args:
        lossy: what this process cannot keep may be lost; it is counted in the result.
        arch: of an OCI image: which of several, and what it must be.
        partition: of a disk's image.
        sha256: of the file, as its publisher says it; 64 hexadecimal digits.
        max_bytes: of all files together, holes included.
    """

    lossy: bool = False
    arch: str | None = None
    partition: int | None = None
    sha256: str | None = None
    max_bytes: int = DEFAULT_MAX_BYTES


class RootImport:
    """One import into `store`. `lossy` is for those who need no other option; `rights` are found by trying."""

    def __init__(
        self,
        store: RootStore,
        options: ImportOptions | None = None,
        *,
        lossy: bool = False,
        progress: Progress = say_nothing,
        rights: Rights | None = None,
    ) -> None:
        self._store = store
        self._options = options or ImportOptions(lossy=lossy)
        self._progress = progress
        self._rights = rights
        self._known: dict[str, tuple[int, str]] = {}
        self._attributes: dict[str, tuple[str, ...]] = {}
        self._lost: dict[str, int] = {}
        self._reported = 0

    def run(self, name: str, source: Path, *, called: str | None = None) -> RootInfo:
        """Import `source` as the root `name`. The record calls it `called`, or by its path. Blocks for as long as it
        takes: not for the event loop.

        Raises:
            SourceError, UnsafeSourceError, SourceTooLargeError, ChecksumError: the source cannot or must not be
                imported.
            LossError: something of it would be lost.
            StoreFullError, RootExistsError, StoreError, ToolMissingError: the store or the system is at fault.
        """
        with self._store.incoming(name) as made:
            return self.into(made, source, called or str(source.absolute()), self._options.sha256)

    def into(self, made: Incoming, source: Path, called: str, sha256: str | None) -> RootInfo:
        """As `run`, into a place that the caller has taken in the store. The record calls the source `called`."""
        kind = sources.look_at(source)
        with self._explained(source, kind), SourceHash(source, sha256) as checksum:
            self._guard = PathGuard(self._rights or rights_in(made.folder), max_bytes=self._options.max_bytes)
            scratch = made.folder / "scratch"
            scratch.mkdir()
            self._room_for(source, kind)
            self._bring(source, kind, scratch, made)
            self._see_attributes(made.tree)
            checksum.must_fit(lambda: self._progress("compare the checksum", 0, None))
            for folder in (made.folder / FETCHED, scratch):
                if folder.exists():
                    shutil.rmtree(folder)
            self._progress("write the manifest", 0, None)
            lost = {**self._lost, **self._guard.lost}
            return self._store.commit(made, self._known, source=called, lost=lost)

    # --- the ways in ---

    def _bring(self, source: Path, kind: SourceKind, scratch: Path, made: Incoming) -> None:
        with ExitStack() as stack:
            image = self._oci(source, kind, scratch, stack)
            if image is not None:
                apply = image_layers.apply
                apply(image, source, self._options.arch, made.tree, self._guard, self._layer_into(made))
                if not self._guard.entries:
                    raise SourceError(f"{source}: there is nothing in it")
                return
            if self._options.arch is not None:
                raise SourceError(f"{source}: is no OCI image, so nothing says what it is for: leave --arch out")
            found = stack.enter_context(self._plain(source, kind, scratch))
            self._lost |= found.lost
            self._unpack(found.stream, made, f"import {source.name}", found.position, found.total_bytes)
            if not self._guard.entries:
                raise SourceError(f"{source}: there is nothing in it")

    @contextmanager
    def _plain(self, source: Path, kind: SourceKind, scratch: Path) -> Iterator[Opened]:
        if kind.packed:
            inner = sources.kind_of(sources.first_octets(source, kind))
            if inner in IMAGES:
                source, kind = self._unpacked(source, kind, scratch / "image"), inner
        if kind in IMAGES:
            with images.opened(
                source, kind, scratch, lossy=self._options.lossy, partition=self._options.partition
            ) as found:
                yield found
            return
        if self._options.partition is not None:
            raise SourceError(f"{source}: is not the image of a disk: leave --partition out")
        with sources.opened(source, kind) as found:
            yield found

    def _oci(self, source: Path, kind: SourceKind, scratch: Path, stack: ExitStack) -> OciImage | None:
        """The source as an image, if it is one. A packed one is unpacked first: its layers stand in any order."""
        if kind is SourceKind.FOLDER:
            if not (source / "oci-layout").is_file():
                return None
            image = OciImage(source, FolderFiles(source))
            return image if image.is_image else None
        if kind in IMAGES or not _begins_as_image(source, kind):
            return None
        plain = self._unpacked(source, kind, scratch / "image.tar") if kind.packed else source
        image = OciImage(source, ArchivedFiles(source, stack.enter_context(plain.open("rb"))))
        return image if image.is_image else None

    def _unpacked(self, source: Path, kind: SourceKind, target: Path) -> Path:
        with sources.opened(source, kind) as found, target.open("wb") as out:
            size = images.write_sparse(found.stream, out, self._options.max_bytes + 1)
            if size > self._options.max_bytes:
                self._guard.refuse_size(source.name)
        return target

    def _layer_into(self, made: Incoming) -> image_layers.Unpack:
        def unpack(stream: Reader, what: str, position: Callable[[], int], total: int) -> None:
            self._unpack(stream, made, what, position, total, in_layers=True)

        return unpack

    # --- the stream ---

    def _unpack(
        self,
        stream: Reader,
        made: Incoming,
        what: str,
        position: Callable[[], int],
        total: int | None,
        *,
        in_layers: bool = False,
    ) -> None:
        guard = self._guard

        def judge(member: Member) -> str | None:
            if in_layers and member.path.rpartition("/")[2].startswith(WHITEOUT):
                return None
            before = guard.lost.total()
            path = guard.admit(member)
            if guard.lost.total() > before and not self._options.lossy:
                raise LossError(
                    f"{member.path}: {', '.join(guard.lost)} cannot be kept by user {guard.rights.uid}: "
                    "run this as root, or allow the loss with --lossy"
                )
            self._known.pop(path, None)
            if member.xattrs:
                self._attributes[path] = member.xattrs
            elif self._attributes:
                self._attributes.pop(path, None)
            return path if member.kind not in "cb" or guard.rights.devices else None

        def digest(path: str, size: int, sha256: str) -> None:
            self._known[path] = (size, sha256)

        def moved(octets: int) -> None:
            if octets - self._reported >= REPORT_EVERY_BYTES or octets < self._reported:
                self._reported = octets
                done = position() if total is not None else octets
                self._progress(what, done, total)
                if not self._store.free_bytes():  # tar would go on to the end of the archive, writing nothing
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(made.folder))

        with Extractor(made.tree, guard.rights, made.lock) as sink:
            TarStream(stream, sink, judge, digest=digest, moved=moved).run()
        self._progress(what, total or self._reported, total)

    def _see_attributes(self, tree: Path) -> None:
        """Compare attributes with what was in the source: tar only warns where a file system does not take one."""
        kept = ("user.", "trusted.", "security.") if self._guard.rights.attributes else ("user.",)
        for path, names in self._attributes.items():
            place = tree / path
            if not names or not os.path.lexists(place):
                continue
            there = os.listxattr(place, follow_symlinks=False)
            missing = [name for name in names if name.startswith(kept) and name not in there]
            if missing and not self._options.lossy:
                raise LossError(f"{path}: {missing[0]} cannot be kept in {tree}: or allow the loss with --lossy")
            if missing:
                self._lost["extended attributes"] = self._lost.get("extended attributes", 0) + 1

    # --- room ---

    def _room_for(self, source: Path, kind: SourceKind) -> None:
        """Refuse at once what is sure not to fit: an archive that is not packed needs what it is long."""
        if kind is not SourceKind.TAR:
            return
        needed, free = source.stat().st_size, self._store.free_bytes()
        if needed > free:
            raise self._full(source, needed, free)

    def _full(self, source: Path, needed: int | None, free: int) -> StoreFullError:
        wants = f"needs {needed / 1e6:.0f} MB and" if needed else "does not fit:"
        unused = self._store.removable()[:3]
        listed = ", ".join(f"{info.name} ({info.size_bytes / 1e6:.0f} MB)" for info in unused)
        advice = f"remove roots that no board uses: {listed}" if listed else "give it more room: no root can be removed"
        return StoreFullError(
            f"{source}: {wants} {self._store.folder} has {free / 1e6:.0f} MB free; {advice}",
            needed_bytes=needed,
            free_bytes=free,
        )

    @contextmanager
    def _explained(self, source: Path, kind: SourceKind) -> Iterator[None]:
        free = self._store.free_bytes()
        needed = source.stat().st_size if kind is SourceKind.TAR else None
        try:
            yield
        except (SourceError, LossError) as error:
            if str(source) in str(error):
                raise
            raise type(error)(f"{source}: {error}") from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise self._full(source, needed, free) from error
            raise RootError(f"{source}: {error.filename or 'import'}: {error.strerror}") from error
