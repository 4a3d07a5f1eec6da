"""Two brokers as processes on one PostgreSQL and one MQTT server: whatever is killed, every job ends exactly once."""

import asyncio
import contextlib
import re
import signal

import pytest

from broker.store import postgresql_engine
from broker.store.leader_table import FENCE, LEAD
from broker.store.leadership import win
from broker.store.postgresql_connection import Place, errors_told
from broker.store.sql import LeadershipLostError
from tests import stalls
from tests.broker.live import BrokerProcess, LiveFarm, Server
from tests.broker.postgresql_server import PostgresqlServer
from wire.payloads import BrokerState, ErrorInfo, Request, Response, decode, encode
from wire.phases import ErrorKind, Presence

PATIENCE_S = 60.0
TAKEOVER_S = 13.0
"""A second where the machine has time for it."""
END_LEADERSHIP = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks"  # noqa: S608  # a number of ours
    f" WHERE locktype = 'advisory' AND granted AND classid = {LEAD}::oid"
)
BOARDS = ("b1", "b2", "b3", "b4")


@pytest.fixture(scope="module")
def postgresql():
    server = PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.cleanup()


@pytest.fixture
async def server(tmp_path):
    server = Server(tmp_path)
    await server.start()
    yield server
    server.stop()


@pytest.fixture
async def farm(server):
    async with LiveFarm(server.port, BOARDS) as farm:
        yield farm


class Cluster:
    """Two brokers, each with a state folder and a log of its own."""

    def __init__(self, folder, port, url):
        self.brokers = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            self.brokers.append(BrokerProcess(folder / name, port, store=f'"{url}"', idle_s=0, booting_cap=4))

    def start(self):
        for broker in self.brokers:
            broker.start()

    async def leader(self, epoch):
        """The broker that leads this epoch. A silent leader is ended after 15 s, and a busy machine needs some more."""
        async with asyncio.timeout(2 * PATIENCE_S):
            while True:
                for broker in self.brokers:
                    if f"leading, epoch {epoch}\n" in text_of(broker):
                        return broker
                await asyncio.sleep(0.02)

    async def says(self, broker, what):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if what in text_of(broker):
                    return
                await asyncio.sleep(0.02)

    def cleanup(self):
        for broker in self.brokers:
            broker.cleanup()


def text_of(broker):
    return broker.log.read_text() if broker.log.exists() else ""


@pytest.fixture
async def make_cluster(tmp_path, server):
    made = []

    def make(url):
        made.append(Cluster(tmp_path, server.port, url))
        made[-1].start()
        return made[-1]

    yield make
    for cluster in made:
        cluster.cleanup()
        for broker in cluster.brokers:
            assert "Traceback" not in text_of(broker), text_of(broker)


async def insist(farm, verb, data, transaction):
    """As the command line does when a broker goes away: the same request again, until it is answered."""
    topic = farm.topics.broker_response(verb)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await farm.say(farm.topics.broker_request(verb), encode(Request(transaction=transaction, data=data)))

            def answered():
                answers = (decode(Response, payload) for payload in farm.payloads(topic))
                return next((a for a in answers if a.transaction == transaction), None)

            with contextlib.suppress(AssertionError):
                return await farm.until("an answer", answered, 1.0)


async def submit(farm, number):
    answer = await insist(farm, "submit", {"yaml": f"name: j{number}\nsteps: [make]\n"}, f"storm-{number}")
    assert answer.ok, answer.error
    return answer.data["job"]


async def storm(farm, jobs):
    return await asyncio.gather(*(submit(farm, number) for number in range(jobs)))


async def all_ended_once(farm, jobs):
    for job in jobs:
        await farm.until(f"{job} passed", lambda job=job: any(s.state == "passed" for s in farm.summaries(job)))
    assert len(set(jobs)) == len(jobs)
    runs = [run[0] for board in farm.boards.values() for run in board.runs]
    assert sorted(runs) == sorted(jobs), "a job was run twice, or one that nobody knows"
    for job in jobs:
        attempts = (await insist(farm, "job", {"job": job}, f"look-{job}")).data["attempts"]
        assert [a["result"] for a in attempts].count("passed") == 1
    shown = await insist(farm, "jobs", {"limit": 100}, "look-all")
    assert len(shown.data["jobs"]) == len(jobs)


def broker_states(farm):
    return [decode(BrokerState, payload) for payload in farm.payloads(farm.topics.broker_state())]


def sessions_of(farm):
    """Of the brokers that came online, in the order in which they did."""
    return list(dict.fromkeys(said.session for said in broker_states(farm) if said.state is Presence.ONLINE))


async def test_the_leader_is_killed_in_a_storm(farm, make_cluster, postgresql):
    cluster = make_cluster(postgresql.new_schema())
    await cluster.leader(1)
    await farm.broker_state("online")
    storming = asyncio.create_task(storm(farm, 40))
    for epoch in (1, 2, 3):
        leader = await cluster.leader(epoch)
        await farm.until("it is heard", lambda e=epoch: len(sessions_of(farm)) == e)
        await farm.until("some runs", lambda e=epoch: sum(len(b.runs) for b in farm.boards.values()) >= 6 * e)
        with stalls.watch() as took:
            if epoch == 2:
                # An administrator, or a firewall: the process lives on, and the store stays where it was.
                postgresql.sql(END_LEADERSHIP)
                await cluster.leader(epoch + 1)
            else:
                leader.kill()
                await cluster.leader(epoch + 1)
            assert took() < TAKEOVER_S
        if leader.process is None:
            leader.start()
    jobs = await storming
    await all_ended_once(farm, jobs)
    await farm.until("the last one", lambda: len(sessions_of(farm)) == 4)
    assert sessions_of(farm) == sorted(sessions_of(farm))


async def test_postgresql_is_killed_in_a_storm(farm, make_cluster):
    own = PostgresqlServer()
    try:
        own.start()
        cluster = make_cluster(own.new_schema())
        await cluster.leader(1)
        await farm.broker_state("online")
        storming = asyncio.create_task(storm(farm, 24))
        await farm.until("some runs", lambda: sum(len(b.runs) for b in farm.boards.values()) >= 6)
        await asyncio.to_thread(own.kill)
        # Without its store the broker takes nothing, and says so.
        await farm.broker_state("offline")
        await asyncio.to_thread(own.start)
        await cluster.leader(2)
        await all_ended_once(farm, await storming)
        for broker in cluster.brokers:
            assert broker.kill(signal.SIGTERM) == 0
    finally:
        own.cleanup()


async def test_a_frozen_leader_comes_back_and_changes_nothing(farm, make_cluster, postgresql):
    """SIGSTOP: its lock is held by a connection that is whole; those who wait end it by hand here, in 15 s by
    themselves. When it goes on it is nobody."""
    cluster = make_cluster(postgresql.new_schema())
    leader = await cluster.leader(1)
    await farm.broker_state("online")
    farm.hold.add("run")
    jobs = [await submit(farm, number) for number in range(4)]
    for job in jobs:
        await farm.job_is(job, "running")
    leader.process.send_signal(signal.SIGSTOP)
    try:
        postgresql.sql(END_LEADERSHIP)
        other = await cluster.leader(2)
        assert other is not leader
        await farm.until(
            "a second session",
            lambda: broker_states(farm)[-1].state is Presence.ONLINE and broker_states(farm)[-1].session == 2,
        )
    finally:
        leader.process.send_signal(signal.SIGCONT)
    await cluster.says(leader, "leading no more")
    farm.hold.clear()
    await all_ended_once(farm, jobs)
    assert broker_states(farm)[-1].session == 2 and broker_states(farm)[-1].state is Presence.ONLINE


async def test_a_transaction_that_a_frozen_leader_left_open_keeps_nobody_out(postgresql, monkeypatch):
    monkeypatch.setattr(postgresql_engine, "OPEN_TRANSACTION_MS", 300)
    place = Place(postgresql.new_schema())
    frozen = await asyncio.to_thread(postgresql_engine.connect_to_write, place)
    await asyncio.to_thread(frozen.execute, f"BEGIN; {FENCE}")
    try:
        async with asyncio.timeout(PATIENCE_S):
            leader = await win(place, "broker", asyncio.Event())
        await leader.resign()
        with pytest.raises(LeadershipLostError, match="idle-in-transaction"), errors_told(frozen):
            frozen.execute("COMMIT")
    finally:
        frozen.close()


async def test_a_store_that_is_read_only_refuses_new_jobs_and_loses_none(farm, make_cluster, postgresql):
    url = postgresql.new_schema()
    cluster = make_cluster(url)
    await cluster.leader(1)
    await farm.broker_state("online")
    farm.hold.add("run")
    running = await submit(farm, 0)
    await farm.job_is(running, "running")
    postgresql.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    postgresql.sql("SELECT pg_reload_conf()")
    try:
        refused: ErrorInfo | None = None
        for number in range(1, 100):
            await farm.say(
                farm.topics.broker_request("submit"),
                encode(Request(transaction=f"ro-{number}", data={"yaml": "name: x\nsteps: [make]\n"})),
            )
            found = [decode(Response, p) for p in farm.payloads(farm.topics.broker_response("submit"))]
            refused = next((a.error for a in found if a.error is not None), None)
            if refused is not None:
                break
            await asyncio.sleep(0.1)
        assert refused is not None and refused.kind is ErrorKind.BUSY and "read-only" in refused.message
        farm.hold.clear()
    finally:
        postgresql.sql("ALTER SYSTEM RESET default_transaction_read_only")
        postgresql.sql("SELECT pg_reload_conf()")
    await farm.job_is(running, "passed")
    assert await submit(farm, 0) == running
    shown = await insist(farm, "jobs", {"limit": 100}, "look-all")
    accepted = {
        a.data["job"] for p in farm.payloads(farm.topics.broker_response("submit")) if (a := decode(Response, p)).ok
    }
    assert accepted == {job["job"] for job in shown.data["jobs"]}
    assert not re.search("leading no more", "".join(text_of(broker) for broker in cluster.brokers))
