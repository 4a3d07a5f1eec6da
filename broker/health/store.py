"""Boards' trust in the broker's store."""

import json
from datetime import datetime

from broker.health.happenings import SaveHealth
from broker.health.trust import Evidence, Health, Record
from broker.store.sql import Connection


def save_health(connection: Connection, saved: SaveHealth) -> None:
    """Keep a board's record, or forget it."""
    record = saved.record
    if record is None:
        connection.execute("DELETE FROM board_health WHERE board = ?", (saved.board,))
        return
    shown = [
        {"at": e.at.isoformat(), "why": e.why, "job": e.job, "log": e.log, "diagnosis": e.diagnosis}
        for e in record.evidence
    ]
    connection.execute(
        "INSERT INTO board_health (board, state, since, failures, boots, passed, job, why, evidence)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (board) DO UPDATE SET state = excluded.state,"
        " since = excluded.since, failures = excluded.failures, boots = excluded.boots, passed = excluded.passed,"
        " job = excluded.job, why = excluded.why, evidence = excluded.evidence",
        (
            *(record.board, record.state.value, record.since.isoformat(), record.failures, json.dumps(record.boots_s)),
            *(record.passed.isoformat() if record.passed else None, record.job, record.why, json.dumps(shown)),
        ),
    )


def stored_health(connection: Connection) -> list[Record]:
    """Every board's record."""
    rows = connection.execute(
        "SELECT board, state, since, failures, boots, passed, job, why, evidence FROM board_health ORDER BY board"
    )
    return [
        Record(
            row["board"],
            Health(row["state"]),
            datetime.fromisoformat(row["since"]),
            failures=row["failures"],
            boots_s=json.loads(row["boots"]),
            passed=datetime.fromisoformat(row["passed"]) if row["passed"] else None,
            job=row["job"],
            why=row["why"],
            evidence=[
                Evidence(datetime.fromisoformat(e["at"]), e["why"], e["job"], e["log"], e["diagnosis"])
                for e in json.loads(row["evidence"])
            ],
        )
        for row in rows
    ]
