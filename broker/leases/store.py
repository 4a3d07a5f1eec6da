"""Leases of people in the store. Those that ended stay for a while: ids are never given out twice."""

import json
from datetime import datetime

from broker.jobs.labels import Want
from broker.leases.happenings import SaveLease
from broker.leases.lease import PersonLease
from broker.matching.waiting import Needs
from broker.store.sql import Connection, Row
from wire.phases import LeaseStage

_COLUMNS = (
    *("number", "holder", "needs", "lasts_s", "asked", "comment", "wake", "off", "stage", "open", "board", "token"),
    *("since", "expires", "ended", "reason", "woken", "closing"),
)
_SAVE = (
    f"INSERT INTO leases ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' for _ in _COLUMNS)})"  # noqa: S608  # our own names
    f" ON CONFLICT (number) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])}"
)


def save_lease(connection: Connection, item: SaveLease) -> None:
    """Write a lease as it now is."""
    lease = item.lease
    wants = [[want.label, want.sign, list(want.values)] for want in lease.needs.wants]
    values = (
        *(lease.number, lease.holder, json.dumps({"board": lease.needs.board, "wants": wants}), lease.lasts_s),
        *(lease.asked.isoformat(), lease.comment, int(lease.wake), int(lease.off), lease.stage.value, int(lease.open)),
        *(lease.board, lease.token, _text(lease.since), _text(lease.expires), _text(lease.ended), lease.reason),
        *(int(lease.woken), int(lease.closing)),
    )
    connection.execute(_SAVE, values)


def stored_leases(connection: Connection) -> list[PersonLease]:
    """Leases about which something is still to be done, oldest first."""
    return [_lease(row) for row in connection.execute("SELECT * FROM leases WHERE open = 1 ORDER BY number")]


def last_lease(connection: Connection) -> int:
    """The largest number that a stored lease has, or 0. The newest are never pruned, so none is given out twice."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM leases").fetchone()[0])


def forget_leases(connection: Connection, keep: int) -> None:
    """Remove those that ended, but for the newest `keep` numbers."""
    connection.execute(
        "DELETE FROM leases WHERE open = 0 AND number <= (SELECT coalesce(max(number), 0) FROM leases) - ?", (keep,)
    )


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def _lease(row: Row) -> PersonLease:
    needs, wake = json.loads(row["needs"]), bool(row["wake"])
    wants = tuple(Want(label, sign, tuple(values)) for label, sign, values in needs["wants"])
    return PersonLease(
        row["number"],
        row["holder"],
        Needs(needs["board"], wants, still=not wake),
        row["lasts_s"],
        datetime.fromisoformat(row["asked"]),
        row["comment"],
        wake=wake,
        off=bool(row["off"]),
        stage=LeaseStage(row["stage"]),
        board=row["board"],
        token=row["token"],
        since=_moment(row["since"]),
        expires=_moment(row["expires"]),
        ended=_moment(row["ended"]),
        reason=row["reason"],
        woken=bool(row["woken"]),
        closing=bool(row["closing"]),
    )
