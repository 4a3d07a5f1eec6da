import sqlite3
from datetime import UTC, datetime

import psycopg
import pytest

from broker.happenings import SaveAttempt, SaveJob, SaveLog, SaveToken
from broker.jobs.life import Job, JobEvent, job_number
from broker.jobs.spec import parse_job
from broker.jobs.store import LOG_PART_LETTERS, STORE_FILE, Answer, JobStore
from broker.store.leadership import _set_up, _try
from broker.store.postgresql_connection import Place
from broker.store.postgresql_engine import PostgresqlEngine
from broker.store.schema import MIGRATIONS
from daemon.store import StoreError
from tests.broker.postgresql_server import PostgresqlServer
from wire.payloads import StepResult, WorkLog
from wire.phases import JobState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = parse_job("name: a\nlabels: {arch: [arm64, arm], mem: '>= 3'}\nenv: {A: '1'}\nsteps: [b]")


@pytest.fixture(scope="module")
def postgresql():
    server = PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
async def open_store(tmp_path, request):
    """The same tests for both engines."""
    made = []
    url = request.getfixturevalue("postgresql").new_schema() if request.param == "postgresql" else None

    async def open_again():
        for store in made:
            await store.close()
        made.append(await JobStore.open(tmp_path) if url is None else JobStore(await lead(Place(url))))
        return made[-1]

    yield open_again
    for store in made:
        await store.close()


async def lead(place):
    """An engine of the next epoch, as after a takeover."""
    with place.connect() as connection:
        _set_up(connection)
        epoch = _try(connection, "broker")
    return await PostgresqlEngine.open(place, MIGRATIONS, epoch)


def running(number=1):
    job = Job(number, SPEC, NOW)
    job.board, job.token, job.expires, job.attempt = "b1", 7, NOW, 2
    for event in (JobEvent.OFFER, JobEvent.ACCEPT):
        job.step(event)
    job.steps = [StepResult(name="b", exit_code=0)]
    job.reason, job.last_fault, job.started, job.avoid = "r", "f", NOW, {"b9", "b2"}
    return job


async def test_what_was_committed_comes_back(open_store):
    store = await open_store()
    assert (await store.recover()).session == 1
    job, ended = running(), running(2)
    ended.step(JobEvent.PASS)
    ended.ended = NOW
    saved = [SaveJob(job), SaveJob(ended), SaveToken("b1", 7), SaveToken("b1", 3)]
    attempts = [
        SaveAttempt(2, 1, "b1", 6, NOW),
        SaveAttempt(1, 2, "b1", 7, NOW),
        SaveAttempt(2, 1, "b1", 6, NOW, NOW, "passed", told=True),
    ]
    await store.commit([*saved, *attempts], [Answer("submit", "t", b"x"), Answer("submit", "t", b"y")])
    found = await (await open_store()).recover()
    assert found.session == 2
    assert found.jobs == [job]
    assert found.tokens == {"b1": 7}
    assert found.outcomes == [("b1", "job-2", 6)]
    assert found.holders == {"b1": ("job-1", 7)}
    assert found.next_number == 3
    assert found.answers == [Answer("submit", "t", b"x")]


async def test_all_or_nothing(open_store):
    store = await open_store()
    with pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)):
        await store.commit([SaveJob(running()), SaveAttempt(99, 1, "b1", 1, NOW)], [])
    assert (await store.recover()).jobs == []


async def test_log_pieces_once_in_order_and_split(open_store):
    store = await open_store()
    await store.commit([SaveJob(running())], [])
    long = "x" * LOG_PART_LETTERS + "y"
    for attempt, seq, text in [(1, 0, "a"), (1, 1, long), (1, 0, "a"), (1, 1, long), (2, 0, "b"), (2, 1, "")]:
        log = WorkLog(job="job-1", token=7, seq=seq, text=text, step="s")
        await store.commit([SaveLog(1, attempt, log)], [])
    await store.commit([SaveLog(1, 2, WorkLog(job="job-1", token=7, seq=10**30, text="no"))], [])
    chunks = await store.logs(1, 0, 100)
    assert [(c.n, c.attempt, c.text[-1:]) for c in chunks] == [
        (0, 1, "a"),
        (1, 1, "x"),
        (2, 1, "y"),
        (3, 2, "b"),
        (4, 2, ""),
    ]
    assert [c.n for c in await store.logs(1, 2, 2)] == [2, 3]


async def test_lists(open_store):
    store = await open_store()
    ended = running(2)
    ended.step(JobEvent.FAIL)
    ended.ended = NOW
    await store.commit([SaveJob(running(1)), SaveJob(ended), SaveJob(Job(3, SPEC, NOW))], [])
    assert [job.number for job in await store.jobs(10, None)] == [3, 2, 1]
    assert [job.number for job in await store.jobs(10, None, before=3)] == [2, 1]
    assert [job.number for job in await store.jobs(10, JobState.FAILED)] == [2]
    assert [job.number for job in await store.jobs_to_tell(NOW, 10)] == [1, 2, 3]
    assert [job.number for job in await store.jobs_to_tell(NOW.replace(year=2027), 10)] == [1, 3]
    assert await store.job(9) is None


async def test_forgetting_spares_the_open_and_never_reuses_a_number(open_store):
    store = await open_store()
    for number in range(1, 6):
        job = running(number)
        if number != 2:
            job.step(JobEvent.PASS)
        await store.commit([SaveJob(job), SaveLog(number, 1, WorkLog(job="job-1", token=1, seq=0, text="x"))], [])
    await store.forget_jobs(1)
    assert [job.number for job in await store.jobs(10, None)] == [5, 2]
    assert await store.logs(3, 0, 5) == []
    await store.forget_jobs(0)
    assert (await (await open_store()).recover()).next_number == 6


async def test_a_damaged_file_is_an_error(tmp_path):
    (tmp_path / STORE_FILE).write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match=STORE_FILE):
        await JobStore.open(tmp_path)


def test_job_numbers():
    good = {"job-1": 1, "job-120": 120}
    assert {text: job_number(text) for text in good} == good
    for text in ("job-0", "job-01", "job-", "job", "xob-1", "job--1", "job-1x", "job-" + "9" * 30, "job-²"):
        assert job_number(text) is None
