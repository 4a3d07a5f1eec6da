"""Other settings for a power service that runs: what is to be made anew, and who must not be switching meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent.power.boards import BoardEntry
from agent.power.controller_queue import ControllerQueue
from agent.power.feed import OutletRef
from agent.power.settings import BoardFeed, ControllerBase


@dataclass(frozen=True, slots=True)
class PowerSettings:
    """What a power service goes by; see `PowerService`."""

    controllers: Mapping[str, ControllerBase]
    feeds: Mapping[str, BoardFeed]
    circuits: Mapping[str, float]
    poll_every_s: float


@dataclass(frozen=True, slots=True)
class PreparedPower:
    """Settings that are about to be taken up.

    Attributes:
        wanted: the settings.
        fresh: the queues of controllers that are new or different; those of different ones are held.
        gone: the controllers that are to be closed for good.
    """

    wanted: PowerSettings
    fresh: Mapping[str, ControllerQueue]
    gone: Collection[str]

    async def abandon(self) -> None:
        """They are not taken up after all."""
        await asyncio.gather(*(queue.close() for queue in self.fresh.values()))

    def turns(self, entry: BoardEntry) -> bool:
        """Whether a feed, or a controller of it, is another now."""
        if not entry.loose and self.wanted.feeds.get(entry.name) != entry.feed:
            return True
        return any(ref.controller in self.fresh or ref.controller in self.gone for ref in entry.refs)

    def refs_of(self, boards: Mapping[str, BoardEntry]) -> dict[str, tuple[OutletRef, ...]]:
        """By board, the outlets that it has, or will have: who shares one is held for the change."""
        found = {name: entry.refs for name, entry in boards.items()}
        for name, feed in self.wanted.feeds.items():
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *feed.refs)))
        return found


@asynccontextmanager
async def all_held(entries: Collection[BoardEntry], within_s: float) -> AsyncIterator[None]:
    """Nobody switches any of these meanwhile.

    Raises:
        TimeoutError: somebody did not end in `within_s`; nothing is held then.
    """
    held: list[asyncio.Lock] = []
    try:
        async with asyncio.timeout(within_s):
            # Locks that several share are taken once; an operation holds no more than one, so nobody waits in a ring.
            for lock in {id(entry.lock): entry.lock for entry in entries}.values():
                await lock.acquire()
                held.append(lock)
        yield
    finally:
        for lock in held:
            lock.release()
