"""What waits to be taken in: word from the farm before requests of people, so that no bomb of jobs delays an offer."""

import asyncio
from collections import deque

from broker.happenings import Happening
from daemon.mqtt_link import Message

# Reading a job costs about a millisecond; more of them in one go would hold up a board that is ready.
ASKED_AT_ONCE = 16
# So that a farm that never falls silent does not keep people waiting for ever.
FARM_BEFORE_ASKED = 16

Item = Message | Happening


class Intake(asyncio.Queue[Item]):
    """A queue in two: requests stand in their own order, and so does everything else."""

    def _init(self, maxsize: int) -> None:  # noqa: ARG002  # asyncio.Queue's own hook
        self._farm: deque[Item] = deque()
        self._asked: deque[Item] = deque()
        self._in_a_row = 0

    def _put(self, item: Item) -> None:
        (self._asked if _is_asked(item) else self._farm).append(item)

    def _get(self) -> Item:
        if self._farm and (not self._asked or self._in_a_row < FARM_BEFORE_ASKED):
            self._in_a_row += 1
            return self._farm.popleft()
        self._in_a_row = 0
        return self._asked.popleft()

    def qsize(self) -> int:
        return len(self._farm) + len(self._asked)

    def empty(self) -> bool:
        return not self._farm and not self._asked

    def more(self, most: int) -> list[Item]:
        """What came besides, without waiting: `most` items at most, of them `ASKED_AT_ONCE` requests."""
        taken: list[Item] = []
        asked = 0
        while len(taken) < most and not self.empty() and asked < ASKED_AT_ONCE:
            item = self.get_nowait()
            asked += _is_asked(item)
            taken.append(item)
        return taken


def _is_asked(item: Item) -> bool:
    return isinstance(item, Message) and "/broker/request/" in item.topic
