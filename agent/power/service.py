"""Power for the boards of a host: wires the switching core to drivers, journal and clock."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping

from agent.power.boards import BoardEntry, LiveTimings, check_feeds
from agent.power.clock import Clock, SystemClock
from agent.power.controller_queue import ControllerQueue
from agent.power.driver_factory import DriverFactory, MakesDrivers
from agent.power.errors import InterruptedOperationError, PowerError
from agent.power.feed import OutletRef
from agent.power.journal import Journal, OpenOperation
from agent.power.outcomes import FindingKind, PowerOutcome, StartFinding
from agent.power.readings import Readings
from agent.power.settings import BoardFeed, ControllerBase
from agent.power.switching import (
    CallFailed,
    CannotReadBack,
    Command,
    Event,
    FeedSwitch,
    Finish,
    Read,
    ReadBack,
    Set,
    SetAccepted,
    State,
    TimePassed,
    Wait,
    legs_of,
)
from wire.payloads import ControllerInfo, ErrorInfo, OutletInfo
from wire.phases import ErrorKind, Phase, Power, PowerAction

__all__ = ["FindingKind", "PowerOutcome", "PowerService", "StartFinding"]

POLL_EVERY_S = 30.0
"""A change by hand is noticed after at most this; a 48-outlet PDU is asked 1.6 times a second by it."""
MAX_WAITING_PER_BOARD = 4
"""Operations that may wait for the one under way; more than that is a script gone wild."""

_log = logging.getLogger(__name__)


class PowerService:
    """All controllers and feeds of one host.

    Args:
        on_power: called in the event loop with a board and its power whenever what was read back changes, and once
            per board during `start`. Must neither block nor raise.
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
        on_power: Callable[[str, Power], None],
        clock: Clock | None = None,
        driver_factory: MakesDrivers | None = None,
        poll_every_s: float = POLL_EVERY_S,
    ) -> None:
        check_feeds(controllers, feeds)
        self._make = driver_factory or DriverFactory()
        self._controllers = dict(controllers)
        self._queues = {
            name: ControllerQueue(name, self._make(name, settings)) for name, settings in controllers.items()
        }
        self._boards = {name: BoardEntry(name, feed, feed.refs) for name, feed in feeds.items()}
        self._journal = journal
        self._clock: Clock = clock or SystemClock()
        self._poll_every_s = poll_every_s
        self._readings = Readings(self._boards.values(), self._queues, self._clock, on_power)
        self._next_on: dict[str, float] = {}
        self._poller: asyncio.Task[None] | None = None
        self._driving: set[asyncio.Task[PowerError | None]] = set()
        self._closing = False

    async def start(self) -> list[StartFinding]:
        """Read all hardware, compare it with the journal, say what was found. Switches nothing."""
        known = await self._journal.off_since()
        self._readings.off_since.update({ref: t for ref, t in known.items() if self._readings.board_of(ref)})
        open_operations = await self._journal.under_way()
        await self._read(self._boards.values())
        findings = [finding for board in self._boards.values() if (finding := self._look_at(board)) is not None]
        findings += [await self._close_interrupted(operation) for operation in open_operations]
        if self._poll_every_s > 0:
            self._poller = asyncio.create_task(self._poll(), name="power read-back")
        return findings

    async def close(self) -> None:
        """Stop reading and let go of all devices. An operation under way ends as interrupted, at once, and is found
        again at the next start."""
        self._closing = True
        for task in self._driving:
            task.cancel()
        if self._driving:
            await asyncio.wait(self._driving)
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])
        await asyncio.gather(*(queue.close() for queue in self._queues.values()))
        await self._make.close()

    # --- what callers ask ----------------------------------------------------------------------------------------

    async def switch(self, board: str, action: PowerAction, *, operation_id: str) -> PowerOutcome:
        """Carry out `action` and verify it. Never raises for hardware faults: they stand in the outcome.

        `operation_id` names the operation in the journal; a second one with the same id replaces the first there.
        """
        begun = self._clock.now()
        entry = self._boards.get(board)
        if entry is None:
            return self._refused(ErrorKind.UNKNOWN_BOARD, f"{board}: has no feed in the settings; give it one", begun)
        if entry.waiting >= MAX_WAITING_PER_BOARD:
            return self._refused(ErrorKind.BUSY, f"{board}: {entry.waiting} operations wait already; try later", begun)
        entry.waiting += 1
        try:
            await entry.lock.acquire()
        finally:
            entry.waiting -= 1
        try:
            entry.operations += 1
            error, power = await self._operate(entry, action, operation_id)
        finally:
            entry.lock.release()
        took_ms = (self._clock.now() - begun) * 1000
        return PowerOutcome(error is None, power, None if error is None else error.info(), took_ms)

    async def read(self, board: str) -> Power:
        """A fresh read-back of the whole feed; unknown where an outlet does not answer (`problem` says why).

        Raises:
            KeyError: no such board.
        """
        entry = self._boards[board]
        await self._read([entry])
        return self._readings.feed_power(entry)

    def last(self, board: str) -> Power:
        """The last read-back. Raises KeyError for a board that is not there."""
        return self._boards[board].last or Power.UNKNOWN

    def problem(self, board: str) -> ErrorInfo | None:
        """Why the board's power cannot be read, if the last read-back failed."""
        return self._readings.problem(self._boards[board])

    async def watts(self, board: str) -> float | None:
        """What the board draws now, where exactly one outlet of its feed measures it; otherwise None: the outlets of
        a chain would count the same power twice."""
        measured: list[float] = []
        for ref in self._boards[board].refs:
            try:
                value = await self._queues[ref.controller].read(ref.outlet)
            except PowerError as problem:
                _log.info("%s: no power measurement: %s", board, problem)
                return None
            if value is not None:
                measured.append(value)
        return measured[0] if len(measured) == 1 else None

    async def show(self, board: str, phase: Phase) -> None:
        """Show the phase on the LEDs of the board's cables, where they have any. A failure is only logged."""
        for ref in self._boards[board].refs:
            try:
                await self._queues[ref.controller].show(ref.outlet, phase)
            except PowerError as problem:
                _log.warning("%s: its LEDs cannot show %s: %s", board, phase, problem)

    async def describe(self) -> list[ControllerInfo]:
        """All controllers with their outlets; one that does not answer has those that feeds name, power unknown."""
        return list(await asyncio.gather(*(self._describe(name) for name in self._controllers)))

    # --- one operation -------------------------------------------------------------------------------------------

    async def _operate(
        self, board: BoardEntry, action: PowerAction, operation_id: str
    ) -> tuple[PowerError | None, Power]:
        on_refs = [leg.ref for leg in legs_of(action, board.refs) if leg.on]
        clock, wall = self._clock.now(), self._clock.wall()
        await self._write(
            self._journal.begin(operation_id, board.name, action, clock=clock, wall=wall, on=on_refs), board.name
        )
        machine = FeedSwitch(
            action,
            board.refs,
            LiveTimings(board, self._queues),
            off_since={ref: self._readings.off_since[ref] for ref in board.refs if ref in self._readings.off_since},
        )
        task = asyncio.create_task(self._drive(board, machine), name=f"{action} of {board.name}")
        self._driving.add(task)
        task.add_done_callback(self._driving.discard)
        try:
            error = await task
        except asyncio.CancelledError:
            if not (self._closing and task.cancelled()):
                raise
            # Its end is not written down: the next start finds it and says what is.
            return _interrupted(board.refs[0], action, board.name, Power.UNKNOWN), Power.UNKNOWN
        for ref in board.refs:
            about_it = error is not None and ref == (error.controller, error.outlet) and ref not in machine.readings
            self._readings.take(ref, machine.readings.get(ref, Power.UNKNOWN), error if about_it else None)
        if error is not None and len(board.refs) > 1:
            await self._readings.read_all([board])
        power = self._readings.publish(board)
        off_since = {ref: self._readings.off_since.get(ref) for ref in board.refs}
        ending = self._journal.end(operation_id, wall=self._clock.wall(), power=power, error=error, off_since=off_since)
        await self._write(ending, board.name)
        return error, power

    async def _drive(self, board: BoardEntry, machine: FeedSwitch) -> PowerError | None:
        command = machine.start(self._clock.now())
        while not isinstance(command, Finish):
            event = await self._perform(command)
            command = machine.handle(self._clock.now(), event)
            self._keep_off_since(machine)
            if isinstance(event, ReadBack) and machine.state is not State.PAUSED:
                self._readings.power.update(machine.readings)
                self._readings.publish(board)
        return command.error

    def _keep_off_since(self, machine: FeedSwitch) -> None:
        for ref in machine.feed:
            if ref in machine.off_since:
                self._readings.off_since[ref] = machine.off_since[ref]
            else:
                self._readings.off_since.pop(ref, None)

    async def _perform(self, command: Command) -> Event:
        try:
            match command:
                case Set(ref, on):
                    await self._spread_inrush(ref.controller, on=on)
                    await self._queues[ref.controller].set(ref.outlet, on)
                    return SetAccepted()
                case Read(ref):
                    queue = self._queues[ref.controller]
                    power = await queue.get(ref.outlet) if queue.driver.reads_back else Power.UNKNOWN
                    # Asked again afterwards: a cable may show only by its silence that it has no read-back.
                    return ReadBack(power) if queue.driver.reads_back else CannotReadBack()
                case Wait(seconds):
                    await self._clock.sleep(seconds)
        except PowerError as error:
            return CallFailed(error)
        return TimePassed()

    async def _spread_inrush(self, controller: str, *, on: bool) -> None:
        spacing_s = self._controllers[controller].inrush_spacing_s
        if not on or spacing_s <= 0:
            return
        now = self._clock.now()
        slot = max(now, self._next_on.get(controller, now))
        self._next_on[controller] = slot + spacing_s
        if slot > now:
            await self._clock.sleep(slot - now)

    async def _write(self, writing: Awaitable[None], board: str) -> None:
        try:
            await writing
        except (sqlite3.Error, OSError) as problem:
            # Being able to switch a board off is worth more than the record of it: a full disk must not hold power.
            _log.error("%s: the power journal cannot be written: %s", board, problem)

    def _refused(self, kind: ErrorKind, message: str, begun: float) -> PowerOutcome:
        took_ms = (self._clock.now() - begun) * 1000
        return PowerOutcome(ok=False, power=Power.UNKNOWN, error=ErrorInfo(kind=kind, message=message), took_ms=took_ms)

    # --- reading back --------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        while True:
            await self._clock.sleep(self._poll_every_s)
            idle = [board for board in self._boards.values() if not board.lock.locked()]
            before = {board.name: board.operations for board in idle}
            await self._read(idle, before)

    async def _read(self, boards: Collection[BoardEntry], before: Mapping[str, int] | None = None) -> None:
        changed = await self._readings.read_all(boards, before)
        if changed:
            await self._write(self._journal.note(changed), ", ".join(board.name for board in boards))

    # --- start and description -----------------------------------------------------------------------------------

    def _look_at(self, board: BoardEntry) -> StartFinding | None:
        power = self._readings.feed_power(board)
        error = self.problem(board.name)
        if error is not None:
            return StartFinding(FindingKind.UNREADABLE, board.name, power, error.message, error)
        states = {ref: self._readings.power.get(ref, Power.UNKNOWN) for ref in board.refs}
        if {Power.ON, Power.OFF} <= set(states.values()):
            what = ", ".join(f"{ref} is {state}" for ref, state in states.items())
            return StartFinding(FindingKind.SPLIT, board.name, power, f"{what}; switch the board on or off")
        return None

    async def _close_interrupted(self, operation: OpenOperation) -> StartFinding:
        board = self._boards.get(operation.board)
        power = Power.UNKNOWN if board is None else self._readings.feed_power(board)
        ref = OutletRef(operation.board, "") if board is None else board.refs[0]
        error = _interrupted(ref, operation.action, operation.board, power)
        await self._write(
            self._journal.end(operation.id, wall=self._clock.wall(), power=power, error=error, off_since={}),
            operation.board,
        )
        return StartFinding(
            FindingKind.INTERRUPTED,
            operation.board,
            power,
            str(error),
            error.info(),
            operation.id,
            operation.action,
        )

    async def _describe(self, name: str) -> ControllerInfo:
        settings = self._controllers[name]
        note, described = settings.description, []
        try:
            described = await self._queues[name].describe()
        except PowerError as problem:
            note = f"{note} ({problem})" if note else str(problem)
        seen = {item.outlet: item.power for item in described}
        named = self._readings.boards_of(name)
        for outlet in named:
            seen.setdefault(outlet, self._readings.power.get(OutletRef(name, outlet), Power.UNKNOWN))
        outlets = [OutletInfo(outlet=key, power=power, board=named.get(key)) for key, power in seen.items()]
        return ControllerInfo(name=name, driver=settings.driver, description=note, outlets=outlets)


def _interrupted(ref: OutletRef, action: PowerAction, board: str, power: Power) -> InterruptedOperationError:
    return InterruptedOperationError(
        f"the agent ended while {action} of {board} was under way; power is {power} now",
        controller=ref.controller,
        outlet=ref.outlet or None,
        do="give the command again if it is still wanted",
    )
