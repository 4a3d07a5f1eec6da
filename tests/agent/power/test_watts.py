"""Meters of a feed: what they say about the board, and when they say nothing."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.power import watts
from agent.power.controller_queue import ControllerQueue
from agent.power.errors import UnreachableError
from agent.power.feed import FeedKind, OutletRef
from agent.power.watts import Unmeasured, feed_watts, read_watts

NO_METER, NO_ANSWER = Unmeasured.NO_METER, Unmeasured.NO_ANSWER


@pytest.mark.parametrize(
    ("outlets", "kind", "drawn"),
    [
        ([12.0], FeedKind.UNSAID, 12.0),
        ([12.0, NO_METER], FeedKind.UNSAID, 12.0),
        ([12.0, 5.0], FeedKind.UNSAID, None),
        ([12.0, NO_ANSWER], FeedKind.UNSAID, None),
        ([12.0, 5.0], FeedKind.CHAIN, 12.0),
        ([NO_METER, 5.0], FeedKind.CHAIN, 5.0),
        ([NO_ANSWER, 5.0], FeedKind.CHAIN, None),
        ([12.0, NO_ANSWER], FeedKind.CHAIN, 12.0),
        ([12.0, 5.0], FeedKind.PARALLEL, 17.0),
        ([12.0, NO_METER], FeedKind.PARALLEL, None),
        ([12.0, NO_ANSWER], FeedKind.PARALLEL, None),
        ([], FeedKind.CHAIN, None),
    ],
)
def test_half_a_board_is_never_taken_for_the_whole(outlets, kind, drawn):
    assert feed_watts(outlets, kind) == drawn


@given(st.lists(st.one_of(st.floats(0, 5000), st.sampled_from(Unmeasured)), min_size=1, max_size=4))
def test_what_nobody_measured_is_nothing(outlets):
    for kind in FeedKind:
        drawn = feed_watts(outlets, kind)
        assert drawn is None or math.isfinite(drawn)
        if not any(isinstance(value, float) for value in outlets):
            assert drawn is None


async def test_a_silent_and_a_hanging_controller_hold_up_nobody(fakes, monkeypatch):
    monkeypatch.setattr(watts, "READ_TIMEOUT_S", 1.0)
    drivers = {
        "well": fakes.FakeDriver(on={"1": True}),
        "silent": fakes.FakeDriver(error=UnreachableError("silent", controller="silent")),
        "hangs": fakes.FakeDriver(hangs=True, timing=fakes.replace(fakes.QUICK, call_timeout_s=60)),
    }
    queues = {name: ControllerQueue(name, driver) for name, driver in drivers.items()}
    refs = [OutletRef(name, "1") for name in drivers] + [OutletRef("well", "2")]
    async with asyncio.timeout(60):
        found = await read_watts(queues, refs)
    assert found == dict(zip(refs, [3.5, NO_ANSWER, NO_ANSWER, NO_METER], strict=True))
    for queue in queues.values():
        await queue.close()
