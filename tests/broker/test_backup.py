"""Backups: from either engine into either, whole or not at all."""

import asyncio
import contextlib
import gzip
import json
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from broker.happenings import SaveJob, SaveLog, SaveToken
from broker.jobs.life import Job
from broker.jobs.spec import parse_job
from broker.jobs.store import STORE_FILE, JobStore
from broker.store.backup import TOKENS_AHEAD, BackupError, read_header
from broker.store.backup_places import backup_postgresql, backup_sqlite, restore_postgresql, restore_sqlite
from broker.store.leadership import win
from broker.store.postgresql_connection import Place
from broker.store.postgresql_engine import PostgresqlEngine
from broker.store.schema import MIGRATIONS
from daemon.foreground import DaemonError
from daemon.state_folder import held
from tests.broker.postgresql_server import PostgresqlServer
from tests.broker.test_store_migrations import VERSIONS, stored
from wire.payloads import WorkLog

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = parse_job("name: a\nsteps: [b]\n")


@pytest.fixture(scope="module")
def postgresql():
    server = PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.cleanup()


def folder(tmp_path, name):
    made = tmp_path / name
    made.mkdir()
    return made


async def whole(store):
    """Everything that can be asked of a store, for comparing two."""
    found = await store.recover()
    jobs = await store.jobs(99, None)
    details = [
        (await store.job(job.number), await store.logs(job.number, 0, 99), await store.results.timeline(job.number))
        for job in jobs
    ]
    tokens = {board: token % TOKENS_AHEAD for board, token in found.tokens.items()}
    return found.jobs, tokens, found.outcomes, found.holders, found.answers, found.boots, found.other_boots, details


async def of_sqlite(where):
    store = await JobStore.open(where)
    try:
        return await whole(store)
    finally:
        await store.close()


async def of_postgresql(place):
    """Brought up to date and read by a leader; and its counters go on where the rows end."""
    async with asyncio.timeout(60):
        leader = await win(place, "broker", asyncio.Event())
    store = JobStore(await PostgresqlEngine.open(place, MIGRATIONS, leader.epoch, leader.leads))
    try:
        found = await whole(store)
        await store.commit([SaveLog(3, 1, WorkLog(job="job-3", token=1, seq=0, text="on"))], [])
        number = await store._store.run(
            lambda db: db.execute(
                "INSERT INTO boots (board, took_s, at) VALUES (?, ?, ?) RETURNING number", ("b9", 1.5, "x")
            ).fetchone()[0]
        )
        before = await store._store.run(lambda db: db.execute("SELECT count(*) FROM boots").fetchone()[0])
        assert number == before
        return found
    finally:
        await store.close()
        await leader.resign()


@pytest.mark.parametrize("version", VERSIONS)
async def test_from_each_version_through_both_engines_and_back(tmp_path, postgresql, version):
    old, new = folder(tmp_path, "old"), folder(tmp_path, "new")
    stored(old, version)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl.gz"
    made = backup_sqlite(old, first)
    assert (made.schema, made.rows["jobs"], read_header(first).schema) == (version, 3, version)
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    place = Place(postgresql.new_schema())
    assert restore_postgresql(place, first) == made
    again = backup_postgresql(place, second)
    assert again == made
    assert restore_sqlite(new, second) == made
    wanted = await of_sqlite(old)
    assert await of_sqlite(new) == wanted
    assert await of_postgresql(place) == wanted


async def test_while_the_broker_writes(tmp_path):
    """One moment's state: the log is never ahead of what was committed with it."""
    store = await JobStore.open(tmp_path)
    await store.commit([SaveJob(Job(1, SPEC, NOW))], [])

    async def write():
        for seq in range(300):
            log = SaveLog(1, 1, WorkLog(job="job-1", token=1, seq=seq, text="x"))
            await store.commit([SaveToken("b1", seq + 1), log], [])

    writing = asyncio.create_task(write())
    made = [await asyncio.to_thread(backup_sqlite, tmp_path, tmp_path / f"{n}.jsonl") for n in range(3)]
    await writing
    await store.close()
    for number, one in enumerate(made):
        where = folder(tmp_path, f"r{number}")
        restore_sqlite(where, tmp_path / f"{number}.jsonl")
        _, tokens, *_ = await of_sqlite(where)
        assert tokens.get("b1", 0) == one.rows["log_chunks"]


def test_tokens_go_on_above_those_that_were_given_out_since(tmp_path):
    stored(tmp_path, 1)
    backup_sqlite(tmp_path, tmp_path / "b.jsonl")
    restore_sqlite(folder(tmp_path, "new"), tmp_path / "b.jsonl")
    with contextlib.closing(sqlite3.connect(tmp_path / "new" / STORE_FILE)) as db:
        assert dict(db.execute("SELECT board, token FROM tokens")) == {"b1": 7 + TOKENS_AHEAD, "b2": 3 + TOKENS_AHEAD}


def test_there_must_be_no_store_yet(tmp_path, postgresql):
    stored(tmp_path, 1)
    file = tmp_path / "b.jsonl"
    backup_sqlite(tmp_path, file)
    with pytest.raises(BackupError, match="is there already"):
        restore_sqlite(tmp_path, file)
    place = Place(postgresql.new_schema())
    restore_postgresql(place, file)
    with pytest.raises(BackupError, match="holds a store already"):
        restore_postgresql(place, file)
    with held(folder(tmp_path, "busy"), "broker"), pytest.raises(DaemonError, match="another broker runs"):
        restore_sqlite(tmp_path / "busy", file)


def test_there_must_be_a_store_to_back_up(tmp_path, postgresql):
    with pytest.raises(BackupError, match="state_dir"):
        backup_sqlite(tmp_path, tmp_path / "b.jsonl")
    sqlite3.connect(tmp_path / STORE_FILE).close()
    with pytest.raises(BackupError, match="holds no store"):
        backup_sqlite(tmp_path, tmp_path / "b.jsonl")
    with pytest.raises(BackupError, match="holds no store"):
        backup_postgresql(Place(postgresql.new_schema()), tmp_path / "b.jsonl")
    with pytest.raises(BackupError, match="No such file"):
        backup_postgresql(Place(f"postgresql://u@/d?host={tmp_path}"), tmp_path / "b.jsonl")
    stored(folder(tmp_path, "good"), 1)
    with pytest.raises(BackupError, match="cannot be written"):
        backup_sqlite(tmp_path / "good", tmp_path / "nowhere" / "b.jsonl")
    assert not list(tmp_path.glob("b.jsonl*"))


def without_end(data):
    return data[: data.rindex(b"\n", 0, -1) + 1]


def changed(data):
    return data.replace(b"make check", b"rm -rf /  ", 1)


BAD = {
    "its end is missing": without_end,
    "checksum does not fit": changed,
    "is no line of a backup": lambda data: data[:-20],
    "is no backup": lambda data: b"{}\n" + data,
    "this boardhand knows": lambda data: data.replace(b'"schema":1', b'"schema":999', 1),
    "is not of schema": lambda data: data.replace(b'"table":"tokens"', b'"table":"token"', 1),
    "no row of a table": lambda data: data.replace(b'["b1",7]', b'["b1"]', 1),
}


@pytest.mark.parametrize("why", BAD)
def test_a_damaged_backup_changes_nothing(tmp_path, postgresql, why):
    stored(tmp_path, 1)
    file, bad = tmp_path / "b.jsonl", tmp_path / "bad.jsonl"
    backup_sqlite(tmp_path, file)
    bad.write_bytes(BAD[why](file.read_bytes()))
    where = folder(tmp_path, "new")
    with pytest.raises(BackupError, match=why):
        restore_sqlite(where, bad)
    assert {path.name for path in where.iterdir()} <= {"broker.lock"}
    place = Place(postgresql.new_schema())
    with pytest.raises(BackupError, match=why):
        restore_postgresql(place, bad)
    assert restore_postgresql(place, file).rows["jobs"] == 3


def test_a_packed_backup_that_is_not_whole(tmp_path):
    stored(tmp_path, 1)
    file = tmp_path / "b.jsonl.gz"
    backup_sqlite(tmp_path, file)
    assert gzip.decompress(file.read_bytes()).count(b"\n") == 20
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(BackupError, match="cannot be read"):
        restore_sqlite(folder(tmp_path, "new"), file)
    file.write_bytes(b"no gzip")
    with pytest.raises(BackupError, match="cannot be read"):
        restore_sqlite(tmp_path / "new", file)


def boardhand(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_commands(tmp_path, postgresql):
    stored(tmp_path, 1)
    file, settings = tmp_path / "b.jsonl", tmp_path / "farm.toml"
    settings.write_text(f'[broker]\nstate_dir = "{tmp_path}"\nstore = "{postgresql.new_schema()}"\n')
    done = boardhand("backup", file, "--state-dir", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "backed up: 3 jobs" in done.stdout
    done = boardhand("restore", file, "--settings", settings, "--json")
    assert (done.returncode, json.loads(done.stdout)["rows"]["jobs"]) == (0, 3), done.stderr
    again = boardhand("restore", file, "--settings", settings)
    assert again.returncode == 1 and "holds a store already" in again.stderr
    back = boardhand("backup", tmp_path / "c.jsonl", "--settings", settings)
    assert back.returncode == 0 and "3 jobs" in back.stdout
    assert boardhand("backup", file).returncode == 2
    settings.write_text('[broker]\nstore = "postgresql://u:geheim@h/d"\n')
    refused = boardhand("backup", file, "--settings", settings)
    assert refused.returncode == 2 and "store_password_file" in refused.stderr and "geheim" not in refused.stderr
