import json

import pytest

from broker.happenings import Note, Reply, SaveToken
from broker.inbox import read_message
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

    async def publish(self, topic, payload, *, retain=False):
        self.said.append((topic, payload))


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
