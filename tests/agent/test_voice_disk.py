"""What the agent says while its disk takes nothing: an event that was said is to be forgotten, which is a write."""

import asyncio
import sqlite3
import time
from datetime import UTC, datetime

import pytest

from agent import voice as voices
from agent.memory import MIGRATIONS
from agent.outbox import NewEvent, Outbox
from agent.voice import Voice
from daemon.store import Store
from wire.phases import EventType

PATIENCE_S = 30.0


class Link:
    def __init__(self):
        self.said = []

    async def publish(self, topic, payload, *, retain):
        self.said.append((topic, payload, retain))


@pytest.fixture
async def store(tmp_path):
    store = await Store.open(tmp_path / "agent.db", MIGRATIONS)
    yield store
    await store.close()


async def until(what):
    end = time.monotonic() + PATIENCE_S
    while not await what():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_events_that_cannot_be_forgotten_are_said_once_and_all_else_goes_on(store, monkeypatch):
    monkeypatch.setattr(voices, "DISK_PAUSE_S", 0.2)
    outbox = Outbox(store, agent="lab", session=1, max_events=1000)
    voice = Voice(outbox, lambda board: f"event/{board}")
    voice.link = link = Link()
    voice.retain("state", b"online")

    def append(number):
        return outbox.append([NewEvent("pi", EventType.POWER, {"n": number})], datetime.now(UTC))

    def said(topic):
        return [payload for name, payload, _ in link.said if name == topic]

    async def has_said(topic, payload):
        return payload in said(topic)

    async def count(number):
        return len(said("event/pi")) == number

    async def nothing_waits():
        return not await outbox.waiting(10)

    await append(1)

    async def full(_id):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(outbox, "sent", full)
    speaking = asyncio.create_task(voice.run())
    await voice.greet("state")
    await until(lambda: count(1))
    # State and answers are not held up, through several attempts to forget.
    for number in range(5):
        voice.retain("board", str(number).encode())
        voice.say("answer", str(number).encode())
        await until(lambda number=number: has_said("answer", str(number).encode()))
        await asyncio.sleep(0.1)
    assert not speaking.done()
    assert len(said("event/pi")) == 1
    monkeypatch.delattr(outbox, "sent")
    await append(2)
    voice.event_stored()
    await until(lambda: count(2))
    await until(nothing_waits)
    assert len(said("event/pi")) == 2
    speaking.cancel()
    await asyncio.gather(speaking, return_exceptions=True)
