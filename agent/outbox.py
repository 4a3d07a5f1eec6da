"""Events wait here until the MQTT server has them: a bounded queue on disk with a gap-free number per board.

Number and event are stored in one transaction, so a kill -9 leaves both or neither. A row goes only after the server's
acknowledgement; a reader that drops numbers it has seen gets every event once. When the bound is reached the oldest
events go, and an `outbox-overflow` event that says how many takes the place of the gap.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon.store import Store
from wire.payloads import Event, encode
from wire.phases import EventType

OUTBOX_SCHEMA = """
CREATE TABLE outbox_seq (board TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    board TEXT NOT NULL,
    seq INTEGER NOT NULL,
    payload BLOB NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that has no number yet."""

    board: str
    type: EventType
    details: dict[str, object]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stored event; `id` orders all boards' events as they happened."""

    id: int
    board: str
    payload: bytes


class Outbox:
    """The events of one agent."""

    def __init__(self, store: Store, *, agent: str, session: int, max_events: int) -> None:
        self._store = store
        self._agent = agent
        self._session = session
        self._max_events = max_events

    async def sequence_numbers(self) -> dict[str, int]:
        """The last number given, per board."""

        def read(db: sqlite3.Connection) -> dict[str, int]:
            return dict(db.execute("SELECT board, seq FROM outbox_seq").fetchall())

        return await self._store.run(read)

    async def append(
        self, events: Sequence[NewEvent], at: datetime, also: Callable[[sqlite3.Connection], None] | None = None
    ) -> list[Event]:
        """Number and store `events`, and do `also` in the same transaction; they are safe when this returns."""

        def write(db: sqlite3.Connection) -> list[Event]:
            if also is not None:
                also(db)
            made = [self._insert(db, event, at) for event in events]
            made += self._make_room(db, at)
            return made

        return await self._store.run(write)

    def _insert(self, db: sqlite3.Connection, new: NewEvent, at: datetime) -> Event:
        row = db.execute(
            "INSERT INTO outbox_seq VALUES (?, 1) ON CONFLICT (board) DO UPDATE SET seq = seq + 1 RETURNING seq",
            (new.board,),
        ).fetchone()
        # Through JSON, so that what is stored is what can be sent.
        details = json.loads(json.dumps(new.details, default=str))
        event = Event(
            type=new.type, at=at, board=new.board, agent=self._agent, session=self._session, seq=row[0], details=details
        )
        db.execute(
            "INSERT INTO outbox_event (board, seq, payload) VALUES (?, ?, ?)", (new.board, row[0], encode(event))
        )
        return event

    def _make_room(self, db: sqlite3.Connection, at: datetime) -> list[Event]:
        (count,) = db.execute("SELECT count(*) FROM outbox_event").fetchone()
        excess = count - self._max_events
        if excess <= 0:
            return []
        # A tenth at a time: the overflow events must not push out the next one each.
        excess += self._max_events // 10
        dropped: dict[str, int] = {}
        oldest = db.execute("SELECT id, board, payload FROM outbox_event ORDER BY id LIMIT ?", (excess,)).fetchall()
        for row in oldest:
            # An overflow event that is dropped itself hands its count on.
            old = json.loads(row["payload"])
            told = old["details"].get("dropped", 0) if old["type"] == EventType.OUTBOX_OVERFLOW else 0
            dropped[row["board"]] = dropped.get(row["board"], 0) + 1 + told
        db.execute("DELETE FROM outbox_event WHERE id <= ?", (oldest[-1]["id"],))
        return [
            self._insert(db, NewEvent(board, EventType.OUTBOX_OVERFLOW, {"dropped": count}), at)
            for board, count in sorted(dropped.items())
        ]

    async def waiting(self, limit: int) -> list[Waiting]:
        """The oldest `limit` events, in order."""

        def read(db: sqlite3.Connection) -> list[Waiting]:
            rows = db.execute("SELECT id, board, payload FROM outbox_event ORDER BY id LIMIT ?", (limit,))
            return [Waiting(row["id"], row["board"], row["payload"]) for row in rows]

        return await self._store.run(read)

    async def sent(self, up_to_id: int) -> None:
        """Forget the events up to `up_to_id`: the server acknowledged them."""

        def delete(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM outbox_event WHERE id <= ?", (up_to_id,))

        await self._store.run(delete)
