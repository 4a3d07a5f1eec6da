import sqlite3

import pytest

from broker.happenings import Note, Reply, SaveToken
from broker.inbox import read_message
from broker.service import Broker, BrokerError
from broker.settings import BrokerSettings, BrokerTable, read_settings
from daemon.mqtt_link import Message


@pytest.fixture
def broker(tmp_path):
    return Broker(BrokerSettings(broker=BrokerTable(state_dir=tmp_path)))


class FullDisk:
    async def commit(self, saved, answers):
        raise sqlite3.OperationalError("database or disk is full")


class Ear:
    connected = True

    def __init__(self):
        self.said = []

    async def publish(self, topic, payload, *, retain=False):
        self.said.append(topic)


async def test_what_cannot_be_committed_is_not_said(broker, tmp_path):
    broker._store, broker._link = FullDisk(), Ear()
    with pytest.raises(BrokerError, match="disk is full; make room"):
        await broker._commit_and_send([SaveToken("b1", 1), Reply("submit t", {"job": "job-1"}), Note("n")], [])
    assert broker._link.said == []


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
