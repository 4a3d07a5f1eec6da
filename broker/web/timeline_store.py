"""Events of boards as they were told, kept for timelines: bounded, and written in batches."""

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Self

from daemon.store import Store
from wire.payloads import Event, decode, encode

log = logging.getLogger(__name__)

MIGRATIONS = (
    """
CREATE TABLE timeline (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    board TEXT NOT NULL,
    seq INTEGER NOT NULL,
    event BLOB NOT NULL,
    UNIQUE (board, seq)
);
""",
)
WRITE_EVERY_S = 0.5
MOST_UNWRITTEN = 20_000
"""A disk that stalls for long must not fill the memory; what is dropped is said."""


class TimelineStore:
    """What happened to each board, newest last."""

    def __init__(self, store: Store, kept: int) -> None:
        self._store = store
        self._kept = kept
        self._unwritten: list[Event] = []
        self._some = asyncio.Event()
        self._dropped = 0

    @classmethod
    async def open(cls, folder: Path, kept: int) -> Self:
        """Open the store in `folder`; `kept` events stay, of all boards together.

        Raises:
            daemon.store.StoreError: the file cannot be used.
        """
        return cls(await Store.open(folder / "timeline.db", MIGRATIONS), kept)

    def add(self, event: Event) -> None:
        """Keep an event; one that is known by board and number is kept once."""
        if len(self._unwritten) >= MOST_UNWRITTEN:
            self._dropped += 1
            return
        self._unwritten.append(event)
        self._some.set()

    async def run(self) -> None:
        """Write what comes, for ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            await self.flush()
            await asyncio.sleep(WRITE_EVERY_S)

    async def flush(self) -> None:
        """Write what is not written. A full disk costs timelines, not the farm."""
        batch, self._unwritten = self._unwritten, []
        if not batch:
            return
        rows = [(event.board, event.seq, encode(event)) for event in batch]

        def work(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR IGNORE INTO timeline (board, seq, event) VALUES (?, ?, ?)", rows)
            db.execute("DELETE FROM timeline WHERE id <= (SELECT max(id) FROM timeline) - ?", (self._kept,))

        try:
            await self._store.run(work)
        except sqlite3.Error as error:
            log.error("%s: %d events are missing in timelines: %s", self._store.path, len(batch), error)  # noqa: TRY400
        if self._dropped:
            log.error("%d events are missing in timelines: the disk was too slow", self._dropped)
            self._dropped = 0

    async def events(self, board: str, limit: int, before: int | None = None) -> list[Event]:
        """The newest `limit` events of a board, or those before the one with the number `before`; newest first."""
        await self.flush()

        def work(db: sqlite3.Connection) -> list[bytes]:
            query = "SELECT event FROM timeline WHERE board = ? AND seq < ? ORDER BY seq DESC LIMIT ?"
            return [row["event"] for row in db.execute(query, (board, before or 2**53, limit))]

        return [decode(Event, found) for found in await self._store.run(work)]

    async def close(self) -> None:
        """Write the rest and let go of the file."""
        await self.flush()
        await self._store.close()
