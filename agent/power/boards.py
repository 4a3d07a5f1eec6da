"""Boards as the power service keeps them: feed, lock, and the timing of the outlets."""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from agent.power.controller_queue import ControllerQueue
from agent.power.driver import Timing
from agent.power.errors import ConfigurationError
from agent.power.feed import OutletRef
from agent.power.settings import BoardFeed
from wire.phases import Power


@dataclass
class BoardEntry:
    """One board with a feed.

    Attributes:
        lock: held by the operation under way.
        waiting: operations that wait for the lock.
        operations: counts begun operations, so that a read-back from before one is not taken for news.
        last: the power last told; None before the first read-back.
    """

    name: str
    feed: BoardFeed
    refs: tuple[OutletRef, ...]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    operations: int = 0
    last: Power | None = None


class LiveTimings(Mapping[OutletRef, Timing]):
    """The timing of a board's outlets, asked of the drivers each time: a PDU's family may be known only later."""

    def __init__(self, board: BoardEntry, queues: Mapping[str, ControllerQueue]) -> None:
        self._board, self._queues = board, queues

    def __getitem__(self, ref: OutletRef) -> Timing:
        timing, feed = self._queues[ref.controller].driver.timing, self._board.feed
        return replace(
            timing,
            min_off_s=timing.min_off_s if feed.min_off_s is None else feed.min_off_s,
            verify_deadline_s=timing.verify_deadline_s if feed.verify_deadline_s is None else feed.verify_deadline_s,
            attempts=timing.attempts if feed.attempts is None else feed.attempts,
        )

    def __iter__(self) -> Iterator[OutletRef]:
        return iter(self._board.refs)

    def __len__(self) -> int:
        return len(self._board.refs)


def check_feeds(controllers: Collection[str], feeds: Mapping[str, BoardFeed]) -> None:
    """Check feeds against each other and against the controllers.

    Raises:
        ConfigurationError: names the board and the outlet at fault.
    """
    taken: dict[OutletRef, str] = {}
    for board, feed in feeds.items():
        for ref in feed.refs:
            if ref.controller not in controllers:
                raise ConfigurationError(
                    f"the feed of board {board} names a controller that is not in the settings",
                    controller=ref.controller,
                    outlet=ref.outlet,
                    do=f"add [controllers.{ref.controller}] or mend the feed",
                )
            if ref in taken:
                raise ConfigurationError(
                    f"feeds both {taken[ref]} and {board}",
                    controller=ref.controller,
                    outlet=ref.outlet,
                    do="give each board its own outlet: switching one would switch the other",
                )
            taken[ref] = board
