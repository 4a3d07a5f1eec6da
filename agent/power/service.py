"""Power for the boards of a host: wires the switching core to drivers, journal and clock."""

import asyncio
import logging
import sqlite3
from collections.abc import Collection, Mapping

from agent.power.boards import BoardEntry, check_feeds
from agent.power.changing import PowerSettings, PreparedPower, all_held
from agent.power.clock import Clock, SystemClock
from agent.power.controller_queue import ControllerQueue
from agent.power.driver_factory import DriverFactory, MakesDrivers
from agent.power.errors import PowerError
from agent.power.feed import OutletRef
from agent.power.inrush import InrushSpacing
from agent.power.journal import Journal
from agent.power.operation import Operator, Order
from agent.power.outcomes import FindingKind, PowerOutcome, StartFinding
from agent.power.readings import Listeners, Readings
from agent.power.settings import BoardFeed, ControllerBase
from agent.power.sharing import Sharing
from agent.power.start_findings import close_interrupted, look_at
from agent.power.watts import Unmeasured, feed_watts, read_watts
from wire.payloads import MAX_SHORT_TEXT, MAX_TEXT, ControllerInfo, ErrorInfo, OutletInfo
from wire.phases import ErrorKind, Phase, Power, PowerAction

__all__ = ["FindingKind", "Listeners", "PowerOutcome", "PowerService", "StartFinding"]

POLL_EVERY_S = 30.0
"""A change by hand is noticed after at most this."""
DRAIN_S = 10.0
"""For who is in the middle of asking a controller that is made anew, or taken out: longer than any driver's call."""
MAX_WAITING_PER_BOARD = 4
"""Operations that may wait for the one under way; more than that is a script gone wild."""

_log = logging.getLogger(__name__)


class PowerService:
    """All controllers and feeds of one host.

    Args:
        listeners: who hears of read-backs; each board's power is told once during `start`.
        circuits: circuit -> least seconds between two switch-ons of the controllers on it.
        poll_every_s: how often everything is read back, so that a change by hand is noticed; 0 never.

    Raises:
        ConfigurationError: a feed names a controller that does not exist, or an outlet of another board.
    """

    def __init__(
        self,
        controllers: Mapping[str, ControllerBase],
        feeds: Mapping[str, BoardFeed],
        *,
        journal: Journal,
        listeners: Listeners,
        clock: Clock | None = None,
        driver_factory: MakesDrivers | None = None,
        circuits: Mapping[str, float] | None = None,
        poll_every_s: float = POLL_EVERY_S,
    ) -> None:
        check_feeds(controllers, feeds)
        self._make = driver_factory or DriverFactory()
        self._controllers = dict(controllers)
        self._queues = {
            name: ControllerQueue(name, self._make(name, settings)) for name, settings in controllers.items()
        }
        self._boards = {name: BoardEntry(name, feed, feed.refs) for name, feed in feeds.items()}
        self._loose: dict[OutletRef, BoardEntry] = {}
        self._sharing = Sharing({name: board.refs for name, board in self._boards.items()})
        self._join_locks()
        self._journal = journal
        self._clock: Clock = clock or SystemClock()
        self._poll_every_s = poll_every_s
        self._readings = Readings(self._boards.values(), self._queues, self._clock, listeners)
        self._inrush = InrushSpacing(controllers, circuits or {})
        self._operator = Operator(self._queues, self._readings, journal, self._clock, self._inrush)
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> list[StartFinding]:
        """Read all hardware, compare it with the journal, say what was found. Switches nothing."""
        known = await self._journal.off_since()
        self._readings.off_since.update({ref: since for ref, since in known.items() if ref in self._readings})
        open_operations = await self._journal.under_way()
        await self._read(self._boards.values())
        looked = (look_at(board, self._readings) for board in self._boards.values())
        findings = [finding for finding in looked if finding is not None]
        for operation in open_operations:
            board = self._boards.get(operation.board)
            closing, finding = close_interrupted(operation, board, self._readings, self._journal, self._clock.wall())
            await self._operator.write(closing, operation.board)
            findings.append(finding)
        if self._poll_every_s > 0:
            self._poller = asyncio.create_task(self._poll(), name="power read-back")
        return findings

    async def close(self) -> None:
        """Stop reading and let go of all devices. An operation under way ends as interrupted, at once, and is found
        again at the next start."""
        await self._operator.close()
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])
        await asyncio.gather(*(queue.close() for queue in self._queues.values()))
        await self._make.close()

    # --- other settings ------------------------------------------------------------------------------------------

    def prepare(self, wanted: PowerSettings) -> PreparedPower:
        """Make what other settings need, without touching a device. Nothing is changed yet.

        Raises:
            PowerError: they cannot be used; says which controller or board.
        """
        check_feeds(wanted.controllers, wanted.feeds)
        fresh = {
            name: ControllerQueue(name, self._make(name, settings), held=name in self._queues)
            for name, settings in wanted.controllers.items()
            if self._controllers.get(name) != settings
        }
        return PreparedPower(wanted, fresh, frozenset(self._controllers.keys() - wanted.controllers.keys()))

    async def follow(self, prepared: PreparedPower, *, within_s: float) -> None:
        """Go by other settings. What is the same goes on undisturbed; operations that use what is not are waited for,
        `within_s` at most. Nothing is switched; boards whose feed or controller is another are read anew.

        Raises:
            TimeoutError: an operation did not end; nothing was changed.
        """
        wanted = prepared.wanted
        turned = {name for name, entry in self._boards.items() if prepared.turns(entry)}
        new = {name for name in wanted.feeds if name not in self._boards}
        loose = [entry for entry in self._loose.values() if prepared.turns(entry)]
        groups = Sharing(prepared.refs_of(self._boards)).groups()
        together = (group for group in groups if (turned | new).intersection(group))
        touched = {name for group in together for name in group if name in self._boards}
        async with all_held([*(self._boards[name] for name in touched), *loose], within_s):
            old_queues = [self._queues[name] for name in (*prepared.fresh, *prepared.gone) if name in self._queues]
            for name in touched:
                self._boards[name].lock = asyncio.Lock()  # who waited for the old one waits for this one
            for name in turned:
                self._boards[name].operations += 1  # what is being read of it now is old news
            self._take_up(prepared)
            for queue in old_queues:
                await queue.drained(DRAIN_S)
                await queue.close()
            for queue in prepared.fresh.values():
                queue.release()
        entries = [self._boards[name] for name in (turned | new) & self._boards.keys()]
        if not entries:
            return
        fresh = {ref for entry in entries for ref in entry.refs}
        try:
            known = await self._journal.off_since()
        except sqlite3.Error as problem:
            _log.error("the power journal cannot be read: %s", problem)  # as where it cannot be written
            known = {}
        for ref in known.keys() & fresh:
            self._readings.off_since.setdefault(ref, known[ref])
        await self._read(entries, {entry.name: entry.operations for entry in entries})

    def _take_up(self, prepared: PreparedPower) -> None:
        wanted = prepared.wanted
        for name in prepared.gone:
            del self._queues[name]
        self._queues.update(prepared.fresh)
        self._controllers = dict(wanted.controllers)
        self._loose = {ref: entry for ref, entry in self._loose.items() if ref.controller in self._controllers}
        for name in self._boards.keys() - wanted.feeds.keys():
            del self._boards[name]
        for name, feed in wanted.feeds.items():
            entry = self._boards.setdefault(name, BoardEntry(name, feed, feed.refs))
            entry.feed, entry.refs = feed, feed.refs
        self._sharing = Sharing({name: board.refs for name, board in self._boards.items()})
        self._join_locks()
        taken = {ref for board in self._boards.values() for ref in board.refs}
        self._loose = {ref: entry for ref, entry in self._loose.items() if ref not in taken}
        self._readings.follow([*self._boards.values(), *self._loose.values()])
        self._inrush.follow(self._controllers, wanted.circuits)
        self._poll_every_s = wanted.poll_every_s

    # --- switching -----------------------------------------------------------------------------------------------

    async def switch(
        self,
        board: str,
        action: PowerAction,
        *,
        operation_id: str,
        min_off_s: float | None = None,
        force: bool = False,
    ) -> PowerOutcome:
        """Carry out `action` and verify it. Never raises for hardware faults: they stand in the outcome.

        `operation_id` names the operation in the journal; a second one with the same id replaces the first there.
        `min_off_s` prolongs the time without power, for this operation. `force` passes over `never_off`.
        """
        begun = self._clock.now()
        entry = self._boards.get(board)
        if entry is None:
            return self._refused(ErrorKind.UNKNOWN_BOARD, f"{board}: has no feed in the settings; give it one", begun)
        if action is not PowerAction.ON and not force:
            for name in (board, *self._sharing.moved_with(board, action)):
                if self._boards[name].feed.never_off:
                    message = f"{board}: {name} must never be switched off (never_off in its settings); or use force"
                    return self._refused(ErrorKind.NOT_ALLOWED, message, begun)
        return await self._switch(entry, action, operation_id, min_off_s, begun)

    async def switch_outlet(
        self, ref: OutletRef, action: PowerAction, *, operation_id: str, min_off_s: float | None = None
    ) -> PowerOutcome:
        """As `switch`, for an outlet that feeds no board. One that does is refused: it goes by its board's name."""
        begun = self._clock.now()
        if ref.controller not in self._controllers:
            known = ", ".join(sorted(self._controllers)) or "none"
            message = f"{ref}: there is no controller {ref.controller}; known are: {known}"
            return self._refused(ErrorKind.NOT_FOUND, message, begun)
        users = self._sharing.users(ref)
        if users:
            message = f"{ref}: feeds {', '.join(users)}; switch it by the board's name"
            return self._refused(ErrorKind.NOT_ALLOWED, message, begun)
        outcome = await self._switch(self._loose_entry(ref), action, operation_id, min_off_s, begun)
        if outcome.error is not None and outcome.error.kind is ErrorKind.CONFIGURATION:
            # There is no such outlet: names that a client invents must not pile up.
            self._readings.forget(self._loose.pop(ref, None))
        return outcome

    def moved_with(self, board: str, action: PowerAction) -> list[str]:
        """The other boards whose power changes when `action` is done to this one: they share its outlets."""
        return self._sharing.moved_with(board, action) if board in self._boards else []

    def users(self, ref: OutletRef) -> list[str]:
        """The boards that an outlet feeds."""
        return self._sharing.users(ref)

    async def _switch(
        self, entry: BoardEntry, action: PowerAction, operation_id: str, min_off_s: float | None, begun: float
    ) -> PowerOutcome:
        if entry.waiting >= MAX_WAITING_PER_BOARD:
            message = f"{entry.name}: {entry.waiting} operations wait already; try later"
            return self._refused(ErrorKind.BUSY, message, begun)
        lock = await self._locked(entry)
        try:
            if not entry.loose and self._boards.get(entry.name) is not entry:
                message = f"{entry.name}: was taken out of the settings meanwhile"
                return self._refused(ErrorKind.UNKNOWN_BOARD, message, begun)
            off_feed = entry.refs
            if not entry.loose:
                for name in (entry.name, *self._sharing.neighbours(entry.name)):
                    self._boards[name].operations += 1
                off_feed = self._sharing.off_feed(entry.name, lambda other: self._boards[other].last is Power.OFF)
            error, power = await self._operator.run(entry, Order(operation_id, action, off_feed, min_off_s))
        finally:
            lock.release()
        took_ms = (self._clock.now() - begun) * 1000
        return PowerOutcome(error is None, power, None if error is None else error.info(), took_ms)

    @staticmethod
    async def _locked(entry: BoardEntry) -> asyncio.Lock:
        """The board's lock, held: the one that it has then, for other settings may let it share another."""
        entry.waiting += 1
        try:
            while True:
                lock = entry.lock
                await lock.acquire()
                if entry.lock is lock:
                    return lock
                lock.release()
        finally:
            entry.waiting -= 1

    def _join_locks(self) -> None:
        """Boards that share outlets are switched one at a time."""
        for group in self._sharing.groups():
            for board in group[1:]:
                self._boards[board].lock = self._boards[group[0]].lock

    def _refused(self, kind: ErrorKind, message: str, begun: float) -> PowerOutcome:
        took_ms = (self._clock.now() - begun) * 1000
        return PowerOutcome(ok=False, power=Power.UNKNOWN, error=ErrorInfo(kind=kind, message=message), took_ms=took_ms)

    def _loose_entry(self, ref: OutletRef) -> BoardEntry:
        if ref not in self._loose:
            feed = BoardFeed(outlets=[str(ref)])
            self._loose[ref] = BoardEntry(str(ref), feed, feed.refs, loose=True)
            self._readings.add(self._loose[ref])
        return self._loose[ref]

    # --- reading -------------------------------------------------------------------------------------------------

    async def read(self, board: str) -> Power:
        """A fresh read-back of the whole feed; unknown where an outlet does not answer (`problem` says why).

        Raises:
            KeyError: no such board.
        """
        entry = self._boards[board]
        await self._read([entry])
        return self._readings.feed_power(entry)

    async def read_outlet(self, ref: OutletRef) -> Power:
        """A fresh read-back of one outlet, whether or not it feeds a board.

        Raises:
            KeyError, PowerError: no such controller; the device did not answer, or has no such outlet.
        """
        return await self._queues[ref.controller].get(ref.outlet)

    async def outlet_watts(self, ref: OutletRef) -> float | None:
        """As `read_outlet`, in watts; None where the outlet is not measured."""
        return await self._queues[ref.controller].read(ref.outlet)

    def last(self, board: str) -> Power:
        """The last read-back; unknown for a board that is not there."""
        return (self._boards[board].last if board in self._boards else None) or Power.UNKNOWN

    def problem(self, board: str) -> ErrorInfo | None:
        """Why the board's power is unknown, if the last read-back failed."""
        return self._readings.problem(self._boards[board])

    async def watts(self, board: str) -> float | None:
        """What the board draws now, in watts; None where that is not measured, or not wholly."""
        return (await self._watts([self._boards[board]]))[board]

    async def watts_of_all(self) -> dict[str, float | None]:
        """`watts` of every board, with as few questions as the devices allow."""
        return await self._watts(list(self._boards.values()))

    async def _watts(self, boards: Collection[BoardEntry]) -> dict[str, float | None]:
        found = await read_watts(dict(self._queues), {ref for board in boards for ref in board.refs})
        shared = {board.name for board in boards if any(len(self._sharing.users(ref)) > 1 for ref in board.refs)}
        return {
            board.name: None
            if board.name in shared
            # A feed that is another since we asked has not been asked.
            else feed_watts([found.get(ref, Unmeasured.NO_ANSWER) for ref in board.refs], board.feed.kind)
            for board in boards
        }

    async def _poll(self) -> None:
        while True:
            await self._clock.sleep(self._poll_every_s)
            idle = [board for board in self._boards.values() if not board.lock.locked()]
            before = {board.name: board.operations for board in idle}
            await self._read(idle, before)
            self._readings.count_unreadable(idle)

    async def _read(self, boards: Collection[BoardEntry], before: Mapping[str, int] | None = None) -> None:
        changed = await self._readings.read_all(boards, before)
        if changed:
            await self._operator.write(self._journal.note(changed), ", ".join(board.name for board in boards))

    # --- showing and describing ----------------------------------------------------------------------------------

    async def show(self, board: str, phase: Phase) -> None:
        """Show the phase on the LEDs of the board's cables, where they have any. A failure is only logged."""
        entry = self._boards.get(board)
        for ref in () if entry is None else entry.refs:
            queue = self._queues.get(ref.controller)
            try:
                if queue is not None:
                    await queue.show(ref.outlet, phase)
            except PowerError as problem:
                _log.warning("%s: its LEDs cannot show %s: %s", board, phase, problem)

    async def describe(self) -> list[ControllerInfo]:
        """All controllers with their outlets; one that does not answer has those that feeds name, power unknown."""
        asked = ((self._controllers[name], queue) for name, queue in self._queues.items())
        return list(await asyncio.gather(*(self._describe(settings, queue) for settings, queue in asked)))

    async def _describe(self, settings: ControllerBase, queue: ControllerQueue) -> ControllerInfo:
        name = queue.name
        device, problem, described = None, None, []
        try:
            device = await queue.identify()
            described = await queue.describe()
        except PowerError as error:
            problem = str(error)[:MAX_TEXT]
        fed = self._readings.boards_of(name)
        outlets = [
            OutletInfo(outlet=item.outlet, name=_printed(item.name), power=item.power, board=fed.get(item.outlet))
            for item in described
        ]
        for outlet in fed.keys() - {item.outlet for item in described}:
            power = self._readings.power.get(OutletRef(name, outlet), Power.UNKNOWN)
            outlets.append(OutletInfo(outlet=outlet, power=power, board=fed[outlet]))
        return ControllerInfo(
            name=name,
            driver=settings.driver,
            description=settings.description,
            device=device,
            problem=problem,
            outlets=outlets,
        )


def _printed(name: str) -> str | None:
    """An outlet's name as it fits into a payload: devices return what somebody once typed into them."""
    return "".join(letter for letter in name if letter.isprintable())[:MAX_SHORT_TEXT].strip() or None
