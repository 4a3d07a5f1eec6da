"""Each board's own writable view of a root: an overlay that is mounted for a boot and thrown away by a rename.

    views/BOARD/view.json            which root, which boot, which generation
    views/BOARD/N/identity,upper,work    a generation: what makes the board itself, and what it has written
    views/BOARD/merged               where the overlay is mounted, and what is exported

A reset unmounts, renames the generation away and mounts an empty one. The old one is deleted later, by `empty_trash`.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from netboot.roots.errors import DamagedRootError, NoSuchRootError, RootInUseError, ViewError
from netboot.roots.identity import KeptFile, dress_like, write_layer
from netboot.roots.mounting import KernelMounter, Mounter
from netboot.roots.store import RootStore
from wire.names import is_id

log = logging.getLogger(__name__)

MAX_GENERATION = 2**31


@dataclass(frozen=True, slots=True)
class View:
    """A board's view. `generation` rises with each reset. `path` is to be exported, writable, to that board alone."""

    board: str
    root: str
    generation: int
    path: Path


@dataclass(frozen=True, slots=True)
class _Record:
    root: str
    generation: int


class Views:
    """All boards' views in a store."""

    def __init__(self, store: RootStore, mounter: Mounter | None = None) -> None:
        self._store = store
        self._mounter = mounter if mounter is not None else KernelMounter()

    def fresh(self, board: str, root: str, identity: Sequence[KeptFile]) -> View:
        """A new, empty view for a boot; what the board had written before goes. Under 200 ms whatever that was.

        Raises:
            NoSuchRootError: there is no such root.
            IdentityError, ViewError: it cannot be made or mounted; the old view is then gone, too.
        """
        tree = self._store.tree(root)
        old = self._record(board)
        self._drop(board)
        generation = (old.generation + 1) % MAX_GENERATION if old is not None else 1
        place = self._place(board)
        try:
            folder = place / str(generation)
            if folder.exists():
                self._store.throw_away(folder)
            (place / "merged").mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
            write_layer(identity, tree, folder / "identity")
            for name in ("upper", "work"):
                (folder / name).mkdir(mode=0o755)
            dress_like(folder / "upper", tree.lstat())  # the overlay's own root looks as its upper folder does
            self._write(board, _Record(root, generation))
        except OSError as error:
            raise ViewError(f"board {board}: no view can be made: {error.filename}: {error.strerror}") from error
        return self._mount(board, _Record(root, generation))

    def kept(self, board: str) -> View:
        """The view as the board left it, mounted again if need be: after our own restart, or where a root is kept.

        Raises:
            NoSuchRootError: the board has none, or its root is gone.
            ViewError: it cannot be mounted.
        """
        record = self._known(board)
        if self._mounter.is_mounted(self._place(board) / "merged"):
            return self._view(board, record)
        return self._mount(board, record)

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
        self._drop(board)
        place = self._place(board)
        try:
            if place.exists():
                self._store.throw_away(place)
        except OSError as error:
            raise ViewError(f"board {board}: its view cannot be thrown away: {error.strerror}") from error

    def all(self) -> list[View]:
        """The views that are there, mounted or not. One whose record is damaged is left out and logged."""
        found = []
        for folder in sorted((self._store.folder / "views").iterdir()):
            try:
                record = self._record(folder.name)
            except DamagedRootError as error:
                log.warning("%s", error)
                continue
            if record is not None:
                found.append(self._view(folder.name, record))
        return found

    def is_mounted(self, board: str) -> bool:
        """Whether a board can be running from its view."""
        return self._mounter.is_mounted(self._place(board) / "merged")

    @contextmanager
    def frozen(self, board: str, *, live: bool = False) -> Iterator[Path]:
        """A folder with what the board's view is, without its identity: what `root save` imports.

        Raises:
            NoSuchRootError: the board has no view.
            RootInUseError: it is mounted, so the board may be writing; `live` takes it as it is.
            ViewError: it cannot be mounted.
        """
        record = self._known(board)
        if not live and self.is_mounted(board):
            raise RootInUseError(f"board {board} may be running from its view: switch it off first, or say --live")
        place = self._place(board) / "frozen"
        place.mkdir(mode=0o700, exist_ok=True)
        self._mounter.unmount(place)
        upper = self._place(board) / str(record.generation) / "upper"
        self._mounter.mount(place, [upper, self._store.tree(record.root)], None, None)
        try:
            yield place
        finally:
            self._mounter.unmount(place)

    # --- inside ---

    def _place(self, board: str) -> Path:
        if not is_id(board):
            raise NoSuchRootError(f"{board!r} is no board's id")
        return self._store.folder / "views" / board

    def _view(self, board: str, record: _Record) -> View:
        return View(board, record.root, record.generation, self._place(board) / "merged")

    def _mount(self, board: str, record: _Record) -> View:
        place = self._place(board)
        folder, merged = place / str(record.generation), place / "merged"
        lowers = [folder / "identity", self._store.tree(record.root)]
        self._mounter.unmount(merged)
        self._mounter.mount(merged, lowers, folder / "upper", folder / "work")
        return self._view(board, record)

    def _drop(self, board: str) -> None:
        place = self._place(board)
        self._mounter.unmount(place / "merged")
        if not place.is_dir():
            return
        for folder in place.iterdir():
            if folder.name.isdecimal():
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
            return _Record(str(document["root"]), int(document["generation"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DamagedRootError(f"{path}: cannot be read ({error}); delete the folder {path.parent}") from error

    def _write(self, board: str, record: _Record) -> None:
        path = self._place(board) / "view.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")
        fresh.replace(path)
