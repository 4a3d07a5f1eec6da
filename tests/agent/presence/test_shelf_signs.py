from datetime import UTC, datetime

import pytest

from agent.life import LifeEvent
from agent.presence.observations import Sign, Source
from agent.shelf import Moment, Shelf
from agent.unit import BoardPlan
from wire.phases import EventType, Phase, Power, PowerAction, Purpose

NOW = Moment(100.0, datetime(2026, 11, 21, tzinfo=UTC))


def shelf(power: Power) -> Shelf:
    found = Shelf("lab", 1, {"pi": BoardPlan(None)}, NOW)
    found.restore("pi", None, power, NOW)
    return found


def sign(source: Source = Source.NEIGHBOUR, *, alive: bool = True, first: bool = False) -> Sign:
    return Sign("pi", source, alive, f"{source} {alive}", {"what": source.value}, first=first)


def test_an_answer_is_an_event_and_moves_a_board_that_was_silent() -> None:
    one = shelf(Power.ON)
    effects = one.sign(sign(), NOW)
    assert [event.type for event in effects.events] == [EventType.PRESENCE, EventType.PHASE]
    assert one.unit("pi").life.phase is Phase.BOOTING
    assert one.state("pi").reason == "neighbour True"


@pytest.mark.parametrize("source", [Source.LINK, Source.USB])
def test_a_link_is_a_reason_and_no_more(source: Source) -> None:
    one = shelf(Power.ON)
    effects = one.sign(sign(source), NOW)
    assert ([event.type for event in effects.events], effects.changed) == ([EventType.PRESENCE], {"pi"})
    assert (one.unit("pi").life.phase, one.state("pi").reason) == (Phase.STARTING, f"{source} True")


def test_what_was_so_before_we_looked_is_no_event() -> None:
    one = shelf(Power.ON)
    effects = one.sign(sign(Source.LINK, first=True), NOW)
    assert (effects.events, effects.changed) == ([], {"pi"})


def test_a_board_without_power_stays_off() -> None:
    one = shelf(Power.OFF)
    effects = one.sign(sign(), NOW)
    assert ([event.type for event in effects.events], effects.changed) == ([EventType.PRESENCE], set())
    assert (one.unit("pi").life.phase, one.state("pi").reason) == (Phase.OFF, None)


def test_a_board_at_work_is_not_moved() -> None:
    one = shelf(Power.ON)
    for event in (LifeEvent.ONLINE, LifeEvent.WORK_BEGUN):
        one.unit("pi").life.on(event, NOW.monotonic, "job-1")
    one.sign(sign(alive=False), NOW)
    assert (one.unit("pi").life.phase, one.state("pi").reason) == (Phase.BUSY, "job-1")


def switching(action: PowerAction) -> Shelf:
    one = shelf(Power.OFF)
    one.command_begun("pi", action, Purpose.OPERATOR)
    return one


@pytest.mark.parametrize(("source", "phase"), [(Source.USB, Phase.STARTING), (Source.NEIGHBOUR, Phase.BOOTING)])
def test_a_sign_that_is_quicker_than_the_read_back_counts_when_power_is_read(source: Source, phase: Phase) -> None:
    one = switching(PowerAction.ON)
    assert [event.type for event in one.sign(sign(source), NOW).events] == [EventType.PRESENCE]
    assert (one.unit("pi").life.phase, one.state("pi").reason) == (Phase.OFF, None)
    effects = one.power_read("pi", Power.ON, NOW)
    assert (one.unit("pi").life.phase, one.state("pi").reason) == (phase, f"{source} True")
    assert EventType.PRESENCE not in [event.type for event in effects.events], "it was told when it came"
    assert effects.changed == {"pi"}


@pytest.mark.parametrize("why", ["it went again", "nobody asked for power", "it came before the last off"])
def test_a_sign_that_says_nothing_of_the_power_that_came_does_not_count(why: str) -> None:
    one = shelf(Power.OFF) if why == "nobody asked for power" else switching(PowerAction.ON)
    one.sign(sign(Source.USB), NOW)
    if why == "it went again":
        one.sign(sign(Source.USB, alive=False), NOW)
    if why == "it came before the last off":
        one.power_read("pi", Power.UNKNOWN, NOW)
        one.power_read("pi", Power.OFF, NOW)
    one.power_read("pi", Power.ON, NOW)
    assert (one.unit("pi").life.phase, one.state("pi").reason) == (Phase.STARTING, None)
