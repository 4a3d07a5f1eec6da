"""What is kept of a job beside itself and its log: timeline, artifacts, notices, and boards in boots of jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.happenings import SaveOtherBoot, TimelineEntry
from broker.jobs.artifact_store import Artifact
from broker.store.sql import Connection, Engine

# Per job. A board that reboots in a loop must not fill the store.
MAX_TIMELINE = 2000


@dataclass(frozen=True, slots=True)
class TimelineLine:
    attempt: int
    at: datetime
    what: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A job whose end somebody is still to be told."""

    job: int
    tries: int


def save_timeline(connection: Connection, entry: TimelineEntry) -> None:
    connection.execute(
        "INSERT INTO timeline (job, attempt, at, what) SELECT ?, ?, ?, ?"
        " WHERE (SELECT count(*) FROM timeline WHERE job = ?) < ?",
        (entry.job, entry.attempt, entry.at.isoformat(), entry.what, entry.job, MAX_TIMELINE),
    )


def save_other_boot(connection: Connection, item: SaveOtherBoot) -> None:
    if item.on:
        connection.execute("INSERT OR IGNORE INTO other_boots VALUES (?)", (item.board,))
    else:
        connection.execute("DELETE FROM other_boots WHERE board = ?", (item.board,))


def save_artifacts(connection: Connection, artifacts: Sequence[Artifact], removed: Sequence[int]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO artifacts (job, attempt, n, name, size, sha256, problem)"
        " SELECT ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM jobs WHERE number = ?)",
        [(a.job, a.attempt, a.n, a.name, a.size, a.sha256, a.problem, a.job) for a in artifacts],
    )
    connection.executemany(
        "UPDATE artifacts SET problem = 'removed to make room for newer ones' WHERE job = ? AND problem IS NULL",
        [(job,) for job in removed],
    )


class ResultStore:
    """Every method is one transaction on the store's own thread."""

    def __init__(self, store: Engine) -> None:
        self._store = store

    async def timeline(self, job: int) -> list[TimelineLine]:
        """What happened, in the order in which it was told: clocks of agents may be off."""

        def work(connection: Connection) -> list[TimelineLine]:
            rows = connection.execute("SELECT attempt, at, what FROM timeline WHERE job = ? ORDER BY number", (job,))
            return [TimelineLine(row["attempt"], datetime.fromisoformat(row["at"]), row["what"]) for row in rows]

        return await self._store.run(work)

    async def artifacts(self, job: int) -> list[Artifact]:
        """All records of a job, by attempt."""

        def work(connection: Connection) -> list[Artifact]:
            rows = connection.execute("SELECT * FROM artifacts WHERE job = ? ORDER BY attempt, n", (job,))
            return [
                Artifact(job, row["attempt"], row["n"], row["name"], row["size"], row["sha256"], row["problem"])
                for row in rows
            ]

        return await self._store.run(work)

    async def known(self, jobs: Sequence[int]) -> set[int]:
        """Those of the jobs that are still in the store."""

        def work(connection: Connection) -> set[int]:
            found = set()
            for job in jobs:
                if connection.execute("SELECT 1 FROM jobs WHERE number = ?", (job,)).fetchone() is not None:
                    found.add(job)
            return found

        return await self._store.run(work)

    async def log_so_far(self, job: int, attempt: int) -> list[tuple[int, str | None, str]]:
        """The log of an attempt: (seq, step, text) of each piece."""

        def work(connection: Connection) -> list[tuple[int, str | None, str]]:
            rows = connection.execute(
                "SELECT seq, step, text FROM log_chunks WHERE job = ? AND attempt = ? ORDER BY n", (job, attempt)
            )
            pieces: dict[int, tuple[str | None, list[str]]] = {}
            for row in rows:
                pieces.setdefault(row["seq"], (row["step"], []))[1].append(row["text"])
            return [(seq, step, "".join(parts)) for seq, (step, parts) in pieces.items()]

        return await self._store.run(work)

    async def notices(self, limit: int) -> list[Notice]:
        """Jobs whose end is still to be told, oldest first."""

        def work(connection: Connection) -> list[Notice]:
            rows = connection.execute("SELECT job, tries FROM notices WHERE done = 0 ORDER BY job LIMIT ?", (limit,))
            return [Notice(row["job"], row["tries"]) for row in rows]

        return await self._store.run(work)

    async def noticed(self, job: int, *, done: bool, problem: str | None) -> None:
        """A try to tell was made."""

        def work(connection: Connection) -> None:
            connection.execute(
                "UPDATE notices SET done = ?, tries = tries + 1, problem = ? WHERE job = ?", (int(done), problem, job)
            )

        await self._store.run(work)

    async def notice_problem(self, job: int) -> str | None:
        """Why somebody could not be told, where that is so."""

        def work(connection: Connection) -> str | None:
            row = connection.execute("SELECT problem FROM notices WHERE job = ?", (job,)).fetchone()
            return row["problem"] if row is not None else None

        return await self._store.run(work)

    async def save_removed(self, removed: Sequence[int]) -> None:
        """The artifacts of these jobs are gone."""
        await self._store.run(lambda connection: save_artifacts(connection, [], removed))
