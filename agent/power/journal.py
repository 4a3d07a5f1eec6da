"""The journal of power: which operations are under way, and since when an outlet is off.

Readings of the clock are kept with the kernel's boot id: after a reboot of the host they mean nothing. Such an off
time is dropped, and the outlet counts as off from the first read-back of the new agent. That is the safe side: it
costs the minimum off time once, and never switches a board on too early.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from agent.power.errors import PowerError
from agent.power.feed import OutletRef
from wire.phases import Power, PowerAction

T = TypeVar("T")

JOURNAL_SCHEMA = """
CREATE TABLE power_operation (
    id TEXT PRIMARY KEY,
    board TEXT NOT NULL,
    action TEXT NOT NULL,
    begun_wall REAL NOT NULL,      -- seconds since the epoch, for people
    begun_clock REAL NOT NULL,     -- CLOCK_BOOTTIME, seconds; compares within one kernel_boot
    kernel_boot TEXT NOT NULL,
    ended_wall REAL,               -- NULL: under way
    power TEXT,
    error_kind TEXT,
    error_message TEXT
) STRICT;
CREATE INDEX power_operation_under_way ON power_operation (begun_wall) WHERE ended_wall IS NULL;
CREATE TABLE power_off_since (
    controller TEXT NOT NULL,
    outlet TEXT NOT NULL,
    clock REAL NOT NULL,
    kernel_boot TEXT NOT NULL,
    PRIMARY KEY (controller, outlet)
) STRICT, WITHOUT ROWID;
"""

KEPT_OPERATIONS = 2000
"""Ended operations kept for people; older ones are dropped, so a small flash does not fill up."""


class Store(Protocol):
    """Where the journal lives: `daemon.store.Store`."""

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction on the store's own thread."""


class MemoryStore:
    """A store without a file, for tests and for tools that switch once and exit."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._connection.executescript(JOURNAL_SCHEMA)
        self._lock = asyncio.Lock()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._lock:
            with self._connection:
                return work(self._connection)

    async def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True)
class OpenOperation:
    """An operation that was begun and never ended."""

    id: str
    board: str
    action: PowerAction
    begun_wall: float


@dataclass(frozen=True, slots=True)
class Journal:
    """All that is written down about power. Every method is one durable transaction."""

    store: Store
    kernel_boot: str

    async def begin(
        self, operation_id: str, board: str, action: PowerAction, *, clock: float, wall: float, on: Iterable[OutletRef]
    ) -> None:
        """Write down that an operation begins, before anything is sent. `on` are the outlets it will switch on: their
        off times end here, so that a crash in between cannot leave an old one standing."""
        gone = [tuple(ref) for ref in on]

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT OR REPLACE INTO power_operation (id, board, action, begun_wall, begun_clock, kernel_boot)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (operation_id, board, str(action), wall, clock, self.kernel_boot),
            )
            db.executemany("DELETE FROM power_off_since WHERE controller = ? AND outlet = ?", gone)

        await self.store.run(work)

    async def end(
        self,
        operation_id: str,
        *,
        wall: float,
        power: Power,
        error: PowerError | None,
        off_since: Mapping[OutletRef, float | None],
    ) -> None:
        """Write down how it ended, with the off times of its outlets (None: not off, or not known)."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE power_operation SET ended_wall = ?, power = ?, error_kind = ?, error_message = ? WHERE id = ?",
                (
                    wall,
                    str(power),
                    None if error is None else str(error.kind),
                    None if error is None else str(error),
                    operation_id,
                ),
            )
            db.execute(
                "DELETE FROM power_operation WHERE ended_wall IS NOT NULL AND ended_wall < (SELECT ended_wall FROM"
                " power_operation WHERE ended_wall IS NOT NULL ORDER BY ended_wall DESC LIMIT 1 OFFSET ?)",
                (KEPT_OPERATIONS,),
            )
            self._write_off_since(db, off_since)

        await self.store.run(work)

    async def note(self, off_since: Mapping[OutletRef, float | None]) -> None:
        """Write down off times that were learnt outside an operation's end."""
        await self.store.run(lambda db: self._write_off_since(db, off_since))

    def _write_off_since(self, db: sqlite3.Connection, off_since: Mapping[OutletRef, float | None]) -> None:
        for ref, since in off_since.items():
            if since is None:
                db.execute("DELETE FROM power_off_since WHERE controller = ? AND outlet = ?", tuple(ref))
            else:
                db.execute(
                    "INSERT OR REPLACE INTO power_off_since (controller, outlet, clock, kernel_boot)"
                    " VALUES (?, ?, ?, ?)",
                    (*ref, since, self.kernel_boot),
                )

    async def under_way(self) -> list[OpenOperation]:
        """Operations that were begun and not ended, oldest first."""

        def work(db: sqlite3.Connection) -> list[OpenOperation]:
            rows = db.execute(
                "SELECT id, board, action, begun_wall FROM power_operation WHERE ended_wall IS NULL ORDER BY begun_wall"
            )
            return [OpenOperation(key, board, PowerAction(action), begun) for key, board, action, begun in rows]

        return await self.store.run(work)

    async def off_since(self) -> dict[OutletRef, float]:
        """The off times that mean something in this boot of the kernel; the others are dropped."""

        def work(db: sqlite3.Connection) -> dict[OutletRef, float]:
            db.execute("DELETE FROM power_off_since WHERE kernel_boot <> ?", (self.kernel_boot,))
            rows = db.execute("SELECT controller, outlet, clock FROM power_off_since")
            return {OutletRef(controller, outlet): clock for controller, outlet, clock in rows}

        return await self.store.run(work)
