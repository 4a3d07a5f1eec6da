import asyncio

import pytest

from broker.happenings import Settled, Tick
from broker.intake import ASKED_AT_ONCE, FARM_BEFORE_ASKED, Intake
from daemon.mqtt_link import Message


def asked(n):
    return Message("boardhand/broker/request/submit", str(n).encode(), retain=False)


def said(n):
    return Message(f"boardhand/board/b{n}/state", b"", retain=False)


async def test_the_farm_goes_before_a_bomb_of_jobs():
    intake = Intake(10_000)
    for n in range(5000):
        intake.put_nowait(asked(n))
    intake.put_nowait(said(1))
    intake.put_nowait(Settled())
    assert await intake.get() == said(1)
    batch = intake.more(256)
    assert batch[0] == Settled()
    assert batch[1:] == [asked(n) for n in range(ASKED_AT_ONCE)]
    intake.put_nowait(said(2))
    assert intake.more(256)[0] == said(2)


async def test_people_are_answered_beside_a_farm_that_never_falls_silent():
    intake = Intake(0)
    intake.put_nowait(asked(0))
    for n in range(100):
        intake.put_nowait(said(n))
    assert asked(0) in [await intake.get() for _ in range(FARM_BEFORE_ASKED + 1)]


async def test_it_is_one_queue_with_one_bound():
    intake = Intake(2)
    waiting = asyncio.create_task(intake.get())
    await asyncio.sleep(0)
    assert intake.empty()
    assert intake.more(5) == []
    intake.put_nowait(Tick())
    assert await waiting == Tick()
    intake.put_nowait(asked(1))
    intake.put_nowait(said(1))
    assert intake.qsize() == 2
    with pytest.raises(asyncio.QueueFull):
        intake.put_nowait(said(2))
    assert intake.more(1) == [said(1)]
    assert intake.more(1) == [asked(1)]
    with pytest.raises(asyncio.QueueEmpty):
        intake.get_nowait()
