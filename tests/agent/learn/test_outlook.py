"""What those who watch an experiment are told: each outlet at this moment, the time left, and what was put back."""

import pytest

from agent.learn.desk import LearnDesk
from agent.learn.experiment import Experiment
from agent.learn.outlook import MOST_HEARD, left_s, outlook
from agent.learn.places import Rules
from agent.learn.signs import Drawn, Kind, Present, Sign, Subject, Switched
from tests.agent.learn.test_desk import FAST, PretendHands, ended, first_on

RULES = Rules(baseline_s=5.0, listen_s=100.0, quiet_s=10.0, settle_s=4.0)
MAC = Subject(Kind.MAC, "02:00:00:00:00:01")
LINK = Subject(Kind.LINK, "eth1")


@pytest.fixture
def experiment():
    """Two outlets that were off; the first one is on since second 5."""
    one = Experiment([("pdu:1", False), ("pdu:2", False)], RULES, 0.0)
    one.begin(0.0)
    one.tick(5.0)
    one.take(Switched("pdu:1", on=True), 5.5)
    return one


def test_nothing_is_known_in_the_beginning():
    one = Experiment([("pdu:1", False)], RULES, 0.0)
    one.begin(0.0)
    waits = {"outlet": "pdu:1", "at": "idle", "tries": 0, "listens_s": None, "watts": None, "heard": []}
    assert outlook(one, 1.0) == [waits]
    assert left_s(one, (), 1.0) is None


def test_what_is_heard_while_an_outlet_is_on_stands_in_its_row(experiment):
    experiment.take(Sign(MAC, words="PXEClient"), 8.0)
    experiment.take(Present(LINK, here=True), 9.0)
    experiment.take(Drawn("pdu:1", 2.5), 10.0)
    first, second = outlook(experiment, 12.0)
    assert (first["at"], first["listens_s"], first["watts"]) == ("listening", 7.0, 2.5)
    assert first["heard"] == [
        {"kind": "mac", "name": MAC.name, "words": "PXEClient", "now": True},
        {"kind": "link", "name": "eth1", "words": "", "now": True},
    ]
    assert second["heard"] == []
    assert left_s(experiment, (), 12.0) is None, "no board was listened to whole yet"


def test_what_was_heard_before_is_told_as_that(experiment):
    experiment.take(Sign(MAC, ready=True), 8.0)
    experiment.tick(12.0)
    experiment.take(Switched("pdu:1", on=False), 12.5)
    first, _ = outlook(experiment, 20.0)
    assert (first["at"], first["listens_s"]) == ("idle", None)
    assert [one["now"] for one in first["heard"]] == [False]


def test_only_so_much_is_told_of_one(experiment):
    for number in range(MOST_HEARD + 5):
        experiment.take(Sign(Subject(Kind.USB, f"1-{number}")), 8.0)
    assert len(outlook(experiment, 9.0)[0]["heard"]) == MOST_HEARD


def test_the_time_left_is_that_of_the_boards_to_come(experiment):
    experiment.take(Drawn("pdu:1", 2.5), 7.0)
    experiment.take(Sign(MAC, ready=True), 8.0)
    experiment.tick(12.0)  # 7 s were enough
    experiment.take(Switched("pdu:1", on=False), 12.0)
    # The second outlet is on since 12: 5 s of its 7 are to come. The first one is tried twice again, for half of that.
    assert left_s(experiment, (), 14.0) == pytest.approx(5.0 + 2 * 3.5)
    assert left_s(experiment, {"pdu:1"}, 14.0) == pytest.approx(5.0)


async def test_the_desk_tells_it_and_what_was_put_back():
    hands = PretendHands()
    desk = LearnDesk(hands)
    await desk.start()
    await desk.answer({"do": "start", "also_on": True, **FAST})
    await first_on(hands)
    state = await desk.answer({"do": "state"})
    assert [one["outlet"] for one in state["outlets"]] == ["pdu:1", "pdu:2"]
    assert "restored" not in state
    await desk.answer({"do": "stop"})
    state = await ended(desk)
    assert state["left_s"] is None
    assert state["restored"] == {"pdu:1": False, "pdu:2": True}
    assert hands.on == state["restored"]


async def test_what_would_not_go_back_is_not_told_as_put_back():
    hands = PretendHands()
    desk = LearnDesk(hands)
    await desk.start()
    await desk.answer({"do": "start", "also_on": True, **FAST})
    await first_on(hands)
    hands.stuck.add("pdu:2")
    await desk.answer({"do": "stop"})
    state = await ended(desk)
    assert state["unrestored"] == ["pdu:2"]
    assert state["restored"] == {"pdu:1": False}
