"""Gives each boot its root: view, identity, export, and the words for the kernel. Wires store, views and engine.

| when | what |
|---|---|
| a board fetches its command line | its view is made or kept, dressed and exported, and the words go out |
| again within 10 s | the same words: some boot programs fetch a file twice |
| its power is lost, or it boots something else | its export goes; the view stays, to be saved, until the next boot |
| we start again | views are mounted again and exported to the boards that are not off |
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from netboot.roots import nfs_checks
from netboot.roots.boot_words import NFS_PORT, NfsRoot, Upper, kernel_words
from netboot.roots.engine import Engine, Export, Finding
from netboot.roots.errors import (
    DamagedRootError,
    IdentityError,
    NoSuchRootError,
    RootError,
    RootExistsError,
    RootInUseError,
    StoreError,
)
from netboot.roots.export_book import ExportBook
from netboot.roots.identity import IdentityKeeper, boot_file, login_files
from netboot.roots.importing import RootImport
from netboot.roots.root_plan import KEPT_MARK, Reset, RootPlan, mark_of, needs_reset
from netboot.roots.store import RootInfo, RootStore
from netboot.roots.views import View, Views

log = logging.getLogger(__name__)

REPEAT_S = 10.0
"""A board cannot have started, mounted and failed in less; a second fetch so soon is of the same boot."""
STOP_TIMEOUT_S = 5.0
SAVE_TASK = "save-"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SupplySettings:
    """`server` is the address by which boards reach the engine. `secrets`: the folder that must not share the store's
    file system, for the doctor."""

    identities: Path
    server: IPv4Address
    port: int = NFS_PORT
    v3: bool = False
    secrets: Path | None = None


@dataclass(slots=True)
class SaveWork:
    """A view that is being saved, or was. `total` in octets where it is known; `error` when it failed."""

    board: str
    name: str
    stage: str = "begin"
    done: int = 0
    total: int | None = None
    ended: bool = False
    error: str | None = None
    stopping: bool = False
    """Set by us to have it given up at its next step."""


@dataclass(frozen=True, slots=True)
class _Given:
    plan: RootPlan
    boot_words: tuple[str, ...]
    kernel_words: tuple[str, ...]
    at: float


class RootSupply:
    """The roots of one board network, between `start` and `stop`."""

    def __init__(
        self,
        store: RootStore,
        views: Views,
        engine: Engine,
        settings: SupplySettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.work: list[SaveWork] = []
        """Saves since the start, the oldest first."""
        self._views = views
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._book = ExportBook(engine)
        self._locks: dict[str, asyncio.Lock] = {}
        self._given: dict[str, _Given] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._more_trash = False

    # --- life ---

    async def start(self, running: Mapping[str, RootPlan], known: Collection[str] | None = None) -> None:
        """Take up what was before. `running` are the boards that may be running from their view, `known` all that there
        are: views of others go, unless they were to be kept.

        Raises:
            RootError: the store or the engine cannot be used.
        """
        self._keeper = await asyncio.to_thread(IdentityKeeper, self._settings.identities)
        await asyncio.to_thread(self._views.sweep)
        if known is not None:
            await asyncio.to_thread(self._release_retired, known)
        wanted = {}
        for board, plan in running.items():
            try:
                view = await asyncio.to_thread(self._again, board, plan)
            except RootError as error:
                log.warning("board %s: its root cannot be given to it again: %s", board, error)
                continue
            if view is not None:
                wanted[board] = self._exports(view, plan)
        self._sweep_later()
        await self._book.start(wanted)

    def _release_retired(self, known: Collection[str]) -> None:
        for view in self._views.all():
            if view.board in known:
                continue
            if view.mark == KEPT_MARK:
                log.warning("board %s is not known; what it wrote is kept, until its root is reset", view.board)
            else:
                log.info("board %s is not known any more: its view of root %s goes", view.board, view.root)
                self._views.release(view.board)

    def make_identities(self, boards: Sequence[str]) -> None:
        """Make what these boards lack, beside everything else: 0.3 s each, which a whole shelf's first boot would wait
        for."""
        self._own(self._make_identities(boards), "identities")

    async def _make_identities(self, boards: Sequence[str]) -> None:
        for board in boards:
            async with self._lock(board):
                try:
                    await asyncio.to_thread(self._keeper.files, board)
                except IdentityError as error:  # its boot says so again, aloud
                    log.warning("%s", error)

    def _again(self, board: str, plan: RootPlan) -> View | None:
        view = self._views.get(board)
        if view is None or (view.root, view.upper) != (plan.root, plan.upper):
            return None
        return self._views.kept(board)

    async def stop(self) -> None:
        """End what was started. What boards wrote stays; mounts stay, too, for the next start."""
        for work in self.work:
            work.stopping = True
        # A thread is not to be cancelled; what it deletes may take long, and is done by a process that may be left.
        saves = [task for task in self._tasks if task.get_name().startswith(SAVE_TASK)]
        if saves:
            await asyncio.wait(saves, timeout=STOP_TIMEOUT_S)
        for task in self._tasks:
            task.cancel()
        await self._engine.stop()

    # --- a boot ---

    async def boot(self, board: str, plan: RootPlan, boot_words: Sequence[str], *, job: str = "") -> tuple[str, ...]:
        """Have the board's root ready, and give the words for its kernel. `boot_words` are laid into it.

        Raises:
            RootError: it cannot be had now; the message names the board.
        """
        async with self._lock(board):
            words, given = tuple(boot_words), self._repeated(board, plan, boot_words)
            if given is not None:
                return given.kernel_words
            self._not_saving(board)
            # First nobody has it mounted, then it changes: the engine holds on to the folder that it has exported.
            await self._withdraw(board)
            view = await asyncio.to_thread(self._prepare, board, plan, words, job)
            exports = self._exports(view, plan)
            await self._book.put(board, exports)
            found = tuple(kernel_words(self._nfs_root(plan, exports)))
            self._given[board] = _Given(plan, words, found, self._clock())
            self._sweep_later()
            return found

    def _repeated(self, board: str, plan: RootPlan, boot_words: Sequence[str]) -> _Given | None:
        given = self._given.get(board)
        if given is None or (given.plan, given.boot_words) != (plan, tuple(boot_words)):
            return None
        return given if self._clock() - given.at < REPEAT_S else None

    async def would_reset(self, board: str, plan: RootPlan, boot_words: Sequence[str], *, job: str = "") -> bool:
        """Whether `boot` would throw away what the board wrote to this root, and could do without."""
        if plan.reset is Reset.NEVER or self._repeated(board, plan, boot_words) is not None:
            return False
        try:
            view = await asyncio.to_thread(self._views.get, board)
        except RootError:
            return False  # nothing that could be kept
        return view is not None and (view.root, view.upper) == (plan.root, plan.upper) and needs_reset(view, plan, job)

    async def gone(self, board: str) -> None:
        """The board is off, retired, or boots something else.

        Raises:
            EngineError: its export cannot be taken back.
        """
        async with self._lock(board):
            await self._withdraw(board)

    def _prepare(self, board: str, plan: RootPlan, words: tuple[str, ...], job: str) -> View:
        identity = [*self._keeper.files(board), *login_files(plan.authorised_keys)]
        mark = mark_of(plan, job)
        try:
            view = self._views.get(board)
        except DamagedRootError as error:
            log.warning("board %s: %s: made anew", board, error)
            view = None
        if needs_reset(view, plan, job):
            view = self._views.fresh(board, plan.root, identity, plan.upper, mark=mark)
        else:
            view = self._views.kept(board, identity, mark=mark)
        try:
            self._views.add_to_boot(board, [boot_file(words)])
        except IdentityError as error:  # in a kept view the board did this; its command line has the words as well
            log.warning("board %s: %s", board, error)
        return view

    def _exports(self, view: View, plan: RootPlan) -> tuple[Export, ...]:
        client = (plan.address,)
        if view.path is not None:
            return (Export(f"boards/{view.board}", view.path, client, writable=True),)
        found = [
            Export(f"roots/{view.root}", self.store.tree(view.root), client, writable=False),
            Export(f"identity/{view.board}", view.identity, client, writable=False),
        ]
        if view.disk is not None:
            found.append(Export(f"disks/{view.board}", view.disk, client, writable=True))
        return tuple(found)

    def _nfs_root(self, plan: RootPlan, exports: Sequence[Export]) -> NfsRoot:
        paths = [self._engine.path_for_boards(export) for export in exports]
        return NfsRoot(
            self._settings.server,
            paths[0],
            upper=plan.upper,
            form=plan.form,
            identity=paths[1] if len(paths) > 1 else None,
            init=plan.init,
            port=self._settings.port,
            disk=paths[2] if len(paths) > 2 else None,
            v3=self._settings.v3,
        )

    async def _withdraw(self, board: str) -> None:
        self._given.pop(board, None)
        await self._book.put(board, ())

    # --- on request ---

    async def reset(self, board: str, plan: RootPlan | None, *, force: bool = False) -> View | None:
        """Throw away what the board has written. With `plan` None, as for a board without a root, its view goes.

        Raises:
            RootInUseError: the board may be running from it; `force` takes its root from under it.
            RootError: it cannot be made anew.
        """
        async with self._lock(board):
            self._not_saving(board)
            if self._book.owns(board) and not force:
                raise RootInUseError(f"board {board} may be running from its root: switch it off first, or force it")
            await self._withdraw(board)
            if plan is None:
                await asyncio.to_thread(self._views.release, board)
                view = None
            else:
                view = await asyncio.to_thread(self._fresh, board, plan)
            self._sweep_later()
            return view

    def _fresh(self, board: str, plan: RootPlan) -> View:
        identity = [*self._keeper.files(board), *login_files(plan.authorised_keys)]
        return self._views.fresh(board, plan.root, identity, plan.upper, mark=mark_of(plan, ""))

    async def begin_save(
        self, board: str, name: str, *, live: bool = False, ended: Callable[[SaveWork, RootInfo | None], None]
    ) -> SaveWork:
        """Make a new root of what the board has; on return it is under way. `ended` is told how it came out. `name` is
        an id.

        Raises:
            RootInUseError: the board may be writing; `live` takes its view as it is. Or it is being saved already.
            NoSuchRootError, RootExistsError, RootError: there is nothing to save, or the name cannot be had.
        """
        async with self._lock(board):
            self._not_saving(board)
            view = await asyncio.to_thread(self._savable, board, name)
            if self._book.owns(board) and view.upper is Upper.NFS:  # its file system is the board's while it is mounted
                raise RootInUseError(f"board {board} may be running from its root: switch it off first")
            if self._book.owns(board) and not live:
                raise RootInUseError(f"board {board} may be running from its root: switch it off first, or say live")
            work = SaveWork(board, name)
            self.work = [*(old for old in self.work if not old.ended or old.name != name), work]
        self._own(self._save(work, ended), f"{SAVE_TASK}{board}")
        return work

    def _savable(self, board: str, name: str) -> View:
        view = self._views.get(board)
        if view is None:
            raise NoSuchRootError(f"board {board} has no view: it has not booted a root of this store")
        if view.upper is Upper.MEMORY:
            raise RootError(f"board {board} keeps what it writes in its own memory: there is nothing to save here")
        if name in self.store.names():
            raise RootExistsError(f"there is a root {name} already, and roots are never changed: take another name")
        return view

    async def _save(self, work: SaveWork, ended: Callable[[SaveWork, RootInfo | None], None]) -> None:
        info = None
        try:
            info = await asyncio.to_thread(self._import, work)
        except RootError as error:
            work.error = str(error)
        work.ended = True
        ended(work, info)
        self._sweep_later()

    def _import(self, work: SaveWork) -> RootInfo:
        def progress(stage: str, done: int, total: int | None) -> None:
            work.stage, work.done, work.total = stage, done, total
            if work.stopping:
                raise RootError("the agent was stopped")

        with self._views.frozen(work.board) as folder:
            return RootImport(self.store, progress=progress).run(
                work.name, folder, called=f"view of board {work.board}"
            )

    def _not_saving(self, board: str) -> None:
        name = next((work.name for work in self.work if work.board == board and not work.ended), None)
        if name is not None:
            raise RootInUseError(f"board {board}: its root is being saved as {name}; try again when that has ended")

    # --- looking ---

    async def views(self) -> list[tuple[View, bool]]:
        """All views, and whether each is exported to its board."""
        found = await asyncio.to_thread(self._views.all)
        return [(view, self._book.owns(view.board)) for view in found]

    async def check(self) -> list[Finding]:
        """What stands between us and boards that run from here."""
        place = await asyncio.to_thread(nfs_checks.folder, self.store.folder, self._settings.secrets)
        return [*place, *await self._engine.check()]

    # --- inside ---

    def _lock(self, board: str) -> asyncio.Lock:
        return self._locks.setdefault(board, asyncio.Lock())

    def _own(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._passed)

    def _passed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=fault)

    def _sweep_later(self) -> None:
        """Delete what was thrown away, beside everything else."""
        self._more_trash = True
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="trash of roots")
            self._tasks.add(self._sweeping)
            self._sweeping.add_done_callback(self._passed)

    async def _sweep(self) -> None:
        while self._more_trash:
            self._more_trash = False
            try:
                await asyncio.to_thread(self._views.empty_trash)
                await asyncio.to_thread(self.store.sweep)
            except StoreError as error:  # space is lost, nothing else; the next one tries again
                log.warning("%s", error)
