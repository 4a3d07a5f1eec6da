"""What the broker commits: jobs, attempts, logs, tokens and the answers it gave. Accepted means committed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter

from broker.groups.calls import Meeting
from broker.groups.store import mark_members, save_meeting, stored_meetings
from broker.happenings import (
    SaveAttempt,
    SaveBoot,
    Saved,
    SaveJob,
    SaveLog,
    SaveMeeting,
    SaveOtherBoot,
    SaveToken,
    TimelineEntry,
)
from broker.health.happenings import SaveHealth
from broker.health.store import save_health, stored_health
from broker.health.trust import Record
from broker.jobs.artifact_store import Artifact
from broker.jobs.life import Job
from broker.jobs.result_store import ResultStore, save_artifacts, save_other_boot, save_timeline
from broker.jobs.spec import JobSpec
from broker.leases.happenings import SaveLease
from broker.leases.lease import PersonLease
from broker.leases.store import forget_leases, last_lease, save_lease, stored_leases
from broker.ledger import REMEMBERED_OUTCOMES
from broker.sleep.boot_store import save_boot, stored_boots
from broker.store.schema import MIGRATIONS
from broker.store.sql import Connection, Engine, Row
from broker.store.sqlite_engine import SqliteEngine
from wire.payloads import StepResult
from wire.phases import JobState

STORE_FILE = "broker.sqlite3"
# JSON may need six bytes for one letter: a stored part always fits an answer of `requests.MAX_ANSWER_BYTES`.
LOG_PART_LETTERS = 16 * 1024
# Answers are kept so that a repeated request is recognised; nobody repeats one after so many others.
KEPT_ANSWERS = 10_000
# SQLite's INTEGER is 64 bits; a board's seq beyond this is no count.
MAX_INTEGER = 2**62

_STEPS = TypeAdapter(list[StepResult])


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request that changed something."""

    verb: str
    tag: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a predecessor committed. See `Scheduler.restore`."""

    session: int
    jobs: list[Job]
    tokens: dict[str, int]
    outcomes: list[tuple[str, str, int]]
    holders: dict[str, tuple[str, int]]
    next_number: int
    answers: list[Answer]
    other_boots: list[str]
    boots: dict[str, list[float]]
    ended_members: list[Job]
    """Of groups that have not ended."""
    meetings: list[Meeting]
    leases: list[PersonLease]
    health: list[Record]


@dataclass(frozen=True, slots=True)
class LogChunk:
    n: int
    attempt: int
    step: str | None
    text: str


class JobStore:
    """The tables of `broker.store.schema`. Every method is one transaction on the store's own thread."""

    def __init__(self, store: Engine) -> None:
        self._store = store
        self.results = ResultStore(store)

    @classmethod
    async def open(cls, state_dir: Path) -> "JobStore":
        """Open or create the SQLite store in `state_dir`.

        Raises:
            daemon.store.StoreError: the file is damaged or cannot be written.
        """
        return cls(await SqliteEngine.open(state_dir / STORE_FILE, MIGRATIONS))

    async def fence(self) -> None:
        """Return where this broker may still speak; `broker.store.sql.LeadershipLostError` otherwise."""
        await self._store.fence()

    async def close(self) -> None:
        await self._store.close()

    async def recover(self) -> Recovered:
        """Everything that the scheduler must know, and a session number that was never used before."""
        return await self._store.run(_recover)

    async def commit(
        self,
        saved: Sequence[Saved],
        answers: Sequence[Answer],
        artifacts: Sequence[Artifact] = (),
        removed: Sequence[int] = (),
    ) -> None:
        """Write all of it or nothing; it survives a kill -9 once this returns. `removed`: jobs whose artifacts went."""

        def work(connection: Connection) -> None:
            for item in saved:
                _save(connection, item)
            if artifacts or removed:
                save_artifacts(connection, artifacts, removed)
            for answer in answers:
                connection.execute(
                    "INSERT OR IGNORE INTO answers (verb, tag, payload) VALUES (?, ?, ?)",
                    (answer.verb, answer.tag, answer.payload),
                )
            if answers:
                connection.execute(
                    "DELETE FROM answers WHERE number <= (SELECT max(number) FROM answers) - ?", (KEPT_ANSWERS,)
                )

        await self._store.run(work)

    async def jobs(self, limit: int, state: JobState | None, before: int | None = None) -> list[Job]:
        """The newest jobs first, `limit` at most, with numbers below `before` where that is given."""

        def work(connection: Connection) -> list[Job]:
            rows = connection.execute(
                "SELECT * FROM jobs WHERE state = coalesce(?, state) AND number < coalesce(?, number + 1)"
                " ORDER BY number DESC LIMIT ?",
                (state.value if state is not None else None, before, limit),
            )
            return [_job(row) for row in rows]

        return await self._store.run(work)

    async def jobs_to_tell(self, ended_after: datetime, limit: int) -> list[Job]:
        """Jobs that have not ended, or did after that time; the newest `limit` of them, oldest first."""

        def work(connection: Connection) -> list[Job]:
            rows = connection.execute(
                "SELECT * FROM jobs WHERE ended_flag = 0 OR ended >= ? ORDER BY number DESC LIMIT ?",
                (_time(ended_after), limit),
            )
            return [_job(row) for row in reversed(rows.fetchall())]

        return await self._store.run(work)

    async def job(self, number: int) -> tuple[Job, list[dict[str, object]]] | None:
        """A job and its attempts, oldest first, or None where there is no such job."""

        def work(connection: Connection) -> tuple[Job, list[dict[str, object]]] | None:
            row = connection.execute("SELECT * FROM jobs WHERE number = ?", (number,)).fetchone()
            if row is None:
                return None
            attempts = connection.execute(
                "SELECT attempt, board, token, began, ended, result, log_chunks AS log_sent,"
                " (SELECT count(DISTINCT seq) FROM log_chunks AS l WHERE l.job = a.job AND l.attempt = a.attempt)"
                " AS log_kept FROM attempts AS a WHERE job = ? ORDER BY attempt",
                (number,),
            )
            return _job(row), [dict(attempt) for attempt in attempts]

        return await self._store.run(work)

    async def logs(self, number: int, from_chunk: int, limit: int) -> list[LogChunk]:
        """Chunks of the job's whole log from position `from_chunk` on, `limit` at most."""

        def work(connection: Connection) -> list[LogChunk]:
            rows = connection.execute(
                "SELECT n, attempt, step, text FROM log_chunks WHERE job = ? AND n >= ? ORDER BY n LIMIT ?",
                (number, from_chunk, limit),
            )
            return [LogChunk(row["n"], row["attempt"], row["step"], row["text"]) for row in rows]

        return await self._store.run(work)

    async def forget_jobs(self, keep: int) -> None:
        """Remove ended jobs, with their logs, but for the newest `keep`.

        The newest of all stays in any case: by its number no other is given out twice.
        """

        def work(connection: Connection) -> None:
            connection.execute(
                "DELETE FROM jobs WHERE ended_flag = 1 AND number <= (SELECT coalesce(max(number), 0) FROM jobs) - ?",
                (max(keep, 1),),
            )
            forget_leases(connection, max(keep, 1))

        await self._store.run(work)


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def _save(connection: Connection, item: Saved) -> None:
    match item:
        case SaveJob(job):
            _save_job(connection, job)
        case SaveToken(board, token):
            connection.execute(
                "INSERT INTO tokens VALUES (?, ?) ON CONFLICT (board) DO UPDATE SET token ="
                " CASE WHEN excluded.token > tokens.token THEN excluded.token ELSE tokens.token END",
                (board, token),
            )
        case SaveAttempt():
            connection.execute(
                "INSERT INTO attempts (job, attempt, board, token, began, ended, result, told, log_chunks)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job, attempt) DO UPDATE SET ended = excluded.ended,"
                " result = excluded.result, told = excluded.told, log_chunks = excluded.log_chunks",
                (
                    *(item.job, item.attempt, item.board, item.token),
                    *(_time(item.began), _time(item.ended), item.result, int(item.told)),
                    min(item.log_chunks, MAX_INTEGER) if item.log_chunks is not None else None,
                ),
            )
        case SaveLog():
            _save_log(connection, item)
        case SaveMeeting():
            save_meeting(connection, item)
        case SaveOtherBoot():
            save_other_boot(connection, item)
        case SaveBoot():
            save_boot(connection, item)
        case SaveHealth():
            save_health(connection, item)
        case SaveLease():
            save_lease(connection, item)
        case TimelineEntry():
            save_timeline(connection, item)


_JOB_COLUMNS = (
    *("number", "spec", "name", "state", "ended_flag", "board", "token", "expires", "attempt"),
    *("start_faults", "run_faults", "reason", "last_fault", "submitted", "started", "ended", "steps", "avoid"),
    "submitter",
)
_SAVE_JOB = (
    f"INSERT INTO jobs ({', '.join(_JOB_COLUMNS)}) VALUES ({', '.join('?' for _ in _JOB_COLUMNS)})"  # noqa: S608  # our own names
    f" ON CONFLICT (number) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _JOB_COLUMNS[3:])}"
)


def _save_job(connection: Connection, job: Job) -> None:
    values = (
        *(job.number, job.spec.model_dump_json(), job.spec.name, job.state.value, int(job.state.ended)),
        *(job.board, job.token, _time(job.expires), job.attempt, job.start_faults, job.run_faults),
        *(job.reason, job.last_fault, _time(job.submitted), _time(job.started), _time(job.ended)),
        *(_STEPS.dump_json(job.steps).decode(), json.dumps(sorted(job.avoid)), job.submitter),
    )
    connection.execute(_SAVE_JOB, values)
    if job.state.ended and job.spec.notify is not None and job.state.value in job.spec.notify.on:
        # In the transaction of its end: somebody who is to be told is told, whatever happens to us afterwards.
        connection.execute("INSERT OR IGNORE INTO notices (job) VALUES (?)", (job.number,))


def _save_log(connection: Connection, item: SaveLog) -> None:
    log = item.log
    if log.seq > MAX_INTEGER:
        return
    known = connection.execute(
        "SELECT 1 FROM log_chunks WHERE job = ? AND attempt = ? AND seq = ? LIMIT 1", (item.job, item.attempt, log.seq)
    ).fetchone()
    if known is not None:
        return
    after = connection.execute("SELECT coalesce(max(n), -1) + 1 FROM log_chunks WHERE job = ?", (item.job,)).fetchone()
    parts = range(0, max(len(log.text), 1), LOG_PART_LETTERS)
    connection.executemany(
        "INSERT INTO log_chunks (job, n, attempt, seq, part, step, text) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (item.job, after[0] + i, item.attempt, log.seq, i, log.step, log.text[at : at + LOG_PART_LETTERS])
            for i, at in enumerate(parts)
        ],
    )


def _job(row: Row) -> Job:
    submitted = datetime.fromisoformat(row["submitted"])
    return Job(
        row["number"],
        JobSpec.model_validate_json(row["spec"]),
        submitted,
        state=JobState(row["state"]),
        board=row["board"],
        token=row["token"],
        expires=_moment(row["expires"]),
        attempt=row["attempt"],
        start_faults=row["start_faults"],
        run_faults=row["run_faults"],
        reason=row["reason"],
        last_fault=row["last_fault"],
        started=_moment(row["started"]),
        ended=_moment(row["ended"]),
        steps=_STEPS.validate_json(row["steps"]),
        avoid=set(json.loads(row["avoid"])),
        submitter=row["submitter"],
    )


def _recover(connection: Connection) -> Recovered:
    session = connection.execute(
        "INSERT INTO meta VALUES ('session', 1) ON CONFLICT (key) DO UPDATE SET value = meta.value + 1 RETURNING value"
    ).fetchone()[0]
    last = connection.execute("SELECT max(number) AS number FROM jobs").fetchone()
    told = connection.execute(
        "SELECT board, job, token FROM attempts WHERE told = 1 ORDER BY ended DESC, job DESC LIMIT ?",
        (REMEMBERED_OUTCOMES,),
    ).fetchall()
    holders = connection.execute(
        "SELECT board, job, token FROM attempts AS a"
        " WHERE token = (SELECT max(token) FROM attempts AS b WHERE b.board = a.board)"
    )
    answers = connection.execute("SELECT verb, tag, payload FROM answers ORDER BY number")
    jobs = [_job(row) for row in connection.execute("SELECT * FROM jobs WHERE ended_flag = 0 ORDER BY number")]
    over = (connection.execute("SELECT * FROM jobs WHERE number = ?", (n,)).fetchone() for n in mark_members(jobs))
    return Recovered(
        session=session,
        jobs=jobs,
        tokens={row["board"]: row["token"] for row in connection.execute("SELECT board, token FROM tokens")},
        outcomes=[(row["board"], f"job-{row['job']}", row["token"]) for row in reversed(told)],
        holders={row["board"]: (f"job-{row['job']}", row["token"]) for row in holders},
        next_number=max(last["number"] or 0, last_lease(connection)) + 1,
        answers=[Answer(row["verb"], row["tag"], row["payload"]) for row in answers],
        other_boots=[row["board"] for row in connection.execute("SELECT board FROM other_boots")],
        boots=stored_boots(connection),
        health=stored_health(connection),
        ended_members=[_job(row) for row in over if row is not None],
        meetings=stored_meetings(connection),
        leases=stored_leases(connection),
    )
