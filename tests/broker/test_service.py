import asyncio
import json

import pytest

from broker.happenings import Note, Reply, SaveToken
from broker.inbox import read_message, subscriptions
from broker.jobs.artifact_store import ArtifactStore
from broker.service import Broker
from broker.settings import BrokerSettings, BrokerTable, read_settings
from broker.store.committing import Committer
from broker.store.sql import StoreUnavailableError
from daemon.mqtt_link import Message


@pytest.fixture
def broker(tmp_path):
    return Broker(BrokerSettings(broker=BrokerTable(state_dir=tmp_path)))


class FullDisk:
    """Full at first; then somebody has made room."""

    def __init__(self, times):
        self.times, self.committed = times, []

    async def commit(self, saved, answers, artifacts, removed):
        self.times -= 1
        if self.times >= 0:
            raise StoreUnavailableError("database or disk is full")
        self.committed += [*saved, *answers]


class Ear:
    connected = True

    def __init__(self):
        self.said = []

    def hand_over(self, topic, payload, *, retain=False):
        self.said.append((topic, payload))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


async def test_what_cannot_be_committed_is_not_said_and_new_jobs_are_refused(broker, tmp_path, monkeypatch):
    monkeypatch.setattr("broker.store.committing.RETRY_S", 0.01)
    store, broker._link = FullDisk(3), Ear()
    broker._committer = Committer(store, ArtifactStore(tmp_path, 1), tmp_path)
    request = {"transaction": "t2", "data": {"yaml": "name: a\nsteps: [b]"}}
    broker._received(Message("boardhand/broker/request/submit", json.dumps(request).encode(), retain=False))
    reserve = {"transaction": "t3", "data": {"holder": "alice", "board": "b1", "wait": True}}
    broker._received(Message("boardhand/broker/request/reserve", json.dumps(reserve).encode(), retain=False))
    broker._received(Message("boardhand/board/b1/state", b"", retain=False))
    working = broker._commit_and_send([SaveToken("b1", 1), Reply("submit t1", {"job": "job-1"}), Note("n")], [])
    await working
    (refused, told), (_, no_lease), (answered, _) = broker._link.said
    assert json.loads(no_lease)["error"]["kind"] == "busy"
    assert refused == answered == "boardhand/broker/response/submit"
    error = json.loads(told)
    assert (error["transaction"], error["ok"], error["error"]["kind"]) == ("t2", False, "busy")
    assert "cannot be written: database or disk is full; make room there" in error["error"]["message"]
    assert len(store.committed) == 2
    assert [message.topic for message in broker._kept] == ["boardhand/board/b1/state"]


async def test_a_defect_in_reading_costs_one_message(broker, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("broker.service.read_message", broken)
    assert broker._read(Message("t", b"", retain=False)) is None
    assert "because of a defect of the broker" in caplog.text
    monkeypatch.setattr("broker.service.read_message", read_message)
    assert broker._read(Message("t", b"", retain=False)) is None


async def test_a_flood_is_dropped_and_counted(broker, monkeypatch):
    for _ in range(50_010):
        broker._received(Message("t", b"", retain=False))
    assert broker._dropped == 10


def test_settings_of_a_shared_file(tmp_path):
    path = tmp_path / "farm.toml"
    path.write_text('[agent]\nname = "x"\n[boards.b1]\nfeed = ["a:1"]\n[broker]\nidle_s = 7\n')
    assert read_settings(path).broker.policy().idle_s == 7


class Line:
    """What the broker listens to, as it changes."""

    def __init__(self):
        self.heard = []

    async def listen_to(self, topics):
        self.heard.append(set(topics))

    async def publish(self, topic, payload, *, retain=False):
        pass


async def test_leases_are_listened_to_until_the_picture_is_whole(tmp_path):
    """Afterwards they would be the echo of our own words."""
    broker = Broker(BrokerSettings(broker=BrokerTable(state_dir=tmp_path, settle_s=0.01)))
    broker._link = line = Line()
    for _ in range(2):  # at every connect anew
        await broker._connected()
    whole = set(subscriptions(broker._topics))
    rest = whole - {"boardhand/board/+/lease"}
    assert len(rest) == len(whole) - 1
    assert line.heard == [whole, rest, whole, rest]


async def test_a_farm_that_never_falls_silent_is_listened_to_whole(tmp_path, monkeypatch):
    """What was not heard in time is heard later: a store that was lost learns of tokens."""
    monkeypatch.setattr("broker.service.SETTLE_MAX_S", 0.0)
    broker = Broker(BrokerSettings(broker=BrokerTable(state_dir=tmp_path)))
    broker._link = line = Line()
    await broker._connected()
    assert line.heard == [set(subscriptions(broker._topics))]


async def test_nothing_is_waited_for_between_the_commit_and_our_words(broker):
    """The commit sees that this broker leads; what it says long after that might be another one's to say."""
    order = []

    class Store:
        async def commit(self, *_args, **_how):
            order.append("committed")

    broker._link, broker._committer = Ear(), Store()
    unacknowledged = asyncio.get_running_loop().create_future()
    broker._sender._acks = {unacknowledged: "before"}
    working = asyncio.create_task(broker._commit_and_send([Reply("submit t1", {"job": "job-1"})], []))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (order, broker._link.said) == ([], [])
    unacknowledged.set_result(None)
    await working
    assert (order, len(broker._link.said)) == (["committed"], 1)
