"""Imports a root: a checked tar stream into GNU tar, hashed on the way, put into the store whole or not at all.

Two processes share the work, so that it takes little longer than `tar -x` alone: this one judges and hashes what the
other one writes. GNU tar keeps owners, modes, attributes, sparse files, hard links and devices.
"""

import errno
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Self

from netboot.roots import sources
from netboot.roots.errors import LossError, RootError, SourceError, StoreFullError, ToolMissingError
from netboot.roots.oci import WHITEOUT, LayerPlan, OciArchive, may_be_oci
from netboot.roots.path_guard import PathGuard, Rights
from netboot.roots.sources import SourceKind
from netboot.roots.store import Incoming, Progress, RootInfo, RootStore
from netboot.roots.tar_stream import CHUNK_BYTES, Member, Reader, TarStream

REPORT_EVERY_BYTES = 4 << 20
END_TIMEOUT_S = 600.0
"""For tar to write what it has taken, on a slow disk."""
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_EXTRACT = ("tar", "--extract", "--file=-", "--numeric-owner", "--same-permissions", "--delay-directory-restore",
            "--blocking-factor=512", "--read-full-records",
            "--warning=no-timestamp", "--warning=no-xattr-write")  # fmt: skip


def say_nothing(_what: str, _done: int, _of: int | None) -> None:
    """A `Progress` for those who do not care."""


def rights_in(folder: Path) -> Rights:
    """What this process can keep of a root in `folder`, found by trying."""
    with tempfile.TemporaryDirectory(dir=folder) as trial:
        file = Path(trial, "file")
        file.touch()
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


class RootImport:
    """One import into `store`. `lossy` allows what `rights` cannot keep to be lost; it is counted in the result."""

    def __init__(
        self,
        store: RootStore,
        *,
        lossy: bool = False,
        platform: str | None = None,
        progress: Progress = say_nothing,
        rights: Rights | None = None,
    ) -> None:
        self._store = store
        self._lossy = lossy
        self._platform = platform
        self._progress = progress
        self._rights = rights
        self._known: dict[str, tuple[int, str]] = {}
        self._lost: dict[str, int] = {}
        self._reported = 0

    def run(self, name: str, source: Path) -> RootInfo:
        """Import `source` as the root `name`. Blocks for as long as it takes: not for the event loop.

        Raises:
            SourceError, UnsafeSourceError: the source cannot or must not be imported.
            LossError: something of it would be lost.
            StoreFullError, RootExistsError, StoreError, ToolMissingError: the store or the system is at fault.
        """
        kind = sources.look_at(source)
        with self._store.incoming(name) as made, self._when_full(source, kind):
            self._guard = PathGuard(self._rights or rights_in(made.folder))
            scratch = made.folder / "scratch"
            scratch.mkdir()
            self._room_for(source, kind)
            with ExitStack() as stack:
                archive = self._oci(source, kind, scratch, stack)
                if archive is None:
                    self._plain(source, kind, scratch, made)
                else:
                    self._layers(source, archive, made)
            shutil.rmtree(scratch)
            self._progress("write the manifest", 0, None)
            lost = {**self._lost, **self._guard.lost}
            return self._store.commit(made, self._known, source=str(source), lost=lost)

    # --- the ways in ---

    def _plain(self, source: Path, kind: SourceKind, scratch: Path, made: Incoming) -> None:
        with sources.opened(source, kind, scratch=scratch, lossy=self._lossy) as found:
            self._lost |= found.lost
            self._unpack(found.stream, made, f"import {source.name}", found.position, found.total_bytes)

    def _oci(self, source: Path, kind: SourceKind, scratch: Path, stack: ExitStack) -> OciArchive | None:
        """The source as an image, if it is one. A packed one is unpacked first: its layers stand in any order."""
        if kind is not SourceKind.TAR and not kind.packed:
            return None
        if not may_be_oci(sources.first_block(source, kind)):
            return None
        plain = source
        if kind.packed:
            plain = scratch / "image.tar"
            with sources.opened(source, kind, scratch=scratch) as found, plain.open("wb") as out:
                while data := found.stream.read(CHUNK_BYTES):
                    out.write(data)
        file = stack.enter_context(plain.open("rb"))
        archive = OciArchive(source, file)
        return archive if archive.is_image else None

    def _layers(self, source: Path, archive: OciArchive, made: Incoming) -> None:
        layers = archive.layers(self._platform)
        for number, layer in enumerate(layers):
            what = f"import {source.name}, layer {number + 1} of {len(layers)}"
            plan = LayerPlan()
            with _layer_stream(archive.open(layer), source) as stream:
                TarStream(stream, None, plan.see).run()
            self._make_way(plan, made.tree)
            blob = archive.open(layer)
            blob.seek(0, os.SEEK_END)
            size = blob.tell()
            blob.seek(0)
            with _layer_stream(blob, source) as stream:
                self._unpack(stream, made, what, blob.tell, size, in_layers=True)

    def _make_way(self, plan: LayerPlan, tree: Path) -> None:
        for path in plan.emptied:
            folder = tree / self._guard.resolve(path) if path else tree
            if folder.is_dir() and not folder.is_symlink():
                for entry in list(folder.iterdir()):
                    self._take_away(tree, entry)
        for path in plan.removed:
            self._take_away(tree, tree / self._guard.resolve(path))
        for path in plan.replaced:
            place = tree / self._guard.resolve(path)
            if place.is_dir() and not place.is_symlink():
                self._take_away(tree, place)

    def _take_away(self, tree: Path, place: Path) -> None:
        path = place.relative_to(tree).as_posix()
        self._guard.forget_below(path)
        for known in [known for known in self._known if known == path or known.startswith(path + "/")]:
            del self._known[known]
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)

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
            if guard.lost.total() > before and not self._lossy:
                raise LossError(
                    f"{member.path}: {', '.join(guard.lost)} cannot be kept by user {guard.rights.uid}: "
                    "run this as root, or allow the loss with --lossy"
                )
            self._known.pop(path, None)
            return path if member.kind not in "cb" or guard.rights.devices else None

        def digest(path: str, size: int, sha256: str) -> None:
            self._known[path] = (size, sha256)

        def moved(octets: int) -> None:
            if octets - self._reported >= REPORT_EVERY_BYTES or octets < self._reported:
                self._reported = octets
                done = position() if total is not None else octets
                self._progress(what, done, total)

        with _Extractor(made.tree, guard.rights) as sink:
            count = TarStream(stream, sink, judge, digest=digest, moved=moved).run()
            if not count:
                raise SourceError(f"{what}: there is nothing in it")
        self._progress(what, total or self._reported, total)

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
        return StoreFullError(
            f"{source}: {wants} {self._store.folder} has {free / 1e6:.0f} MB free: remove roots or give it more room",
            needed_bytes=needed,
            free_bytes=free,
        )

    @contextmanager
    def _when_full(self, source: Path, kind: SourceKind) -> Iterator[None]:
        free = self._store.free_bytes()
        needed = source.stat().st_size if kind is SourceKind.TAR else None
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise self._full(source, needed, free) from error
            raise RootError(f"{source}: {error.filename or 'import'}: {error.strerror}") from error


@contextmanager
def _layer_stream(blob: IO[bytes], source: Path) -> Iterator[Reader]:
    kind = sources.kind_of(blob.read(sources.SNIFFED_BYTES))
    blob.seek(0)
    if kind is SourceKind.TAR:
        yield blob
    elif kind is not None and kind.packed:
        with sources.unpacked_part(kind, blob, source) as stream:
            yield stream
    else:
        raise SourceError(f"{source}: a layer is no tar archive, or is packed in an unknown way")


class _Extractor:
    """GNU tar that writes below `tree` what it is given."""

    def __init__(self, tree: Path, rights: Rights) -> None:
        program = sources.need("tar")
        version = subprocess.run([program, "--version"], capture_output=True, check=False, timeout=60)
        if b"GNU tar" not in version.stdout:
            raise ToolMissingError(f"{program} is not GNU tar: install the package tar")
        own = ["--same-owner"] if rights.owners else ["--no-same-owner"]
        kept = ["--xattrs", "--xattrs-include=*", "--acls"] if rights.attributes else []
        self._tree = tree
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        self._child = subprocess.Popen(
            [program, *_EXTRACT[1:], *own, *kept, f"--directory={tree}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            bufsize=CHUNK_BYTES,
            env={**os.environ, "LC_ALL": "C"},
        )
        if self._child.stdin is not None:
            with suppress(OSError):  # a user may have used up what he may have of pipes: then it is slower
                fcntl.fcntl(self._child.stdin, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes) -> None:
        """Give tar more of the archive.

        Raises:
            SourceError, OSError: it has ended; as `__exit__`.
        """
        pipe = self._child.stdin
        try:
            if pipe is not None:
                pipe.write(data)
        except BrokenPipeError:
            self._end()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._end()
        finally:
            self._child.kill()
            self._child.wait()
            if self._child.stdin is not None:
                with suppress(OSError):  # what it did not take is not needed any more
                    self._child.stdin.close()
            self._said.close()

    def _end(self) -> None:
        """Close the pipe and see how tar ends."""
        with suppress(BrokenPipeError):
            if self._child.stdin is not None:
                self._child.stdin.close()
        code = self._child.wait(END_TIMEOUT_S)
        self._said.seek(0)
        words = self._said.read(64 * 1024).decode("utf-8", "replace")
        if _FULL.search(words):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._tree))
        if code:
            lines = [line.removeprefix("tar: ") for line in words.splitlines() if "Exiting with failure" not in line]
            raise SourceError(f"tar cannot unpack it: {'; '.join(lines[:3])[:500] or f'it ended with {code}'}")
