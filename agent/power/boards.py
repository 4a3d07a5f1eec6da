"""Boards as the power service keeps them: feed, lock, and the timing of the outlets."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from agent.power.controller_queue import ControllerQueue
from agent.power.driver import Timing
from agent.power.errors import ConfigurationError
from agent.power.feed import OutletRef
from agent.power.settings import BoardFeed, ControllerBase
from wire.phases import Power


@dataclass
class BoardEntry:
    """One board with a feed.

    Attributes:
        lock: held by the operation under way.
        waiting: operations that wait for the lock.
        operations: counts begun operations, so that a read-back from before one is not taken for news.
        last: the power last told; None before the first read-back.
        loose: stands for one outlet that feeds no board.
        unreadable: rounds of read-backs in a row that an outlet of the feed did not answer.
    """

    name: str
    feed: BoardFeed
    refs: tuple[OutletRef, ...]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    operations: int = 0
    last: Power | None = None
    loose: bool = False
    unreadable: int = 0


class LiveTimings(Mapping[OutletRef, Timing]):
    """The timing of a board's outlets, asked of the drivers each time: a PDU's family may be known only later."""

    def __init__(
        self, board: BoardEntry, queues: Mapping[str, ControllerQueue], least_off_s: float | None = None
    ) -> None:
        """`least_off_s` prolongs the minimum off time of this one operation; it never shortens it."""
        self._board, self._queues, self._least_off_s = board, queues, least_off_s or 0.0

    def __getitem__(self, ref: OutletRef) -> Timing:
        timing, feed = self._queues[ref.controller].driver.timing, self._board.feed
        return replace(
            timing,
            min_off_s=max(timing.min_off_s if feed.min_off_s is None else feed.min_off_s, self._least_off_s),
            verify_deadline_s=timing.verify_deadline_s if feed.verify_deadline_s is None else feed.verify_deadline_s,
            attempts=timing.attempts if feed.attempts is None else feed.attempts,
        )

    def __iter__(self) -> Iterator[OutletRef]:
        return iter(self._board.refs)

    def __len__(self) -> int:
        return len(self._board.refs)


def check_feeds(controllers: Mapping[str, ControllerBase], feeds: Mapping[str, BoardFeed]) -> None:
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
            if ref in taken and ref.outlet not in controllers[ref.controller].shared_outlets:
                raise ConfigurationError(
                    f"feeds both {taken[ref]} and {board}",
                    controller=ref.controller,
                    outlet=ref.outlet,
                    do="give each board its own outlet: switching one would switch the other; or declare it in "
                    "shared_outlets",
                )
            taken[ref] = board
