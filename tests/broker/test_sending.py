import asyncio
import logging

import pytest

from broker.outbox import Outgoing
from broker.sending import Sender
from daemon.mqtt_link import NotConnectedError, PublishRefusedError


class Link:
    """What was handed over, each with the future of its acknowledgement."""

    def __init__(self):
        self.connected, self.broken, self.said = True, False, []

    def hand_over(self, topic, payload, *, retain=False):
        if self.broken:
            raise NotConnectedError(f"{topic}: it broke")
        ack = asyncio.get_running_loop().create_future()
        self.said.append((topic, payload, retain, ack))
        return ack

    @property
    def topics(self):
        return [topic for topic, *_ in self.said]

    def acknowledge(self):
        for *_, ack in self.said:
            if not ack.done():
                ack.set_result(None)


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def sender():
    return Sender()


async def test_a_batch_waits_for_the_acknowledgements_of_the_one_before_and_not_for_its_own(link, sender):
    await sender.send(link, [Outgoing("a", b"1"), Outgoing("b", b"2", retain=True)])
    assert [(topic, payload, retain) for topic, payload, retain, _ in link.said] == [
        ("a", b"1", False),
        ("b", b"2", True),
    ]
    following = asyncio.create_task(sender.send(link, [Outgoing("c", b"3")]))
    link.said[0][3].set_result(None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert link.topics == ["a", "b"]
    link.acknowledge()
    await following
    assert link.topics == ["a", "b", "c"]
    link.acknowledge()
    await sender.acknowledged()


async def test_nothing_to_say_waits_for_nobody(link, sender):
    await sender.send(link, [Outgoing("a", b"1")])
    await sender.send(link, [])
    link.acknowledge()


async def test_what_the_server_refuses_is_shown_and_holds_up_nothing(link, sender, caplog):
    await sender.send(link, [Outgoing("a", b"1"), Outgoing("b", b"2")])
    link.said[0][3].set_exception(PublishRefusedError("the MQTT server refused the message; check its ACL"))
    link.acknowledge()
    await sender.send(link, [Outgoing("c", b"3")])
    assert link.topics == ["a", "b", "c"]
    assert [(r.levelno, r.getMessage().partition(":")[0]) for r in caplog.records] == [(logging.ERROR, "a")]


async def test_a_line_that_breaks_costs_the_messages_and_nothing_else(link, sender, caplog):
    caplog.set_level(logging.INFO)
    await sender.send(link, [Outgoing("a", b"1")])
    link.said[0][3].set_exception(NotConnectedError("the connection ended before the acknowledgement"))
    link.broken = True
    await sender.send(link, [Outgoing("b", b"2")])
    link.connected = False
    await sender.send(link, [Outgoing("c", b"3")])
    assert link.topics == ["a"]
    assert [r.getMessage().rpartition(", ")[2] for r in caplog.records] == [
        "the connection went away: the connection ended before the acknowledgement",
        "the connection went away: b: it broke",
    ]


async def test_a_server_that_never_acknowledges_holds_up_for_a_bounded_time(link, sender, caplog, monkeypatch):
    monkeypatch.setattr("broker.sending.ACK_TIMEOUT_S", 0.05)
    caplog.set_level(logging.INFO)
    await sender.send(link, [Outgoing("a", b"1")])
    await sender.send(link, [Outgoing("b", b"2")])
    assert link.topics == ["a", "b"]
    assert "a: no acknowledgement in 0.05 s" in caplog.text
    assert link.said[0][3].cancelled()
