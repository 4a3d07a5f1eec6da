"""What was last read back of every outlet, and since when it is off."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from agent.power.boards import BoardEntry
from agent.power.clock import Clock
from agent.power.controller_queue import ControllerQueue
from agent.power.errors import PowerError
from agent.power.feed import OutletRef, feed_power
from wire.payloads import ErrorInfo
from wire.phases import Power

UNREADABLE_ROUNDS = 3
"""So many rounds in a row without an answer are told: one lost packet is no news, and a PDU that restarts is back."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears of read-backs. Called in the event loop; must neither block nor raise.

    Attributes:
        on_power: board and power, whenever what was read back changes.
        on_unreadable: board and why, after `UNREADABLE_ROUNDS` rounds without an answer; then None when it can be
            read again.
    """

    on_power: Callable[[str, Power], None]
    on_unreadable: Callable[[str, ErrorInfo | None], None] = lambda _board, _error: None


class Readings:
    """The last read-backs of all outlets that feed a board.

    Attributes:
        off_since: outlet -> when it was first read back as off, on `clock`, and not seen otherwise since.
        power: outlet -> last read-back.
    """

    def __init__(
        self,
        boards: Iterable[BoardEntry],
        queues: Mapping[str, ControllerQueue],
        clock: Clock,
        listeners: Listeners,
    ) -> None:
        self._boards_of: dict[OutletRef, list[BoardEntry]] = {}
        self._queues = queues
        self._clock = clock
        self._listeners = listeners
        self._problems: dict[OutletRef, PowerError] = {}
        self.off_since: dict[OutletRef, float] = {}
        self.power: dict[OutletRef, Power] = {}
        for board in boards:
            self.add(board)

    def add(self, board: BoardEntry) -> None:
        """Keep readings of one more feed."""
        for ref in board.refs:
            self._boards_of.setdefault(ref, []).append(board)

    def forget(self, board: BoardEntry | None) -> None:
        """Keep no readings of a feed any more."""
        for ref in () if board is None else board.refs:
            self._boards_of.pop(ref, None)
            self._problems.pop(ref, None)
            self.power.pop(ref, None)
            self.off_since.pop(ref, None)

    def follow(self, boards: Iterable[BoardEntry]) -> None:
        """Keep readings of these feeds, and of no others."""
        self._boards_of = {}
        for board in boards:
            self.add(board)
        for ref in {*self.power, *self.off_since, *self._problems} - self._boards_of.keys():
            self._problems.pop(ref, None)
            self.power.pop(ref, None)
            self.off_since.pop(ref, None)

    def __contains__(self, ref: OutletRef) -> bool:
        return ref in self._boards_of

    def boards_of(self, controller: str) -> dict[str, str]:
        """Outlet -> its board (the first, where several share it), for the outlets of one controller that feed any."""
        return {
            ref.outlet: boards[0].name
            for ref, boards in self._boards_of.items()
            if ref.controller == controller and not any(board.loose for board in boards)
        }

    def feed_power(self, board: BoardEntry) -> Power:
        """The board's power by the last read-backs."""
        return feed_power((self.power.get(ref, Power.UNKNOWN) for ref in board.refs), board.feed.kind)

    def problem(self, board: BoardEntry) -> ErrorInfo | None:
        """Why an outlet of the board could not be read, if its power is unknown for that."""
        problems = [self._problems[ref] for ref in board.refs if ref in self._problems]
        if not problems or self.feed_power(board) is not Power.UNKNOWN:
            return None
        error = problems[0].info()
        return error.model_copy(update={"message": f"{board.name}: {error.message}"[:4096]})

    def publish(self, board: BoardEntry) -> Power:
        """The board's power; told when it changed, to those too that share an outlet with it."""
        touched = {id(other): other for ref in board.refs for other in self._boards_of.get(ref, [])}
        for other in touched.values():
            power = self.feed_power(other)
            if power is not other.last:
                other.last = power
                if not other.loose:
                    self._listeners.on_power(other.name, power)
        return self.feed_power(board)

    def take(self, ref: OutletRef, power: Power, problem: PowerError | None = None) -> bool:
        """Keep what was read; returns whether the outlet's off time changed."""
        before = self.off_since.get(ref)
        self.power[ref] = power
        if problem is None:
            self._problems.pop(ref, None)
        else:
            self._problems[ref] = problem
        if power is Power.OFF:
            self.off_since.setdefault(ref, self._clock.now())
        elif power is Power.ON:
            self.off_since.pop(ref, None)
        return self.off_since.get(ref) != before

    async def read_all(
        self, boards: Collection[BoardEntry], before: Mapping[str, int] | None = None
    ) -> dict[OutletRef, float | None]:
        """Read these boards' outlets, all controllers at once; returns the off times that changed.

        `before` holds how many operations each board had begun; what is read of a board that has begun another one
        since is old news and dropped.
        """

        def still(board: BoardEntry) -> bool:
            return before is None or before.get(board.name) == board.operations

        by_controller: dict[str, dict[OutletRef, None]] = {}
        for ref in (ref for board in boards for ref in board.refs):
            by_controller.setdefault(ref.controller, {})[ref] = None
        changed: dict[OutletRef, float | None] = {}
        readings = (self._read_controller(name, list(refs), still) for name, refs in by_controller.items())
        for part in await asyncio.gather(*readings):
            changed.update(part)
        for board in boards:
            if still(board):
                self.publish(board)
        return changed

    def count_unreadable(self, boards: Iterable[BoardEntry]) -> None:
        """A round of read-backs has ended: tell of boards that could not be read for too long, or can be again."""
        for board in boards:
            problem = self.problem(board)
            if problem is None:
                if board.unreadable >= UNREADABLE_ROUNDS:
                    self._listeners.on_unreadable(board.name, None)
                board.unreadable = 0
                continue
            board.unreadable += 1
            if board.unreadable == UNREADABLE_ROUNDS:
                self._listeners.on_unreadable(board.name, problem)

    async def _read_controller(
        self, name: str, refs: list[OutletRef], still: Callable[[BoardEntry], bool]
    ) -> dict[OutletRef, float | None]:
        changed: dict[OutletRef, float | None] = {}
        queue = self._queues.get(name)
        if queue is None:
            return changed  # its controller was taken out of the settings just now
        found = await queue.get_many([ref.outlet for ref in refs])
        for ref in refs:
            answer = found.get(ref.outlet, Power.UNKNOWN)
            problem = answer if isinstance(answer, PowerError) else None
            power = Power.UNKNOWN if isinstance(answer, PowerError) else answer
            if all(map(still, self._boards_of.get(ref, []))) and self.take(ref, power, problem):
                changed[ref] = self.off_since.get(ref)
        return changed
