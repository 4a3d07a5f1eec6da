"""What the agent must still know after a kill -9: its session, each board's phase, boot secrets, commands done."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.action_store import ACTIONS_SCHEMA
from agent.boot_records import BOOTS_SCHEMA
from agent.energy_schema import ENERGY_SCHEMA
from agent.outbox import OUTBOX_SCHEMA
from agent.power.journal import JOURNAL_SCHEMA
from daemon.store import Store
from wire.phases import Phase

MEMORY_SCHEMA = """
CREATE TABLE agent_fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE agent_board (
    board TEXT PRIMARY KEY,
    phase TEXT NOT NULL,
    reason TEXT,
    since TEXT NOT NULL,
    target TEXT,
    boot_id TEXT
) WITHOUT ROWID;
CREATE TABLE agent_command (
    board TEXT NOT NULL,
    id TEXT NOT NULL,
    result BLOB,
    at TEXT NOT NULL,
    PRIMARY KEY (board, id)
) WITHOUT ROWID;
CREATE INDEX agent_command_at ON agent_command (at);
"""

MIGRATIONS = (MEMORY_SCHEMA + OUTBOX_SCHEMA + JOURNAL_SCHEMA, ENERGY_SCHEMA, BOOTS_SCHEMA, ACTIONS_SCHEMA)
"""Script i brings the schema from version i to i + 1; a landed script is never edited."""

COMMANDS_KEPT = 10_000
"""Ids of commands that are remembered as done. A repeated one older than this is a new one; at a command a second for
one board that is hours, far beyond any redelivery."""


@dataclass(frozen=True, slots=True)
class BoardMemory:
    """What was true of a board when the agent last said so."""

    phase: Phase
    reason: str | None
    since: datetime
    target: str | None
    boot_id: str | None
    """The boot that proved itself last, None when the board was switched off since."""


class Memory:
    """Reads and writes of the tables above."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def next_session(self) -> int:
        """A session number that is higher than any before; stored before it is used."""

        def work(db: sqlite3.Connection) -> int:
            row = db.execute("SELECT value FROM agent_fact WHERE name = 'session'").fetchone()
            session = 1 if row is None else int(row[0]) + 1
            db.execute("INSERT OR REPLACE INTO agent_fact VALUES ('session', ?)", (str(session),))
            return session

        return await self.store.run(work)

    async def fact(self, name: str) -> Any:
        """A stored JSON value, or None."""

        def work(db: sqlite3.Connection) -> str | None:
            row = db.execute("SELECT value FROM agent_fact WHERE name = ?", (name,)).fetchone()
            return None if row is None else str(row[0])

        text = await self.store.run(work)
        return None if text is None else json.loads(text)

    async def facts(self, prefix: str) -> dict[str, Any]:
        """All stored JSON values whose names begin so, by name."""

        def work(db: sqlite3.Connection) -> list[tuple[str, str]]:
            begins = (len(prefix), prefix)
            return list(db.execute("SELECT name, value FROM agent_fact WHERE substr(name, 1, ?) = ?", begins))

        return {name: json.loads(text) for name, text in await self.store.run(work)}

    async def remember(self, name: str, value: Any) -> None:
        """Store a JSON value; it survives a kill -9 when this returns. None forgets it."""
        text = json.dumps(value)

        def work(db: sqlite3.Connection) -> None:
            if value is None:
                db.execute("DELETE FROM agent_fact WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO agent_fact VALUES (?, ?)", (name, text))

        await self.store.run(work)

    async def boards(self) -> dict[str, BoardMemory]:
        """All boards that were ever stored."""

        def work(db: sqlite3.Connection) -> dict[str, BoardMemory]:
            return {
                row["board"]: BoardMemory(
                    Phase(row["phase"]),
                    row["reason"],
                    datetime.fromisoformat(row["since"]),
                    row["target"],
                    row["boot_id"],
                )
                for row in db.execute("SELECT * FROM agent_board")
            }

        return await self.store.run(work)

    @staticmethod
    def write_boards(db: sqlite3.Connection, boards: Mapping[str, BoardMemory]) -> None:
        """Store where boards are, as part of a transaction of the caller's."""
        db.executemany(
            "INSERT OR REPLACE INTO agent_board VALUES (?, ?, ?, ?, ?, ?)",
            [
                (board, memory.phase.value, memory.reason, memory.since.isoformat(), memory.target, memory.boot_id)
                for board, memory in boards.items()
            ],
        )

    async def begin_command(self, board: str, command_id: str) -> tuple[bool, bytes | None]:
        """Note that a command is about to be done: `(is it new, its result if it was done before)`."""

        def work(db: sqlite3.Connection) -> tuple[bool, bytes | None]:
            row = db.execute(
                "SELECT result FROM agent_command WHERE board = ? AND id = ?", (board, command_id)
            ).fetchone()
            if row is not None:
                return False, row[0]
            now = datetime.now(UTC).isoformat()
            db.execute("INSERT INTO agent_command VALUES (?, ?, NULL, ?)", (board, command_id, now))
            db.execute(
                "DELETE FROM agent_command WHERE at < (SELECT at FROM agent_command ORDER BY at DESC LIMIT 1 OFFSET ?)",
                (COMMANDS_KEPT,),
            )
            return True, None

        return await self.store.run(work)

    async def end_command(self, board: str, command_id: str, result: bytes) -> None:
        """Store a command's result, to be repeated when the command comes again."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE agent_command SET result = ? WHERE board = ? AND id = ?", (result, board, command_id))

        await self.store.run(work)

    async def interrupted_commands(self) -> list[tuple[str, str]]:
        """`(board, id)` of commands that were begun and have no result: the agent was stopped in between."""

        def work(db: sqlite3.Connection) -> list[tuple[str, str]]:
            rows = db.execute("SELECT board, id FROM agent_command WHERE result IS NULL ORDER BY at")
            return [(row["board"], row["id"]) for row in rows]

        return await self.store.run(work)
