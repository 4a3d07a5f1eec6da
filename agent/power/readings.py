"""What was last read back of every outlet, and since when it is off."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping

from agent.power.boards import BoardEntry
from agent.power.clock import Clock
from agent.power.controller_queue import ControllerQueue
from agent.power.errors import PowerError
from agent.power.feed import OutletRef, feed_power
from wire.payloads import ErrorInfo
from wire.phases import Power


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
        on_power: Callable[[str, Power], None],
    ) -> None:
        self._board_of = {ref: board for board in boards for ref in board.refs}
        self._queues = queues
        self._clock = clock
        self._on_power = on_power
        self._problems: dict[OutletRef, PowerError] = {}
        self.off_since: dict[OutletRef, float] = {}
        self.power: dict[OutletRef, Power] = {}

    def board_of(self, ref: OutletRef) -> BoardEntry | None:
        """The board that an outlet feeds."""
        return self._board_of.get(ref)

    def boards_of(self, controller: str) -> dict[str, str]:
        """Outlet -> board, for the outlets of one controller that feed one."""
        return {ref.outlet: board.name for ref, board in self._board_of.items() if ref.controller == controller}

    def feed_power(self, board: BoardEntry) -> Power:
        """The board's power by the last read-backs."""
        return feed_power(self.power.get(ref, Power.UNKNOWN) for ref in board.refs)

    def problem(self, board: BoardEntry) -> ErrorInfo | None:
        """Why an outlet of the board could not be read, if so."""
        problems = [self._problems[ref] for ref in board.refs if ref in self._problems]
        return problems[0].info() if problems else None

    def publish(self, board: BoardEntry) -> Power:
        """The board's power; told to `on_power` when it changed."""
        power = self.feed_power(board)
        if power is not board.last:
            board.last = power
            self._on_power(board.name, power)
        return power

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
            return before is None or before[board.name] == board.operations

        by_controller: dict[str, list[OutletRef]] = {}
        for ref in (ref for board in boards for ref in board.refs):
            by_controller.setdefault(ref.controller, []).append(ref)
        changed: dict[OutletRef, float | None] = {}
        for part in await asyncio.gather(*(self._read_controller(*item, still) for item in by_controller.items())):
            changed.update(part)
        for board in boards:
            if still(board):
                self.publish(board)
        return changed

    async def _read_controller(
        self, name: str, refs: list[OutletRef], still: Callable[[BoardEntry], bool]
    ) -> dict[OutletRef, float | None]:
        changed: dict[OutletRef, float | None] = {}
        found = await self._queues[name].get_many([ref.outlet for ref in refs])
        for ref in refs:
            answer = found.get(ref.outlet, Power.UNKNOWN)
            problem = answer if isinstance(answer, PowerError) else None
            power = Power.UNKNOWN if isinstance(answer, PowerError) else answer
            if still(self._board_of[ref]) and self.take(ref, power, problem):
                changed[ref] = self.off_since.get(ref)
        return changed
