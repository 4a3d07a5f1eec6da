"""One switch operation from its first line in the journal to its last: drives the switching core with real calls."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field

from agent.power.boards import BoardEntry, LiveTimings
from agent.power.clock import Clock
from agent.power.controller_queue import ControllerQueue
from agent.power.errors import InterruptedOperationError, PowerError
from agent.power.feed import FeedKind, OutletRef
from agent.power.inrush import InrushSpacing
from agent.power.journal import Journal
from agent.power.readings import Readings
from agent.power.switch_messages import (
    CallFailed,
    CannotReadBack,
    Command,
    Event,
    Finish,
    Read,
    ReadBack,
    Set,
    SetAccepted,
    TimePassed,
    Wait,
)
from agent.power.switching import FeedSwitch, State, legs_of
from wire.phases import Power, PowerAction

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        id: names the operation in the journal.
        off_feed: the outlets that go off; the others of the feed stay on for other boards.
        least_off_s: prolongs the minimum off time of this one operation.
    """

    id: str
    action: PowerAction
    off_feed: tuple[OutletRef, ...]
    least_off_s: float | None = None


@dataclass
class Operator:
    """Carries out orders, each on one board whose lock the caller holds."""

    queues: Mapping[str, ControllerQueue]
    readings: Readings
    journal: Journal
    clock: Clock
    inrush: InrushSpacing
    closing: bool = False
    _driving: set[asyncio.Task[PowerError | None]] = field(default_factory=set)

    async def run(self, board: BoardEntry, order: Order) -> tuple[PowerError | None, Power]:
        """Carry out `order`; what went wrong, and the board's power as read back after it."""
        machine = await self._machine(board, order)
        on_refs = [leg.ref for leg in legs_of(order.action, board.refs) if leg.on]
        clock, wall = self.clock.now(), self.clock.wall()
        begin = self.journal.begin(order.id, board.name, order.action, clock=clock, wall=wall, on=on_refs)
        await self.write(begin, board.name)
        task = asyncio.create_task(self._drive(board, machine), name=f"{order.action} of {board.name}")
        self._driving.add(task)
        task.add_done_callback(self._driving.discard)
        try:
            error = await task
        except asyncio.CancelledError:
            if not (self.closing and task.cancelled()):
                raise
            # Its end is not written down: the next start finds it and says what is.
            return interrupted(board.refs[0], order.action, board.name, Power.UNKNOWN), Power.UNKNOWN
        return error, await self._conclude(board, order, machine, error)

    async def close(self) -> None:
        """End what is under way, at once."""
        self.closing = True
        for task in self._driving:
            task.cancel()
        if self._driving:
            await asyncio.wait(self._driving)

    async def write(self, writing: Awaitable[None], board: str) -> None:
        """Wait for a write of the journal; a journal that cannot be written is only logged."""
        try:
            await writing
        except (sqlite3.Error, OSError) as problem:
            # Being able to switch a board off is worth more than the record of it: a full disk must not hold power.
            _log.error("%s: the power journal cannot be written: %s", board, problem)

    async def _machine(self, board: BoardEntry, order: Order) -> FeedSwitch:
        off_feed = order.off_feed
        if board.feed.kind is FeedKind.CHAIN and order.action is not PowerAction.ON and len(off_feed) > 1:
            off_feed = await self._with_power(off_feed)
        return FeedSwitch(
            order.action,
            board.refs,
            LiveTimings(board, self.queues, order.least_off_s),
            off_since={ref: self.readings.off_since[ref] for ref in board.refs if ref in self.readings.off_since},
            settle_after_s={ref: board.feed.settle_after_s.get(str(ref), 0.0) for ref in board.refs},
            off_feed=off_feed,
        )

    async def _with_power(self, refs: tuple[OutletRef, ...]) -> tuple[OutletRef, ...]:
        """The part of a chain that still has power: what hangs behind an outlet that is off may not even answer."""
        for number, ref in enumerate(refs[:-1], start=1):
            answer = (await self.queues[ref.controller].get_many([ref.outlet])).get(ref.outlet)
            if answer is Power.OFF:
                return refs[:number]
        return refs

    async def _conclude(self, board: BoardEntry, order: Order, machine: FeedSwitch, error: PowerError | None) -> Power:
        if error is not None:
            error.board = None if board.loose else board.name
        for ref in board.refs:
            if ref in machine.touched:
                about_it = error is not None and ref == (error.controller, error.outlet) and ref not in machine.readings
                self.readings.take(ref, machine.readings.get(ref, Power.UNKNOWN), error if about_it else None)
        if len(board.refs) > len(machine.readings):
            await self.readings.read_all([board])
        power = self.readings.publish(board)
        off_since = {ref: self.readings.off_since.get(ref) for ref in board.refs}
        end = self.journal.end(order.id, wall=self.clock.wall(), power=power, error=error, off_since=off_since)
        await self.write(end, board.name)
        return power

    async def _drive(self, board: BoardEntry, machine: FeedSwitch) -> PowerError | None:
        command = machine.start(self.clock.now())
        while not isinstance(command, Finish):
            event, asked = await self._perform(command), command
            command = machine.handle(self.clock.now(), event)
            self._keep_off_since(machine)
            if isinstance(event, ReadBack) and isinstance(asked, Read) and machine.state is not State.PAUSED:
                # Also the off of a cycle that goes on at once: the board has lost its power.
                self.readings.power[asked.ref] = event.power
                self.readings.publish(board)
        return command.error

    def _keep_off_since(self, machine: FeedSwitch) -> None:
        for ref in machine.feed:
            if ref in machine.off_since:
                self.readings.off_since[ref] = machine.off_since[ref]
            else:
                self.readings.off_since.pop(ref, None)

    async def _perform(self, command: Command) -> Event:
        try:
            match command:
                case Set(ref, on):
                    wait_s = self.inrush.take(ref.controller, self.clock.now()) if on else 0.0
                    if wait_s > 0:
                        await self.clock.sleep(wait_s)
                    await self.queues[ref.controller].set(ref.outlet, on)
                    return SetAccepted()
                case Read(ref):
                    queue = self.queues[ref.controller]
                    power = await queue.get(ref.outlet) if queue.driver.reads_back else Power.UNKNOWN
                    # Asked again afterwards: a cable may show only by its silence that it has no read-back.
                    return ReadBack(power) if queue.driver.reads_back else CannotReadBack()
                case Wait(seconds):
                    await self.clock.sleep(seconds)
        except PowerError as error:
            return CallFailed(error)
        return TimePassed()


def interrupted(ref: OutletRef, action: PowerAction, board: str, power: Power) -> InterruptedOperationError:
    """The error of an operation that a stop of the agent cut short."""
    return InterruptedOperationError(
        f"the agent ended while {action} of {board} was under way; power is {power} now",
        controller=ref.controller,
        outlet=ref.outlet or None,
        do="give the command again if it is still wanted",
    )
