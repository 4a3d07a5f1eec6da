"""Each board's own writable view of a root: made for a boot, kept or saved on request, thrown away by a rename.

    views/BOARD/view.json                which root, where writes go, which generation
    views/BOARD/N/identity,upper,work    a generation: what makes the board itself, and what it has written
    views/BOARD/N/disk/upper.img         in place of upper and work where the board lays the overlay itself, on NFS
    views/BOARD/merged                   where the overlay is mounted and what is exported, for writes on the server
    views/BOARD/frozen,veil              while a view is being saved

The record names the generation that counts: it is written when the new one is whole and before the old one goes, so
whatever a kill leaves behind is either the old view or the new one, and `sweep` takes the rest.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from netboot.roots.boot_words import Upper
from netboot.roots.errors import DamagedRootError, NoSuchRootError, RootError, RootInUseError, ViewError
from netboot.roots.identity import KeptFile
from netboot.roots.layers import dress_like, lay, layer_differs, undress, veil
from netboot.roots.mounting import KernelMounter, Mounter
from netboot.roots.store import RootStore
from netboot.roots.upper_disk import UpperDisk
from wire.names import is_id

log = logging.getLogger(__name__)

MAX_GENERATION = 2**31


@dataclass(frozen=True, slots=True)
class View:
    """A board's view. `generation` rises with each reset, `mark` is what the caller gave with it. `path` is to be
    exported to that board alone: writable where writes go to the server; None where it lays the overlay itself and is
    given the root, `identity` and, for writes on NFS, `disk`."""

    board: str
    root: str
    generation: int
    upper: Upper
    mark: str
    path: Path | None
    identity: Path
    disk: Path | None


@dataclass(frozen=True, slots=True)
class _Record:
    root: str
    generation: int
    upper: str = Upper.SERVER.value
    mark: str = ""


class Views:
    """All boards' views in a store. For one board, one call at a time. All calls block: not for the event loop."""

    def __init__(self, store: RootStore, mounter: Mounter | None = None, *, disks: UpperDisk | None = None) -> None:
        self._store = store
        self._mounter = mounter if mounter is not None else KernelMounter()
        self._disks = disks if disks is not None else UpperDisk()
        self._held: list[int] = []

    # --- for a boot ---

    def fresh(
        self, board: str, root: str, identity: Sequence[KeptFile], upper: Upper = Upper.SERVER, *, mark: str = ""
    ) -> View:
        """A new, empty view; what the board had written before goes. Under 200 ms whatever that was.

        Raises:
            NoSuchRootError: there is no such root.
            IdentityError, ViewError: it cannot be made: the old one stays; or not mounted: `kept` may try again.
        """
        tree = self._store.tree(root)
        place = self._place(board)
        try:
            old = self._record(board)
        except DamagedRootError as error:
            log.warning("%s: made anew", error)
            old = None
        generation = self._next_generation(place, old)
        record = _Record(root, generation, upper.value, mark)
        folder = place / str(generation)
        try:
            (place / "merged").mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
            lay(identity, tree, folder / "identity")
            if upper is Upper.SERVER:
                for name in ("upper", "work"):
                    (folder / name).mkdir(mode=0o755)
                dress_like(folder / "upper", tree.lstat())  # the overlay's own root looks as its upper folder does
            elif upper is Upper.NFS:
                (folder / "disk").mkdir(mode=0o700)
                self._disks.make(folder / "disk")
            self._let_go(place / "merged")
            self._write(board, record)
            self._throw_old(place, generation)
        except OSError as error:
            raise ViewError(f"board {board}: no view can be made: {error.filename}: {error.strerror}") from error
        return self._ready(board, record)

    def kept(self, board: str, identity: Sequence[KeptFile] | None = None, *, mark: str | None = None) -> View:
        """The view as the board left it, mounted again if need be: after our own restart, or where a view is kept.
        With `identity` for a new boot: the board must not be running from it. `mark` replaces the view's.

        Raises:
            NoSuchRootError: the board has none, or its root is gone.
            IdentityError, ViewError: it cannot be dressed or mounted.
        """
        record = self._known(board)
        folder = self._place(board) / str(record.generation)
        try:
            if identity is not None and layer_differs(identity, folder / "identity"):
                # Lower layers must not change below a mounted overlay (overlayfs.rst, Changes to underlying ...).
                self._mounter.unmount(self._place(board) / "merged", now=True)
                lay(identity, self._store.tree(record.root), folder / "identity")
                undress(folder / "identity", identity)
            if mark is not None and mark != record.mark:
                record = replace(record, mark=mark)
                self._write(board, record)
        except OSError as error:
            raise ViewError(f"board {board}: its view cannot be dressed: {error.filename}: {error.strerror}") from error
        return self._ready(board, record)

    def add_to_boot(self, board: str, files: Sequence[KeptFile]) -> None:
        """Files of this boot alone, as its secret: into the view, where `save` leaves them out.

        Raises:
            NoSuchRootError: the board has no view.
            IdentityError, ViewError: they cannot be written.
        """
        view = self._view(board, self._known(board))
        try:
            # Through the overlay, as the board itself would: below a mounted one nothing may change.
            lay(files, view.path or self._store.tree(view.root), view.path or view.identity)
        except OSError as error:
            raise ViewError(f"board {board}: {error.filename}: {error.strerror}") from error

    # --- afterwards ---

    def close(self, board: str) -> None:
        """Unmount a board's view and keep what it has written. None is good.

        Raises:
            ViewError: it cannot be unmounted.
        """
        self._mounter.unmount(self._place(board) / "merged")

    def release(self, board: str) -> None:
        """Unmount a board's view and throw away what it has written. None is good.

        Raises:
            ViewError: it cannot be unmounted or renamed.
        """
        place = self._place(board)
        try:
            self._let_go(place / "merged")
            self._mounter.unmount(place / "frozen")
            if place.exists():
                self._store.throw_away(place)
        except OSError as error:
            raise ViewError(f"board {board}: its view cannot be thrown away: {error.strerror}") from error

    def empty_trash(self) -> None:
        """Delete what was thrown away, and let go of what was unmounted. Takes as long as it takes.

        Raises:
            StoreError: something of it cannot be deleted.
        """
        while self._held:
            os.close(self._held.pop())
        self._store.empty_trash()

    def sweep(self) -> None:
        """At a start: throw away what a kill has left behind, and unmount what was being saved.

        Raises:
            ViewError: something cannot be unmounted or renamed.
        """
        for place in sorted((self._store.folder / "views").iterdir()):
            if not is_id(place.name):
                continue
            try:
                self._mounter.unmount(place / "frozen")
                record = self._record(place.name)
                if record is None:  # a first view that was never finished
                    self.release(place.name)
                else:
                    self._throw_old(place, record.generation)
            except DamagedRootError as error:
                log.warning("%s", error)
            except OSError as error:
                raise ViewError(f"{place}: cannot be swept: {error.strerror}") from error

    # --- looking ---

    def get(self, board: str) -> View | None:
        """A board's view, None where it has none.

        Raises:
            DamagedRootError: its record cannot be read.
        """
        record = self._record(board)
        return None if record is None else self._view(board, record)

    def all(self) -> list[View]:
        """The views that are there, mounted or not. One whose record is damaged is left out and logged."""
        found = []
        for folder in sorted((self._store.folder / "views").iterdir()):
            try:
                view = self.get(folder.name) if is_id(folder.name) else None
            except DamagedRootError as error:
                log.warning("%s", error)
                continue
            if view is not None:
                found.append(view)
        return found

    def is_mounted(self, board: str) -> bool:
        """Whether a board can be running from its view on the server."""
        return self._mounter.is_mounted(self._place(board) / "merged")

    @contextmanager
    def frozen(self, board: str) -> Iterator[Path]:
        """A folder with what the board's view is, without its identity: what `root save` imports. The caller sees to
        it that the board does not run, or takes what it writes meanwhile as it comes.

        Raises:
            NoSuchRootError: the board has no view.
            RootInUseError: it is being saved already.
            ViewError: it cannot be mounted.
            RootError: the board keeps its writes in its memory.
        """
        record = self._known(board)
        if record.upper == Upper.MEMORY:
            raise RootError(f"board {board} keeps what it writes in its own memory: there is nothing to save here")
        place = self._place(board)
        target, cover = place / "frozen", place / "veil"
        if self._mounter.is_mounted(target):
            raise RootInUseError(f"board {board}: its view is being saved already")
        folder = place / str(record.generation)
        tree = self._store.tree(record.root)
        try:
            for fresh in (target, cover):
                if fresh.exists():
                    self._store.throw_away(fresh)
                fresh.mkdir(mode=0o700)
        except OSError as error:
            raise ViewError(f"board {board}: {error.filename}: {error.strerror}") from error
        with self._disks.opened(folder / "disk") if record.upper == Upper.NFS else _there(folder / "upper") as upper:
            try:
                veil(folder / "identity", upper, tree, cover)
            except OSError as error:
                raise ViewError(f"board {board}: {error.filename}: {error.strerror}") from error
            self._mounter.mount(target, [cover, upper, tree], None, None)
            try:
                yield target
            finally:
                self._mounter.unmount(target)
                with suppress(OSError):  # `sweep` takes it
                    self._store.throw_away(cover)

    # --- inside ---

    def _place(self, board: str) -> Path:
        if not is_id(board):
            raise NoSuchRootError(f"{board!r} is no board's id")
        return self._store.folder / "views" / board

    def _view(self, board: str, record: _Record) -> View:
        place = self._place(board)
        folder, upper = place / str(record.generation), Upper(record.upper)
        return View(
            board,
            record.root,
            record.generation,
            upper,
            record.mark,
            place / "merged" if upper is Upper.SERVER else None,
            folder / "identity",
            folder / "disk" if upper is Upper.NFS else None,
        )

    def _ready(self, board: str, record: _Record) -> View:
        view = self._view(board, record)
        tree = self._store.tree(record.root)
        if view.path is not None and not self._mounter.is_mounted(view.path):
            folder = view.identity.parent
            self._mounter.mount(view.path, [view.identity, tree], folder / "upper", folder / "work")
        return view

    def _let_go(self, merged: Path) -> None:
        """Unmount, and leave it to `empty_trash` to forget what the kernel knows of it: 0.2 s for 100,000 files."""
        if self._mounter.is_mounted(merged):
            self._held.append(os.open(merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            self._mounter.unmount(merged)

    def _next_generation(self, place: Path, old: _Record | None) -> int:
        there = [int(folder.name) for folder in place.iterdir() if folder.name.isdecimal()] if place.is_dir() else []
        return (max([*there, old.generation if old is not None else 0]) + 1) % MAX_GENERATION

    def _throw_old(self, place: Path, generation: int) -> None:
        for folder in place.iterdir():
            if (folder.name.isdecimal() and folder.name != str(generation)) or folder.name == "veil":
                self._store.throw_away(folder)

    def _known(self, board: str) -> _Record:
        record = self._record(board)
        if record is None:
            raise NoSuchRootError(f"board {board} has no view: it has not booted a root of this store")
        return record

    def _record(self, board: str) -> _Record | None:
        path = self._place(board) / "view.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            upper = Upper(document.get("upper", Upper.SERVER))
            record = _Record(
                str(document["root"]), int(document["generation"]), upper.value, str(document.get("mark", ""))
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedRootError(f"{path}: cannot be read ({error}); reset the board's root") from error
        return record if (path.parent / str(record.generation) / "identity").is_dir() else None

    def _write(self, board: str, record: _Record) -> None:
        path = self._place(board) / "view.json"
        fresh = path.with_suffix(".new")
        # No fsync: it would wait for whatever an import is writing. Without it a power cut costs a record, not a root.
        fresh.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")
        fresh.replace(path)


@contextmanager
def _there(folder: Path) -> Iterator[Path]:
    yield folder
