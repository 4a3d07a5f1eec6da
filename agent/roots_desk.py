"""Roots at the agent: each boot gets its view, its export and its words; requests of MQTT reset and save views.

Requests, all `agent/<agent>/request/VERB`; answers carry `ok`, and `data` or `error` (`wire.phases.ErrorKind`).

`roots`: data nothing, or `{"check": true}`. Answer:
    `roots`: of each `name`, `sha256`, `size_bytes`, `files`, `source`, `imported_at`, `lost`, and `users` (boards);
    `views`: of each `board`, `root`, `upper` (server, memory, nfs), `generation`, `running` (it is exported to it);
    `work`: each save since the start with `board`, `name`, `stage`, `done`, `total` (octets, or null), `ended`, and
    `error` (null, or a sentence);
    `free_bytes`; with `check` also `findings`, each with `ok`, `what`, `advice`.
`root-reset`: `{"board": B}`, with `"force": true` also while it runs. Answer: `board`, `root`, `generation` (null where
    the next boot makes it, or the board is not in the settings any more), `took_ms`.
`root-save`: `{"board": B, "name": NEW}`, with `"live": true` also while it runs. Answer, at once: `board`, `name`. Its
    progress is in `roots` under `work`, its end an event `root` of the board, too.

Errors: `unknown-board`; `not-found` (the board has no view, or there is no such root); `bad-request` (`key` names the
part: `name` is no name, or taken); `busy` (the board runs from its view, or is being saved); `configuration` (the agent
has no [roots] table); `refused` (the kernel or the NFS server says no; the message has its words).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from agent.boot_choice import BootRequest
from agent.requests import Answer, Handler, RequestError, flag, text
from netboot.roots.boot_words import RootForm, Upper
from netboot.roots.engine import Engine, Trouble
from netboot.roots.errors import EngineError, NoSuchRootError, RootError, RootExistsError, RootInUseError
from netboot.roots.exportfs import Exportfs
from netboot.roots.ganesha import Ganesha
from netboot.roots.ganesha_bus import GaneshaBus
from netboot.roots.ganesha_config import GaneshaSettings
from netboot.roots.root_plan import Reset, RootPlan
from netboot.roots.store import RootInfo, RootStore
from netboot.roots.supply import RootSupply, SaveWork, SupplySettings
from netboot.roots.upper_disk import UpperDisk
from netboot.roots.views import Views
from wire.names import is_id
from wire.phases import ErrorKind

if TYPE_CHECKING:
    from agent.settings import AgentSettings

log = logging.getLogger(__name__)

RETRY_S = 15.0
"""How often an NFS server that did not come up is started again."""
_UPPERS = {"server": Upper.SERVER, "client-memory": Upper.MEMORY, "client-nfs": Upper.NFS}

Told = Callable[[str, dict[str, object]], None]
"""Takes a board and the details of an event `root`."""
Alarm = Callable[[Sequence[str], str | None], None]
"""Takes boards, and what is wrong with their roots, or None when that is over."""

MayReset = Callable[[str, str], Awaitable[str | None]]
"""Asked before what a board wrote to a root is thrown away; gives why not, or None."""


async def _always(_board: str, _root: str) -> str | None:
    return None


class RootsDesk:
    """The roots of one agent, between `start` and `stop`. `job` gives the lease that a board is under, "" for none."""

    def __init__(
        self,
        settings: "AgentSettings",
        *,
        job: Callable[[str], str],
        told: Told,
        alarm: Alarm,
        may_reset: MayReset = _always,
        engine: Callable[["AgentSettings", Trouble], Engine] | None = None,
    ) -> None:
        self._settings = settings
        self._job = job
        self._told = told
        self._alarm = alarm
        self._make_engine = engine_of if engine is None else engine
        self._may_reset = may_reset
        self.chosen: Callable[[str], BootRequest | None] = lambda _board: None
        """What a board boots instead of its standing profile."""
        self._kept: dict[str, tuple[str, ...]] = {}
        """By board, the boot whose reset was refused."""
        self._alarmed: set[str] = set()
        self._supply: RootSupply | None = None
        self._trouble: str | None = "roots are not up yet"
        self._starter: asyncio.Task[None] | None = None

    def handlers(self) -> dict[str, Handler]:
        """The requests, by verb."""
        return {"roots": self._roots, "root-reset": self._reset, "root-save": self._save}

    # --- life ---

    async def start(self, not_off: Iterable[str]) -> None:
        """Take up what was before; an NFS server that does not come up is tried again, and told in an alert. `not_off`
        are the boards that may be running."""
        boards = list(not_off)
        self._alarm(self._boards(), None)  # of an agent before us
        if not await self._begin(boards):
            self._starter = asyncio.create_task(self._begin_later(boards), name="roots")

    def follow(self, settings: "AgentSettings") -> None:
        """Other boards and profiles from now on. Views that run are left alone; of boards that are gone they stay."""
        before = set(self._boards())
        self._settings = settings
        new = [board for board in self._boards() if board not in before]
        if new and self._supply is not None and self._trouble is None:
            self._supply.make_identities(new)

    async def _begin(self, not_off: Sequence[str]) -> bool:
        plans = {board: plan for board in not_off if (plan := self._standing(board)) is not None}
        try:
            if self._supply is None:
                self._supply = await asyncio.to_thread(self._make)
            await self._supply.start(plans, self._settings.boards.keys())
            self._supply.make_identities(self._boards())
        except RootError as error:
            self._heard(f"roots cannot be given out: {error}")
            return False
        self._heard(None)
        return True

    async def _begin_later(self, not_off: Sequence[str]) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            if await self._begin(not_off):
                return

    def _make(self) -> RootSupply:
        settings, table, netboot = self._settings, self._settings.roots, self._settings.netboot
        if table is None or netboot is None:
            raise RootError("there is no [roots] table, or no [netboot] table")
        store = RootStore(table.dir)
        return RootSupply(
            store,
            Views(store, disks=UpperDisk(table.upper_gib << 30)),
            self._make_engine(settings, self._from_engine),
            SupplySettings(
                identities=settings.agent.state_dir / "identities",
                server=netboot.address.ip,
                port=table.port,
                v3=table.nfs3,
                secrets=settings.agent.state_dir,
            ),
        )

    async def stop(self) -> None:
        """Give out no more roots. Boards that run wait for the next start."""
        if self._starter is not None:
            self._starter.cancel()
            await asyncio.gather(self._starter, return_exceptions=True)
        if self._supply is not None:
            await self._supply.stop()

    # --- boots ---

    async def words(self, board: str, profile: str, boot_words: Sequence[str]) -> tuple[str, ...]:
        """Have the root ready for the boot that begins now, and give the words for the kernel; none for a profile
        without a root.

        Raises:
            RootError: it cannot be had; the board must not be given its command line.
        """
        plan = self._plan(board, profile)
        supply = self._supply
        try:
            if plan is None:
                if supply is not None:
                    await supply.gone(board)
                return ()
            if supply is None or self._trouble is not None:
                raise EngineError(self._trouble or "roots are not up yet")
            began, job = time.monotonic(), self._job(board)
            plan = await self._as_allowed(supply, board, plan, tuple(boot_words), job)
            found = await supply.boot(board, plan, boot_words, job=job)
        except RootError as error:
            log.exception("board %s gets no root now", board)
            if board not in self._alarmed:
                self._alarmed.add(board)
                self._alarm([board], f"its boot gets no root: {error}")
                self._told(board, {"what": "failed", "root": plan.root if plan else None, "reason": str(error)})
            raise
        self._well(board)
        took_ms = round((time.monotonic() - began) * 1000)
        self._told(board, {"what": "given", "root": plan.root, "view": plan.upper.value, "took_ms": took_ms})
        return found

    async def _as_allowed(
        self, supply: RootSupply, board: str, plan: RootPlan, boot_words: tuple[str, ...], job: str
    ) -> RootPlan:
        """`plan`, without its reset where somebody says no. He is asked once a boot."""
        if self._kept.get(board) == boot_words:
            return replace(plan, reset=Reset.NEVER)
        if not await supply.would_reset(board, plan, boot_words, job=job):
            return plan
        veto = await self._may_reset(board, plan.root)
        if veto is None:
            return plan
        self._kept[board] = boot_words
        self._told(board, {"what": "kept", "root": plan.root, "reason": veto})
        return replace(plan, reset=Reset.NEVER)

    async def power_lost(self, board: str) -> None:
        """The board is off: its export goes."""
        self._kept.pop(board, None)
        if self._supply is not None:
            try:
                await self._supply.gone(board)
            except RootError as error:
                log.warning("board %s: its export is not taken back yet: %s", board, error)

    def _well(self, board: str) -> None:
        if board in self._alarmed:
            self._alarmed.discard(board)
            self._alarm([board], None)

    def _from_engine(self, trouble: str | None) -> None:
        self._heard(None if trouble is None else f"boards that run from here stand still: {trouble}")

    def _heard(self, trouble: str | None) -> None:
        if trouble == self._trouble:
            return
        told, self._trouble = self._trouble, trouble
        if trouble is not None:
            log.error("%s", trouble)
            self._alarm(self._boards(), trouble)
        elif told is not None:
            self._alarm(self._boards(), None)
            self._alarmed.clear()

    def _boards(self) -> list[str]:
        return [name for name in self._settings.boards if self._standing(name) is not None]

    def _standing(self, board: str) -> RootPlan | None:
        known, chosen = self._settings.boards.get(board), self.chosen(board)
        if known is None:
            return None
        return self._plan(board, (known.profile or "") if chosen is None else chosen.profile or "")

    def _plan(self, board: str, profile: str) -> RootPlan | None:
        """What `profile` means for `board`; None without a root. A name that no profile has is a boot of files that
        were chosen: it has the root that was chosen with them, in the form of the standing profile."""
        table, found = self._settings.profiles.get(profile), self._settings.boards.get(board)
        if found is None or found.address is None:
            return None
        root, initrd = (None, False) if table is None else (table.root, table.initrd is not None)
        if table is None and (chosen := self.chosen(board)) is not None:
            table = self._settings.profiles.get(found.profile or "")
            root, initrd = chosen.root, chosen.initrd is not None
        if table is None or root is None:
            return None
        roots = self._settings.roots
        return RootPlan(
            root=root,
            address=found.address,
            upper=_UPPERS[table.root_view],
            form=RootForm(table.mounts_by(initrd=initrd)),
            reset=Reset(table.root_reset),
            init=table.root_init,
            authorised_keys=() if roots is None else tuple(roots.authorised_keys),
        )

    async def has(self, root: str) -> bool:
        """Whether there is such a root now."""
        return self._supply is not None and root in await asyncio.to_thread(self._supply.store.names)

    # --- requests ---

    async def _roots(self, data: dict[str, object]) -> Answer:
        supply = self._running()
        try:
            roots = await asyncio.to_thread(_listed, supply.store)
            views = await supply.views()
            findings = await supply.check() if "check" in data and flag(data, "check") else None
        except RootError as error:
            raise _refusal(error) from error
        answer: Answer = {
            "roots": roots,
            "views": [
                {"board": view.board, "root": view.root, "upper": view.upper.value, "generation": view.generation,
                 "running": running}
                for view, running in views
            ],
            "work": [_work(work) for work in supply.work],
            "free_bytes": await asyncio.to_thread(supply.store.free_bytes),
        }  # fmt: skip
        if findings is not None:
            answer["findings"] = [asdict(finding) for finding in findings]
        return answer

    async def _reset(self, data: dict[str, object]) -> Answer:
        supply, board = self._running(), text(data, "board")
        force = "force" in data and flag(data, "force")
        began = time.monotonic()
        try:
            view = next((view for view, _ in await supply.views() if view.board == board), None)
            if view is None:
                self._board(data)  # one that is not in the settings any more may have left a view
                raise NoSuchRootError(f"board {board} has no view: it has not booted from a root yet")
            veto = await self._may_reset(board, view.root)
            if veto is not None:
                raise RequestError(ErrorKind.REFUSED, f"board {board}: {veto}"[:4096])
            plan = self._standing(board)
            # What another profile's boot has left is not made anew, only thrown away.
            fresh = await supply.reset(board, plan if plan and plan.root == view.root else None, force=force)
        except RootError as error:
            raise _refusal(error) from error
        took_ms = round((time.monotonic() - began) * 1000)
        self._told(board, {"what": "reset", "root": view.root, "took_ms": took_ms})
        generation = None if fresh is None else fresh.generation
        return {"board": board, "root": view.root, "generation": generation, "took_ms": took_ms}

    async def _save(self, data: dict[str, object]) -> Answer:
        supply, board, name = self._running(), self._board(data), text(data, "name")
        live = "live" in data and flag(data, "live")
        if not is_id(name):
            message = f"name: {name[:80]!r} is no name of a root: use a-z, 0-9 and '-', at most 63 characters"
            raise RequestError(ErrorKind.BAD_REQUEST, message, "name")
        try:
            await supply.begin_save(board, name, live=live, ended=self._saved)
        except RootError as error:
            raise _refusal(error) from error
        return {"board": board, "name": name}

    def _saved(self, work: SaveWork, info: RootInfo | None) -> None:
        if info is None:
            log.warning("board %s: its root is not saved as %s: %s", work.board, work.name, work.error)
            self._told(work.board, {"what": "save-failed", "root": work.name, "reason": work.error})
            return
        details: dict[str, object] = {"what": "saved", "root": work.name, "size_bytes": info.size_bytes}
        self._told(work.board, {**details, "sha256": info.sha256})

    def _running(self) -> RootSupply:
        if self._supply is None:
            raise RequestError(ErrorKind.UNREACHABLE, self._trouble or "roots are not up yet")
        return self._supply

    def _board(self, data: Mapping[str, object]) -> str:
        board = text(data, "board")
        if board not in self._settings.boards:
            name = self._settings.agent.name
            raise RequestError(ErrorKind.UNKNOWN_BOARD, f"agent {name} has no board {board}", "board")
        return board


async def no_roots(_data: dict[str, object]) -> Answer:
    """The handler of these requests for an agent without roots."""
    raise RequestError(ErrorKind.CONFIGURATION, "this agent has no [roots] table")


def engine_of(settings: "AgentSettings", on_trouble: Trouble) -> Engine:
    """The NFS server that the settings name."""
    table, netboot = settings.roots, settings.netboot
    if table is None or netboot is None:
        raise RootError("there is no [roots] table, or no [netboot] table")
    folder = settings.agent.state_dir / "nfs"
    listens = (str(netboot.address.ip), table.port)
    if table.engine == "kernel":
        return Exportfs(folder, listens=listens, on_trouble=on_trouble)
    if table.engine == "ganesha-service":
        return GaneshaBus(folder, v3=table.nfs3, listens=listens, on_trouble=on_trouble)
    return Ganesha(GaneshaSettings(folder, port=table.port, v3=table.nfs3, listens=listens), on_trouble)


def _listed(store: RootStore) -> list[dict[str, object]]:
    return [{**asdict(store.info(name)), "users": store.users(name)} for name in store.names()]


def _work(work: SaveWork) -> dict[str, object]:
    return {
        "board": work.board, "name": work.name, "stage": work.stage, "done": work.done, "total": work.total,
        "ended": work.ended, "error": work.error,
    }  # fmt: skip


def _refusal(error: RootError) -> RequestError:
    if isinstance(error, NoSuchRootError):
        return RequestError(ErrorKind.NOT_FOUND, str(error))
    if isinstance(error, RootInUseError):
        return RequestError(ErrorKind.BUSY, str(error))
    if isinstance(error, RootExistsError):
        return RequestError(ErrorKind.BAD_REQUEST, str(error), "name")
    return RequestError(ErrorKind.REFUSED, str(error))
