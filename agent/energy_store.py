"""What was metered, on disk (`agent.energy_schema`): hours for two weeks, days for over a year, sums for ever.

Each write is one transaction of additions to buckets, so a kill -9 loses what was metered since the last write and
nothing else, and counts nothing twice.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from agent.energy import DAY_S, HOUR_S, Amount, BoardRecord
from agent.energy_meter import DAYS_KEPT_S, HOURS_KEPT_S, Unstored
from daemon.store import Store
from wire.energy import EnergyState

_KEPT_S = {HOUR_S: HOURS_KEPT_S, DAY_S: DAYS_KEPT_S}
_ADD = """
INSERT INTO energy_bucket VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET measured_s = measured_s + excluded.measured_s,
    unmeasured_s = unmeasured_s + excluded.unmeasured_s, wh = wh + excluded.wh
"""
_SUM = """
SELECT start_s - start_s % ? AS period_s, state, sum(measured_s) AS measured_s, sum(unmeasured_s) AS unmeasured_s,
    sum(wh) AS wh
FROM energy_bucket WHERE board = ? AND length_s = ? AND start_s >= ? GROUP BY period_s, state ORDER BY period_s
"""


class EnergyStore:
    """Reads and writes of the tables above."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def records(self) -> dict[str, BoardRecord]:
        """All boards that were ever metered."""

        def work(db: sqlite3.Connection) -> dict[str, BoardRecord]:
            totals: dict[str, dict[EnergyState, Amount]] = {}
            for row in db.execute("SELECT * FROM energy_total"):
                totals.setdefault(row["board"], {})[EnergyState(row["state"])] = _amount(row)
            return {
                row["board"]: BoardRecord(
                    datetime.fromisoformat(row["since"]),
                    datetime.fromisoformat(row["until"]),
                    row["counter_wh"],
                    totals.get(row["board"], {}),
                )
                for row in db.execute("SELECT * FROM energy_board")
            }

        return await self._store.run(work)

    async def write(self, unstored: Unstored) -> None:
        """Store what the meter has taken, all of it or nothing.

        Raises:
            sqlite3.Error: nothing was stored; give it back to the meter.
        """

        def work(db: sqlite3.Connection) -> None:
            db.executemany(_ADD, [(*key, a.measured_s, a.unmeasured_s, a.wh) for key, a in unstored.buckets.items()])
            _write_records(db, unstored.records)

        await self._store.run(work)

    async def forget(self, now: datetime) -> None:
        """Delete what is older than it is kept."""

        def work(db: sqlite3.Connection) -> None:
            for length_s, kept_s in _KEPT_S.items():
                oldest_s = int(now.timestamp()) - kept_s
                db.execute("DELETE FROM energy_bucket WHERE length_s = ? AND start_s < ?", (length_s, oldest_s))

        await self._store.run(work)

    @staticmethod
    def window_start(since: datetime, now: datetime) -> datetime:
        """Where a window really begins: `since` goes back to the start of its hour; further back than the hours are
        kept, to the start of its day."""
        length_s = _length_s(since, now)
        return datetime.fromtimestamp(int(since.timestamp()) // length_s * length_s, UTC)

    async def window(
        self, board: str, since: datetime, now: datetime, period_s: int | None
    ) -> dict[datetime, dict[EnergyState, Amount]]:
        """What a board used from `window_start` on, by the start of each period of `period_s` (`HOUR_S`, `DAY_S`, or
        None: all of it in one). Hours that are not kept any more are told by the day."""
        length_s = _length_s(since, now)
        since_s = int(self.window_start(since, now).timestamp())
        # One period that is longer than any time makes every row fall into the one that starts at 0.
        group_s = max(period_s, length_s) if period_s else 1 << 62

        def work(db: sqlite3.Connection) -> dict[datetime, dict[EnergyState, Amount]]:
            periods: dict[datetime, dict[EnergyState, Amount]] = {}
            for row in db.execute(_SUM, (group_s, board, length_s, since_s)):
                start = datetime.fromtimestamp(row["period_s"], UTC)
                periods.setdefault(start, {})[EnergyState(row["state"])] = _amount(row)
            return periods

        return await self._store.run(work)


def _length_s(since: datetime, now: datetime) -> int:
    return HOUR_S if since >= now - timedelta(seconds=HOURS_KEPT_S - HOUR_S) else DAY_S


def _write_records(db: sqlite3.Connection, records: Mapping[str, BoardRecord]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO energy_board VALUES (?, ?, ?, ?)",
        [(board, r.since.isoformat(), r.until.isoformat(), r.counter_wh) for board, r in records.items()],
    )
    db.executemany("INSERT OR REPLACE INTO energy_total VALUES (?, ?, ?, ?, ?)", _total_rows(records))


def _total_rows(records: Mapping[str, BoardRecord]) -> Iterable[tuple[object, ...]]:
    for board, record in records.items():
        for state, amount in record.totals.items():
            yield board, state.value, amount.measured_s, amount.unmeasured_s, amount.wh


def _amount(row: sqlite3.Row) -> Amount:
    return Amount(row["measured_s"], row["unmeasured_s"], row["wh"])
