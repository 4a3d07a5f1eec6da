"""Which actions were begun and how they ended, so that a repeated request is done once, over a kill -9 too."""

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from daemon.store import Store

ACTIONS_SCHEMA = """
CREATE TABLE agent_action (
    id TEXT PRIMARY KEY,
    board TEXT NOT NULL,
    verb TEXT NOT NULL,
    at TEXT NOT NULL,
    response BLOB
) WITHOUT ROWID;
CREATE INDEX agent_action_at ON agent_action (at);
"""

ACTIONS_KEPT = 1000
"""Transactions that are remembered as done. Whoever repeats a request does so within minutes."""


@dataclass(frozen=True, slots=True)
class StoredAction:
    """An action without an end: the agent was stopped in between."""

    transaction: str
    board: str
    verb: str


class ActionStore:
    """Reads and writes of the table above. Every method raises `sqlite3.Error` when the file cannot be used."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def file(self) -> Store:
        """The file in which the table is."""
        return self._store

    async def begin(self, transaction: str, board: str, verb: str) -> tuple[bool, bytes | None]:
        """Note that an action is about to be done: `(is it new, its response if it has ended)`."""

        def work(db: sqlite3.Connection) -> tuple[bool, bytes | None]:
            row = db.execute("SELECT response FROM agent_action WHERE id = ?", (transaction,)).fetchone()
            if row is not None:
                return False, row[0]
            now = datetime.now(UTC).isoformat()
            db.execute("INSERT INTO agent_action VALUES (?, ?, ?, ?, NULL)", (transaction, board, verb, now))
            db.execute(
                "DELETE FROM agent_action WHERE response IS NOT NULL AND at < "
                "(SELECT at FROM agent_action ORDER BY at DESC LIMIT 1 OFFSET ?)",
                (ACTIONS_KEPT,),
            )
            return True, None

        return await self._store.run(work)

    async def end(self, transaction: str, response: bytes) -> None:
        """Keep the response, to be repeated when the request comes again."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE agent_action SET response = ? WHERE id = ?", (response, transaction))

        await self._store.run(work)

    async def interrupted(self) -> list[StoredAction]:
        """What was begun and has no response, oldest first."""

        def work(db: sqlite3.Connection) -> list[StoredAction]:
            rows = db.execute("SELECT id, board, verb FROM agent_action WHERE response IS NULL ORDER BY at")
            return [StoredAction(row["id"], row["board"], row["verb"]) for row in rows]

        return await self._store.run(work)
