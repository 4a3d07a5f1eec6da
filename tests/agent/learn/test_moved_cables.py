"""A cable that was moved is noticed, with where it went; and nothing is said of boards that are only slow to die."""

from hypothesis import given
from hypothesis import strategies as st

from agent.learn.moved_cables import DRAIN_S, MovedCables
from wire.phases import Power

FEEDS = {"a": "pdu:1", "b": "pdu:2", "c": "pdu:3"}


def off(*boards):
    watch = MovedCables()
    for board in boards:
        watch.power(board, FEEDS[board], Power.OFF, 0.0)
    return watch


def test_it_says_where_the_cable_went():
    watch = off("a", "b", "c")
    watch.power("b", FEEDS["b"], Power.ON, 100.0)
    assert watch.heard("a", "DHCP", 103.0) == []
    (moved,) = watch.heard("a", "a registration", 110.0)
    assert moved.board == "a"
    assert moved.what == (
        "DHCP and a registration of a while its outlet pdu:1 is off, and nothing of b, whose outlet pdu:2 is on: "
        "the power cable of a hangs there now"
    )
    assert "[boards.a]" in moved.do


def test_a_console_alone_is_the_consoles_cable():
    watch = off("a", "b")
    watch.power("b", FEEDS["b"], Power.ON, 100.0)
    watch.heard("a", "its console", 101.0, console=True)
    (moved,) = watch.heard("a", "its console", 102.0, console=True)
    assert "the console cable of a hangs there now" in moved.what


def test_where_it_went_is_not_guessed():
    watch = off("a", "b", "c")
    watch.power("b", FEEDS["b"], Power.ON, 100.0)
    watch.power("c", FEEDS["c"], Power.ON, 100.0)
    watch.heard("a", "DHCP", 103.0)
    (moved,) = watch.heard("a", "DHCP", 104.0)
    assert moved.what.endswith("its power cable was moved, or it has other power")


def test_it_is_said_once_and_taken_back_when_the_board_is_heard_on_its_outlet():
    watch = off("a")
    heard = [watch.heard("a", "DHCP", 100.0 + n) for n in range(5)]
    assert [len(told) for told in heard] == [0, 1, 0, 0, 0]
    watch.power("a", FEEDS["a"], Power.ON, 200.0)
    (over,) = watch.heard("a", "DHCP", 203.0)
    assert over.over and over.board == "a"
    assert watch.heard("a", "DHCP", 204.0) == []


@given(times=st.lists(st.floats(0, DRAIN_S - 0.01), max_size=30))
def test_last_words_are_no_moved_cable(times):
    watch = off("a")
    assert [told for at in sorted(times) for told in watch.heard("a", "DHCP", at)] == []


@given(times=st.lists(st.floats(0, 1000), max_size=30), power=st.sampled_from([Power.ON, Power.UNKNOWN]))
def test_a_board_with_power_or_unknown_power_is_never_told_of(times, power):
    watch = MovedCables()
    watch.power("a", FEEDS["a"], power, 0.0)
    assert [told for at in sorted(times) for told in watch.heard("a", "DHCP", at)] == []


def test_a_board_that_was_found_on_is_not_where_the_cable_went():
    watch = off("a", "b")
    watch.power("c", FEEDS["c"], Power.ON, 95.0)  # the first reading: nobody knows since when
    watch.power("b", FEEDS["b"], Power.ON, 100.0)
    watch.heard("a", "DHCP", 103.0)
    (moved,) = watch.heard("a", "DHCP", 104.0)
    assert "nothing of b, whose outlet pdu:2 is on: the power cable of a hangs there now" in moved.what
