"""Stores of every schema version, as boardhand wrote them: databases/v<version>.sql. They never change."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from broker.happenings import SaveJob
from broker.jobs.store import STORE_FILE, Answer, JobStore
from broker.store.schema import MIGRATIONS
from daemon.store import StoreError
from wire.phases import JobState

FOLDER = Path(__file__).with_name("databases")
VERSIONS = range(1, len(MIGRATIONS) + 1)


def stored(folder, version):
    """A store of that version in the folder."""
    with contextlib.closing(sqlite3.connect(folder / STORE_FILE)) as db:
        db.executescript((FOLDER / f"v{version}.sql").read_text())


def schema_of(folder):
    with contextlib.closing(sqlite3.connect(folder / STORE_FILE)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        columns = {table: db.execute(f"PRAGMA table_info({table})").fetchall() for table in tables}
        indexes = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name").fetchall()
        return columns, indexes, db.execute("PRAGMA user_version").fetchone()


def test_there_is_a_store_of_each_version():
    kept = {int(path.stem[1:]) for path in FOLDER.glob("v*.sql")}
    missing = set(VERSIONS) - kept
    assert not missing, f"make them: python tests/broker/databases/make.py ({missing})"


async def recognised(store):
    """The jobs of `databases/make.py`, whichever version wrote them."""
    found = await store.recover()
    running, waiting = found.jobs
    assert (running.id, running.state, running.board, running.token) == ("job-2", JobState.RUNNING, "b1", 7)
    assert (running.attempt, running.start_faults, running.avoid) == (2, 1, {"b2"})
    assert (waiting.id, waiting.state, waiting.spec.steps[1].run) == ("job-3", JobState.QUEUED, "make check")
    assert found.tokens == {"b1": 7, "b2": 3}
    assert found.outcomes == [("b1", "job-1", 6)]
    assert found.holders == {"b1": ("job-2", 7), "b2": ("job-2", 3)}
    assert found.next_number == 4
    assert found.answers == [Answer("submit", "t-1", b'{"ok":true}\x00\xff')]
    assert [chunk.text for chunk in await store.logs(1, 0, 9)] == ["it's\n", "50% é \\ ✓\n"]
    job, attempts = await store.job(1)
    assert (job.state, attempts[0]["result"], attempts[0]["log_kept"]) == (JobState.PASSED, "passed", 2)
    return found


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_store_of_each_version_is_taken_up(tmp_path, version):
    stored(tmp_path, version)
    store = await JobStore.open(tmp_path)
    try:
        found = await recognised(store)
        assert found.session == 2
        await store.commit([SaveJob(job) for job in found.jobs], [])
        if version >= 2:
            assert [line.what for line in await store.results.timeline(1)] == ["leased b1, token 6", "b1 began to work"]
            assert [artifact.name for artifact in await store.results.artifacts(1)] == ["out/report.txt"]
            assert [(notice.job, notice.tries) for notice in await store.results.notices(9)] == [(1, 2)]
            assert found.other_boots == ["b2"]
        if version >= 3:
            assert (found.jobs[1].submitter, found.boots) == ("ada", {"b1": [41.25]})
    finally:
        await store.close()
    (tmp_path / "new").mkdir()
    await (await JobStore.open(tmp_path / "new")).close()
    assert schema_of(tmp_path) == schema_of(tmp_path / "new")


async def test_a_store_of_a_later_version_is_left_alone(tmp_path):
    stored(tmp_path, 1)
    with contextlib.closing(sqlite3.connect(tmp_path / STORE_FILE)) as db:
        db.execute("PRAGMA user_version = 999")
    before = (tmp_path / STORE_FILE).read_bytes()
    with pytest.raises(StoreError, match="start the newer one"):
        await JobStore.open(tmp_path)
    assert (tmp_path / STORE_FILE).read_bytes()[96:] == before[96:]
