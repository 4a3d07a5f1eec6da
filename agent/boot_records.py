"""The boots of this agent's boards: heard, kept over restarts, and explained to whoever asks.

What is heard is written to disk every few seconds, not at once: a kill -9 costs the last seconds of a boot's story and
nothing else.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Self

from pydantic import TypeAdapter, ValidationError

from daemon.store import Store
from netboot.boot_diagnosis import diagnose
from netboot.boot_history import BOOTS_KEPT, BootHistory
from netboot.boot_record import Boot
from netboot.events import NetbootEvent
from wire.phases import Power

log = logging.getLogger(__name__)

BOOTS_SCHEMA = """
CREATE TABLE agent_boot (
    board TEXT NOT NULL,
    number INTEGER NOT NULL,
    boot BLOB NOT NULL,
    PRIMARY KEY (board, number)
) WITHOUT ROWID;
"""
"""`boot` is the whole boot as JSON: it is read and written only as a whole."""

WRITE_EVERY_S = 5.0
BOOTS_PER_WRITE = 50
"""So that turning them into JSON stalls the event loop for some milliseconds at most."""
PLACED_CHARACTERS = 300

_boot = TypeAdapter(Boot)


class BootStore:
    """Reads and writes of the table above."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def boots(self) -> list[Boot]:
        """All that are kept; one that cannot be read is left out, and said in the log."""

        def work(db: sqlite3.Connection) -> list[Boot]:
            found = []
            for row in db.execute("SELECT * FROM agent_boot ORDER BY board, number"):
                try:
                    found.append(_boot.validate_json(row["boot"]))
                except ValidationError as error:
                    log.warning("boot %d of board %s cannot be read: %s", row["number"], row["board"], error)
            return found

        return await self._store.run(work)

    async def write(self, boots: Iterable[Boot]) -> None:
        """Store `boots` as they are now, and forget those that are too old.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        rows = [(boot.board, boot.number, _boot.dump_json(boot)) for boot in boots]

        def work(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO agent_boot VALUES (?, ?, ?)", rows)
            db.executemany(
                "DELETE FROM agent_boot WHERE board = ? AND number <= ?",
                [(board, number - BOOTS_KEPT) for board, number, _ in rows],
            )

        await self._store.run(work)


class BootRecorder:
    """The history with its clock and its store. Its methods but `opened`, `run` and `close` return at once."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = BootStore(store)
        self._clock = clock
        self._something = asyncio.Event()
        self.history = BootHistory()

    @classmethod
    async def opened(cls, store: Store, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Self:
        """A recorder that knows what is stored.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        recorder = cls(store, clock=clock)
        recorder.history = BootHistory(await recorder._store.boots())
        return recorder

    def power(self, board: str, power: Power) -> None:
        """The board's power was read back. Unknown says nothing of its boot."""
        if power is not Power.UNKNOWN:
            self.history.power(board, on=power is Power.ON, at=self._clock())
            self._something.set()

    def cycled(self, board: str, since: datetime) -> None:
        """The board's power was cycled, by a command that began at `since`."""
        self.history.cycled(board, since=since, at=self._clock())
        self._something.set()

    def event(self, event: NetbootEvent) -> None:
        """Netboot has something to tell."""
        self.history.event(event, self._clock())
        self._something.set()

    def registered(self, board: str, boot_id: str) -> None:
        """The board has proved this boot."""
        self.history.registered(board, boot_id, self._clock())
        self._something.set()

    def placed(self, board: str) -> str | None:
        """Where the board's boot is stuck, as one clause; None where nothing is known of it."""
        boot = self.history.current(board)
        if boot is None:
            return None
        now = self._clock()
        what = diagnose(boot, now, strangers=self.history.strangers()).what
        return what if len(what) <= PLACED_CHARACTERS else what[: PLACED_CHARACTERS - 1] + "…"

    async def run(self) -> None:
        """Write what changes, for ever."""
        while True:
            await self._something.wait()
            self._something.clear()
            await self._write()
            await asyncio.sleep(WRITE_EVERY_S)

    async def close(self) -> None:
        """Write what is not written."""
        await self._write()

    async def _write(self) -> None:
        while boots := self.history.take_changed(BOOTS_PER_WRITE):
            try:
                await self._store.write(boots)
            except sqlite3.Error:
                # A full disk: the boots are told from memory as long as we run, and are tried again with the next.
                log.exception("the last boots of %s cannot be stored", ", ".join(sorted({b.board for b in boots})))
                self.history.give_back(boots)
                return
