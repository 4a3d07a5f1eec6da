"""The store in a real PostgreSQL: dialect, fencing, leadership, faults."""

import asyncio
import contextlib
import itertools
import os
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from broker.happenings import SaveAttempt, SaveJob, SaveLog, SaveToken
from broker.jobs.life import Job, JobEvent
from broker.jobs.spec import parse_job
from broker.jobs.store import Answer, JobStore
from broker.settings import read_settings
from broker.store import leadership
from broker.store.leadership import win
from broker.store.postgresql_connection import Place, Translated
from broker.store.postgresql_engine import PostgresqlEngine
from broker.store.schema import MIGRATIONS
from broker.store.sql import LeadershipLostError, StoreUnavailableError
from daemon.foreground import DaemonError
from daemon.store import StoreError
from tests.broker.postgresql_server import PostgresqlServer
from tests.free_ports import free_port
from wire.payloads import WorkLog

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = parse_job("name: a\nsteps: [b]\n")
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def server():
    server = PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.cleanup()


@pytest.fixture
def place(server):
    """A schema of its own for each test."""
    return Place(server.new_schema())


@pytest.fixture
async def lead(place):
    """`await lead()` wins the leadership; all is let go of at the end."""
    made = []

    async def lead(name="broker"):
        async with asyncio.timeout(20):
            leader = await win(place, name, asyncio.Event())
        made.append(leader)
        return leader

    yield lead
    for leader in made:
        await leader.resign()


@pytest.fixture
async def open_store(place):
    made = []

    async def open_store(leader, migrations=MIGRATIONS):
        engine = await PostgresqlEngine.open(place, migrations, leader.epoch, leader.leads)
        made.append(engine)
        return JobStore(engine)

    yield open_store
    for engine in made:
        await engine.close()


# --- the store -------------------------------------------------------------------------------------------------


async def test_values_that_only_one_of_the_two_can_hold(lead, open_store):
    store = await open_store(await lead())
    await store.commit([SaveJob(Job(1, SPEC, NOW))], [Answer("submit", "t", b"\x00\xff%s")])
    texts = ["a\0b", "%s %(p1)s %", "':; DROP TABLE jobs; --", "\\x00 \\", "é\U0001f600"]
    for seq, text in enumerate(texts):
        await store.commit([SaveLog(1, 1, WorkLog(job="job-1", token=1, seq=seq, text=text))], [])
    assert [chunk.text for chunk in await store.logs(1, 0, 99)] == ["a\N{REPLACEMENT CHARACTER}b", *texts[1:]]
    assert (await store.recover()).answers == [Answer("submit", "t", b"\x00\xff%s")]


async def test_nothing_of_a_failed_transaction_stays(lead, open_store):
    store = await open_store(await lead())
    with pytest.raises(psycopg.IntegrityError):
        await store.commit([SaveJob(Job(1, SPEC, NOW)), SaveAttempt(99, 1, "b1", 1, NOW)], [])
    assert (await store.recover()).jobs == []


async def test_retention(lead, open_store):
    store = await open_store(await lead())
    for number in range(1, 31):
        job = Job(number, SPEC, NOW)
        if number != 2:
            job.step(JobEvent.CANCEL)
        await store.commit([SaveJob(job), SaveLog(number, 1, WorkLog(job="j", token=1, seq=0, text="x"))], [])
    await store.forget_jobs(10)
    assert [job.number for job in await store.jobs(99, None)] == [*range(30, 20, -1), 2]
    assert await store.logs(20, 0, 5) == []
    assert (await store.recover()).next_number == 31


async def test_a_newer_schema_is_not_touched(lead, open_store):
    leader = await lead()
    await open_store(leader)
    with pytest.raises(StoreError, match="start the newer one"):
        await open_store(leader, MIGRATIONS[:-1])


async def test_each_version_is_brought_up_to_date(lead, open_store):
    leader = await lead()
    for version in range(1, len(MIGRATIONS) + 1):
        store = await open_store(leader, MIGRATIONS[:version])
    assert (await store.recover()).next_number == 1


async def test_read_only_and_full_are_told_and_leave_nothing(server, place, lead, open_store):
    store = await open_store(await lead())
    server.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    server.sql("SELECT pg_reload_conf()")
    try:
        async with asyncio.timeout(10):
            while True:  # the server reads its settings again in its own time
                try:
                    await store.commit([SaveToken("b1", 7)], [])
                except StoreUnavailableError as error:
                    told = str(error)
                    break
    finally:
        server.sql("ALTER SYSTEM RESET default_transaction_read_only")
        server.sql("SELECT pg_reload_conf()")
    assert "read-only" in told
    async with asyncio.timeout(10):
        while True:
            try:
                await store.commit([SaveToken("b1", 8)], [])
                break
            except StoreUnavailableError:
                await asyncio.sleep(0.01)
    full = (
        "CREATE FUNCTION {s}.refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE 'no space left on device' USING ERRCODE = 'disk_full'; END$$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON {s}.jobs FOR EACH ROW EXECUTE FUNCTION {s}.refuse()"
    )
    server.sql(full.format(s=server.schema_of(place.url)))
    with pytest.raises(StoreUnavailableError, match="no space left"):
        await store.commit([SaveToken("b1", 9), SaveJob(Job(1, SPEC, NOW))], [])
    assert (await store.recover()).tokens == {"b1": 8}


# --- who leads -------------------------------------------------------------------------------------------------


async def test_one_leads_and_the_next_when_it_resigns(place, lead):
    first = await lead()
    second = asyncio.create_task(lead())
    await asyncio.sleep(0)
    assert first.leads() and not second.done()
    await first.resign()
    assert (await second).epoch == first.epoch + 1


async def test_who_led_before_commits_nothing_and_says_nothing(lead, open_store):
    """As after a partition: it does not know yet, and its own connection is whole."""
    first = await lead()
    old = await open_store(type("Believes", (), {"epoch": first.epoch, "leads": staticmethod(lambda: True)}))
    await old.commit([SaveToken("b1", 1)], [])
    await old.fence()
    await first.resign()
    second = await lead()
    new = await open_store(second)
    for attempt in (old.commit([SaveToken("b1", 2)], []), old.fence(), old.recover()):
        with pytest.raises(LeadershipLostError):
            await attempt
    assert (await new.recover()).tokens == {"b1": 1}


async def test_no_epoch_begins_inside_a_transaction_of_the_leader(place, lead, open_store):
    first = await lead()
    engine = (await open_store(first))._store
    inside, go_on = threading.Event(), threading.Event()

    def slow(connection):
        inside.set()
        assert go_on.wait(60)
        connection.execute("INSERT INTO tokens VALUES ('b1', 5)")

    work = asyncio.create_task(engine.run(slow))
    await asyncio.to_thread(inside.wait, 60)
    await first.resign()
    second = asyncio.create_task(lead())
    done, _ = await asyncio.wait({second}, timeout=0.7)
    assert not done, "it leads while the other one writes"
    go_on.set()
    await work
    store = await open_store(await second)
    assert (await store.recover()).tokens == {"b1": 5}


async def test_the_leader_knows_at_once_that_its_connection_is_gone(server, lead, open_store):
    leader = await lead()
    store = await open_store(leader)
    server.sql(f"SELECT pg_terminate_backend({leader._connection.info.backend_pid})")
    async with asyncio.timeout(1):
        await leader.lost.wait()
    assert not leader.leads()
    with pytest.raises(LeadershipLostError):
        await store.commit([SaveToken("b1", 1)], [])


async def test_a_hanging_leader_is_ended_by_those_who_wait(lead, monkeypatch):
    monkeypatch.setattr(leadership, "STALE_S", 1.0)
    first = await lead()
    first._watcher.cancel()  # its beat stops; its connection stays
    await asyncio.gather(first._watcher, return_exceptions=True)
    second = await lead()
    assert second.epoch == first.epoch + 1 and second.leads()


@contextlib.contextmanager
def standing_still(process):
    """A server that neither answers nor hangs up."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def test_a_server_that_does_not_answer_is_as_good_as_gone(lead, monkeypatch):
    monkeypatch.setattr(leadership, "BEAT_S", 0.05)
    monkeypatch.setattr(leadership, "BEAT_TIMEOUT_S", 0.2)
    leader = await lead()
    with standing_still(leader._connection.info.backend_pid):
        async with asyncio.timeout(60):
            await leader.lost.wait()
            await leader.resign()  # its thread, too, comes back
    assert "did not answer" in leader.why


async def test_a_store_is_closed_while_a_transaction_hangs(lead, open_store, monkeypatch):
    monkeypatch.setattr("broker.store.postgresql_engine.CLOSE_S", 0.1)
    store = await open_store(await lead())
    with standing_still(store._store._connection.info.backend_pid):
        work = asyncio.create_task(store.commit([SaveToken("b1", 1)], []))
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
            await store.close()
            with pytest.raises(LeadershipLostError):
                await work


async def test_brokers_of_one_store_need_one_name(place, lead):
    await lead("north")
    with pytest.raises(DaemonError, match="north leads"):
        await win(place, "south", asyncio.Event())


async def test_waiting_for_the_lock_ends_when_told(place, lead):
    await lead()
    stop = asyncio.Event()
    waiting = asyncio.create_task(win(place, "broker", stop))
    stop.set()
    assert await waiting is None


async def test_a_server_that_is_away_is_waited_for(tmp_path):
    stop = asyncio.Event()
    waiting = asyncio.create_task(win(Place(f"postgresql://u@/d?host={tmp_path}"), "broker", stop))
    done, _ = await asyncio.wait({waiting}, timeout=0.3)
    assert not done
    stop.set()
    assert await waiting is None


async def test_kill_9_of_postgresql_in_the_middle(lead, open_store, place):
    """What was committed is there; what was under way is not known, and its broker leads no more."""
    own = PostgresqlServer()
    try:
        own.start()
        where = Place(own.new_schema())
        async with asyncio.timeout(20):
            leader = await win(where, "broker", asyncio.Event())
        store = JobStore(await PostgresqlEngine.open(where, MIGRATIONS, leader.epoch, leader.leads))
        committed, enough = 0, asyncio.Event()

        async def write():
            nonlocal committed
            for number in itertools.count(1):
                await store.commit([SaveToken("b1", number)], [])
                committed = number
                if committed == 20:
                    enough.set()

        writing = asyncio.create_task(write())
        await enough.wait()
        await asyncio.to_thread(own.kill)
        async with asyncio.timeout(10):
            with pytest.raises(LeadershipLostError):
                await writing
            await leader.lost.wait()
        await store.close()
        await leader.resign()
        await asyncio.to_thread(own.start)
        async with asyncio.timeout(20):
            again = await win(where, "broker", asyncio.Event())
        store = JobStore(await PostgresqlEngine.open(where, MIGRATIONS, again.epoch, again.leads))
        assert (await store.recover()).tokens["b1"] in {committed, committed + 1}
        await store.close()
        await again.resign()
    finally:
        own.cleanup()


async def test_over_tcp_with_a_password(tmp_path):
    port = free_port()
    own = PostgresqlServer(tcp_port=port)
    secret = tmp_path / "secret"
    secret.write_text("geheim\n")
    try:
        own.start()
        own.sql("ALTER ROLE boardhand PASSWORD 'geheim'")
        url = f"postgresql://boardhand@127.0.0.1:{port}/postgres"
        async with asyncio.timeout(20):
            leader = await win(Place(url, secret), "broker", asyncio.Event())
        store = JobStore(await PostgresqlEngine.open(Place(url, secret), MIGRATIONS, leader.epoch, leader.leads))
        await store.commit([SaveToken("b1", 1)], [])
        row = store._store._connection.execute("SHOW tcp_keepalives_idle").fetchone()
        assert row[0] == "5"
        await store.close()
        await leader.resign()
        secret.write_text("falsch\n")
        with pytest.raises(StoreUnavailableError, match="password authentication failed"):
            Place(url, secret).connect()
    finally:
        own.cleanup()


async def test_a_role_that_may_make_no_tables(server, place):
    schema = server.schema_of(place.url)
    server.sql(f"CREATE ROLE guest{schema} LOGIN; GRANT USAGE ON SCHEMA {schema} TO guest{schema}")
    guest = Place(place.url.replace("boardhand@", f"guest{schema}@"))
    with pytest.raises(DaemonError, match="permission denied"):
        await win(guest, "broker", asyncio.Event())
    with pytest.raises(DaemonError, match="no schema"):
        await win(Place(place.url.replace(schema, "nowhere")), "broker", asyncio.Event())


def test_the_example_in_the_documentation(tmp_path):
    page = (Path(__file__).parents[2] / "docs/store.md").read_text()
    settings = tmp_path / "farm.toml"
    settings.write_text(page.split("```toml\n")[1].partition("```")[0])
    table = read_settings(settings).broker
    assert (table.store, table.store_password_file.name) == (
        "postgresql://boardhand@db.example.org/boardhand",
        "store-password",
    )


def test_rows_have_names_and_positions(place):
    with place.connect() as connection:
        row = Translated(connection).execute("SELECT 1 AS a, 'x' AS b").fetchone()
        assert (row[0], row["b"], dict(row), tuple(row)) == (1, "x", {"a": 1, "b": "x"}, (1, "x"))


def test_the_password_comes_from_a_file_and_is_never_shown(tmp_path):
    secret = tmp_path / "secret"
    with pytest.raises(StoreUnavailableError, match="No such file"):
        Place("postgresql://u@127.0.0.1:1/d", secret).connect()
    secret.write_text("geheim\n")
    with pytest.raises(StoreUnavailableError) as caught:
        Place("postgresql://u@127.0.0.1:1/d", secret).connect()
    assert "geheim" not in str(caught.value) and "geheim" not in repr(Place("postgresql://u@h/d", secret))
