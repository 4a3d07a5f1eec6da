"""Cases that a farm may hold, one by one, in virtual time; and that everything is put back whenever it is stopped."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.learn.experiment import Experiment
from agent.learn.signs import Kind, Subject
from tests.agent.learn.shuffled import RULES, console, mac, shuffled, usb, wrong_rows
from tests.agent.learn.simulated_farm import SimBoard, SimFarm

OFF = {"pdu:1": False, "pdu:2": False, "pdu:3": False}


def board(number: int, *outlets: str, delay: float = 2.0, boot: float = 10.0, **more) -> SimBoard:
    says = {console(number): 0.4, mac(number): delay}
    return SimBoard(f"board-{number}", list(outlets), says=says, ready=(mac(number), boot), **more)


def learn(outlets, boards, seed=1, rules=RULES, **more):
    farm = SimFarm(outlets, boards, seed)
    for name, value in more.items():
        setattr(farm, name, value)
    experiment = Experiment(outlets.items(), rules, farm.now)
    found = farm.run(experiment)
    assert farm.on == outlets, "everything is as it was found"
    return found, {item.outlet: item.because for item in found.unknown}


@pytest.mark.parametrize("seed", range(5))
def test_two_boards_that_come_up_together_are_told_apart(seed):
    found, _ = learn({"pdu:1": False, "pdu:2": False}, [board(1, "pdu:1"), board(2, "pdu:2")], seed)
    assert {row.feed: row.consoles for row in found.rows} == {
        ("pdu:1",): ("/dev/ttyUSB1",),
        ("pdu:2",): ("/dev/ttyUSB2",),
    }


@pytest.mark.parametrize("seed", range(5))
def test_an_outlet_that_feeds_several_boards_is_said_to(seed):
    found, unknown = learn(OFF, [board(1, "pdu:1"), board(2, "pdu:1"), board(3, "pdu:2")], seed)
    assert [row.feed for row in found.rows] == [("pdu:2",)]
    assert "several things come up together" in unknown["pdu:1"]
    assert str(mac(1)) in unknown["pdu:1"] and str(mac(2)) in unknown["pdu:1"]


def test_a_switch_in_front_of_the_network_is_not_taken_for_a_board():
    link = Subject(Kind.LINK, "eth1")
    switch = SimBoard("switch", ["pdu:3"], shows={link: 1.0})
    found, unknown = learn(OFF, [board(1, "pdu:1"), switch])
    assert [row.feed for row in found.rows] == [("pdu:1",)]
    assert "all that comes up is link eth1: a switch" in unknown["pdu:3"]


@pytest.mark.parametrize("seed", range(5))
def test_a_board_that_needs_two_outlets_at_once_is_unknown(seed):
    found, unknown = learn(OFF, [board(1, "pdu:1", "pdu:2", needs_all=True), board(3, "pdu:3")], seed)
    assert [row.feed for row in found.rows] == [("pdu:3",)]
    assert set(unknown) == {"pdu:1", "pdu:2"}


def test_a_board_that_runs_from_its_consoles_cable_is_no_boards_of_the_outlet():
    talker = board(1, "pdu:1", back_powered=True, chatter_s=3.0)
    found, unknown = learn(OFF, [talker, board(2, "pdu:2")])
    assert [row.feed for row in found.rows] == [("pdu:2",)]
    assert "nothing that goes with it was heard" in unknown["pdu:1"]
    because = {item.subject: item.because for item in found.strangers}
    assert "it has other power" in because[console(1)]


def test_a_cable_that_is_moved_meanwhile_gives_no_row():
    moved = board(1, "pdu:1")
    found, unknown = learn(OFF, [moved, board(2, "pdu:2")], moves=[(30.0, "board-1", ["pdu:3"])])
    assert all(row.macs != (mac(1)[1],) or row.feed == ("pdu:3",) for row in found.rows)
    assert "pdu:1" in unknown


def test_an_outlet_that_does_not_switch_is_named():
    found, unknown = learn(OFF, [board(1, "pdu:1"), board(2, "pdu:2")], broken={"pdu:3"})
    assert len(found.rows) == 2
    assert unknown["pdu:3"] == "it does not switch: did not switch"


def test_usb_alone_is_a_board():
    gadget = SimBoard("gadget", ["pdu:1"], shows={usb(4): 1.0})
    found, _ = learn(OFF, [gadget])
    assert [(row.feed, row.usb, row.boot_s) for row in found.rows] == [(("pdu:1",), ("1-1.4",), None)]


def test_never_more_than_allowed_are_on():
    given = shuffled(3)
    given.farm.run(given.experiment(replace(RULES, at_once=3)))
    on = {outlet for outlet, is_on in given.outlets.items() if is_on}
    cleared = False
    for _, outlet, is_on in given.farm.switched:
        on = on | {outlet} if is_on else on - {outlet}
        cleared = cleared or not on
        assert not cleared or len(on) <= 3 or on <= {name for name, found in given.outlets.items() if found}


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), stop_at=st.floats(0, 1200))
def test_stopped_at_any_moment_it_puts_everything_back_and_says_nothing_wrong(seed, stop_at):
    given = shuffled(seed)
    found = given.farm.run(given.experiment(), stop_at=stop_at)
    assert given.farm.on == given.outlets
    assert wrong_rows(given, found) == []
    assert len(found.rows) + len(found.unknown) >= len(given.outlets) - len(found.rows)


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_mis_cabled_between_two_runs_the_second_finds_what_is(seed):
    first = shuffled(seed)
    first.farm.run(first.experiment())
    one, other = first.boards[0], first.boards[1]
    one.fed_by, other.fed_by = other.fed_by, one.fed_by
    second = SimFarm(first.outlets, first.boards, seed + 1)
    for each in first.boards:
        each.running = 0
    first.farm = second
    found = second.run(first.experiment())
    assert wrong_rows(first, found) == []
    feeds = {row.feed: row.consoles for row in found.rows}
    assert set(feeds[tuple(one.fed_by)]) <= {subject.name for subject in one.says}


@pytest.mark.parametrize("seed", range(5))
def test_a_board_that_speaks_late_is_heard_out_until_it_is_up(seed):
    slow = board(1, "pdu:1", boot=38.0)
    slow.says = {console(1): 18.0, mac(1): 20.0}
    found, _ = learn(OFF, [slow, board(2, "pdu:2")], seed, replace(RULES, listen_s=25.0))
    (row,) = [row for row in found.rows if row.feed == ("pdu:1",)]
    assert row.boot_s == pytest.approx(38.0, rel=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_a_board_without_client_is_listened_to_at_length_once(seed):
    quiet = board(1, "pdu:1")
    quiet.ready = None
    farm = SimFarm(OFF, [quiet, board(2, "pdu:2")], seed)
    experiment = Experiment(OFF.items(), RULES, farm.now)
    found = farm.run(experiment)
    assert {row.feed for row in found.rows} == {("pdu:1",), ("pdu:2",)}
    assert experiment.places["pdu:1"].surveys == 1


def switch_ons(seed: int) -> dict[str, int]:
    given = shuffled(seed)
    given.farm.run(given.experiment())
    on = [outlet for _, outlet, on in given.farm.switched if on]
    return {board.name: max(on.count(outlet) for outlet in board.fed_by) for board in given.boards}


@pytest.mark.parametrize("seed", range(5))
def test_two_outlets_of_one_board_are_found_without_trying_every_pair(seed):
    # 2 at length, 1 each alone, and what chance and other boards' doubts ask for: it was 15 to 20 before.
    assert switch_ons(seed)["double"] <= 10


def test_a_board_that_said_that_it_is_up_is_not_listened_to_at_length_again_because_its_console_is_proved_first():
    boards = [
        SimBoard(
            f"board-{number}",
            [f"pdu:{number}"],
            says={console(number): 0.2, mac(number): 2.3},
            ready=(mac(number), 5.0),
        )
        for number in range(1, 17)
    ]
    rules = replace(RULES, at_once=4, listen_s=30.0, quiet_s=32.0)
    outlets = {f"pdu:{number}": False for number in range(1, 17)}
    for seed in range(6):
        farm = SimFarm(outlets, boards, seed)
        found = farm.run(Experiment(outlets.items(), rules, farm.now))
        assert len(found.rows) == 16
        surveys = [told.message for told in farm.told if told.message.endswith(": listening")]
        assert len(surveys) == 16, seed
