"""Changes of the farm to everybody who looks, as server-sent events (HTML standard, section 9.2).

Each reader has a bounded queue. One who is too slow is told to read everything anew: nobody is shown an old picture as
if it were the present one, and nobody's memory grows.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.web.farm_mirror import Change

MOST_WAITING = 2000
"""Changes for one reader; a farm of 2,000 boards says each of them once at a reconnect."""
MOST_READERS = 500
HEARTBEAT_S = 15.0
"""Proxies close a connection that says nothing for a minute."""


class TooManyReadersError(Exception):
    """More readers than one process should serve."""


class Live:
    """Hands changes to readers."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Queue[Change | None]] = set()

    @property
    def readers(self) -> int:
        return len(self._readers)

    def tell(self, change: Change) -> None:
        """Tell every reader; never blocks."""
        for queue in self._readers:
            if queue.qsize() >= MOST_WAITING:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)
            queue.put_nowait(change)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[asyncio.Queue[Change | None]]:
        """A reader's queue; None in it stands for changes that were dropped.

        Raises:
            TooManyReadersError: there are `MOST_READERS` already.
        """
        if len(self._readers) >= MOST_READERS:
            raise TooManyReadersError(f"{MOST_READERS} readers are connected: close a page, or try later")
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._readers.add(queue)
        try:
            yield queue
        finally:
            self._readers.discard(queue)


def event_text(name: str, document: object, event_id: str | None = None) -> bytes:
    """One event as it goes over the wire."""
    head = f"event: {name}\n" + (f"id: {event_id}\n" if event_id is not None else "")
    return f"{head}data: {json.dumps(document, separators=(',', ':'))}\n\n".encode()


async def stream(queue: asyncio.Queue[Change | None], *, closing: asyncio.Event) -> AsyncIterator[bytes]:
    """The changes of `queue` as they come, with a comment as heartbeat, until `closing` is set."""
    yield event_text("reload", {"why": "begin"})
    ends = asyncio.create_task(closing.wait(), name="live-closing")
    coming = asyncio.create_task(queue.get(), name="live-next")
    try:
        while not closing.is_set():
            await asyncio.wait({coming, ends}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                yield b": still here\n\n"
                continue
            change = coming.result()
            coming = asyncio.create_task(queue.get(), name="live-next")
            if change is None:
                yield event_text("reload", {"why": "you were too slow"})
            else:
                yield event_text(change.kind, change.document)
    finally:
        ends.cancel()
        coming.cancel()
        await asyncio.gather(ends, coming, return_exceptions=True)
