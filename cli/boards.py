"""`boardhand boards`: the farm as a table, as JSON, or live."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from cli.farm_view import BoardRow, FarmView
from cli.session import QUIET_S, Session
from cli.target import Target


def collect(session: Session, view: FarmView, *, quiet_s: float = QUIET_S) -> None:
    """Take in what is retained of the farm."""
    for message in session.retained(*view.filters(), quiet_s=quiet_s):
        view.feed(message.topic, message.payload)


def age(since: str, now: datetime) -> str:
    """How long ago an RFC 3339 time was: `12 s`, `5 min`, `3 h`, `4 d`; empty when there is none."""
    if not since:
        return ""
    seconds = max(0.0, (now - datetime.fromisoformat(since)).total_seconds())
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def cells(row: BoardRow, now: datetime) -> tuple[str, ...]:
    """A row as the eight columns of the table."""
    agent = row.agent if row.agent_state == "online" else f"{row.agent} ({row.agent_state or 'silent'})"
    return (
        row.board,
        row.power,
        row.phase,
        row.reason,
        age(row.since, now),
        agent if row.agent else "",
        row.holder(now),
        row.job,
    )


COLUMNS = ("BOARD", "POWER", "PHASE", "REASON", "SINCE", "AGENT", "HOLDER", "JOB")


def lines(rows: Sequence[tuple[str, ...]], heads: tuple[str, ...] = COLUMNS) -> list[str]:
    """A plain table: columns as wide as their longest cell."""
    table = [heads, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def run(target: Target, *, as_json: bool, watch: bool, for_s: float | None = None) -> int:
    """Show the boards once, or until Ctrl-C with `watch`."""
    if watch:
        from cli.live_view import run as run_live

        return run_live(target, as_json=as_json, for_s=for_s)
    view = FarmView(target.prefix)
    with Session(target) as session:
        collect(session, view)
    rows = view.rows()
    now = datetime.now(UTC)
    if as_json:
        print(json.dumps({"boards": [row.document(now) for row in rows]}))
    elif rows:
        print("\n".join(lines([cells(row, now) for row in rows])))
    else:
        print(f"no boards at {target.host}:{target.port} under '{target.prefix}': no agent has announced any",
              file=sys.stderr)  # fmt: skip
    return 0
