"""Changes of power by somebody else: adopted, enforced, given up; failures in a row."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.memory import BoardMemory
from agent.power_watch import DRIFTS_IN_A_ROW, FAILURES_IN_A_ROW, RETRY_S, STABLE_S, Drift, OnChange, PowerWatch
from agent.shelf import BoardPlan, Moment, Shelf
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind, EventType, Phase, Power, PowerAction, Purpose

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SILENT = ErrorInfo(kind=ErrorKind.UNREACHABLE, message="pi: pdu:1: no answer")


def at(seconds):
    return Moment(seconds, START + timedelta(seconds=seconds))


def shelf_with(policy, power=Power.OFF):
    shelf = Shelf("lab", 1, {"pi": BoardPlan(None, 1, policy)}, at(0))
    shelf.restore("pi", None, power, at(0))
    return shelf


def command(shelf, action, power, error=None, seconds=1, purpose=Purpose.OPERATOR):
    shelf.command_begun("pi", action, purpose)
    return shelf.command_ended("pi", action, power, error, at(seconds))


def unexpected(effects):
    return [e.details["unexpected"] for e in effects.events if "unexpected" in e.details]


@pytest.mark.parametrize("policy", OnChange)
def test_our_own_switching_is_no_change_by_somebody_else(policy):
    shelf = shelf_with(policy)
    shelf.command_begun("pi", PowerAction.CYCLE, Purpose.OPERATOR)
    for power in (Power.OFF, Power.ON, Power.OFF, Power.ON):
        assert unexpected(shelf.power_read("pi", power, at(1))) == []
    assert unexpected(shelf.command_ended("pi", PowerAction.CYCLE, Power.ON, None, at(2))) == []


def test_a_hand_at_the_button_is_adopted_and_told():
    shelf = shelf_with(OnChange.ADOPT)
    command(shelf, PowerAction.ON, Power.ON)
    effects = shelf.power_read("pi", Power.OFF, at(50))
    assert unexpected(effects) == ["adopted"]
    assert effects.enforce == []
    state = shelf.state("pi")
    assert (state.power, state.target, state.phase) == (Power.OFF, Power.OFF, Phase.OFF)


def test_where_the_settings_say_so_the_wish_is_enforced():
    shelf = shelf_with(OnChange.ENFORCE)
    command(shelf, PowerAction.ON, Power.ON)
    effects = shelf.power_read("pi", Power.OFF, at(50))
    assert unexpected(effects) == ["enforced"]
    assert effects.enforce == [("pi", PowerAction.ON, Purpose.OPERATOR)]
    assert shelf.state("pi").target is Power.ON


def test_a_sleeping_board_that_was_switched_on_goes_back_to_sleep():
    shelf = shelf_with(OnChange.ENFORCE)
    command(shelf, PowerAction.ON, Power.ON)
    command(shelf, PowerAction.OFF, Power.OFF, purpose=Purpose.SLEEP)
    assert shelf.state("pi").phase is Phase.SLEEPING
    effects = shelf.power_read("pi", Power.ON, at(50))
    assert effects.enforce == [("pi", PowerAction.OFF, Purpose.SLEEP)]


def test_whoever_insists_wins_after_the_third_time():
    shelf = shelf_with(OnChange.ENFORCE)
    command(shelf, PowerAction.ON, Power.ON)
    for number in range(1, DRIFTS_IN_A_ROW):
        assert shelf.power_read("pi", Power.OFF, at(100 * number)).enforce
        command(shelf, PowerAction.ON, Power.ON, seconds=100 * number + 1)
    last = shelf.power_read("pi", Power.OFF, at(1000))
    assert unexpected(last) == ["enforced"], "ten minutes of peace make it a new change"
    shelf = shelf_with(OnChange.ENFORCE)
    command(shelf, PowerAction.ON, Power.ON)
    for number in range(1, DRIFTS_IN_A_ROW):
        shelf.power_read("pi", Power.OFF, at(10 * number))
        command(shelf, PowerAction.ON, Power.ON, seconds=10 * number + 1)
    last = shelf.power_read("pi", Power.OFF, at(60))
    assert unexpected(last) == ["given-up"]
    assert last.enforce == []
    state = shelf.state("pi")
    assert (state.phase, state.target) == (Phase.FAULT, Power.OFF)
    assert "3 times" in (state.reason or "")


def test_a_wish_that_cannot_be_enforced_is_tried_again_and_then_a_fault():
    shelf = shelf_with(OnChange.ENFORCE)
    command(shelf, PowerAction.ON, Power.ON)
    now = 50.0
    effects = shelf.power_read("pi", Power.OFF, at(now))
    for number in range(1, FAILURES_IN_A_ROW + 1):
        assert effects.enforce == [("pi", PowerAction.ON, Purpose.OPERATOR)], number
        command(shelf, PowerAction.ON, Power.OFF, SILENT, seconds=now)
        assert not shelf.tick(at(now + RETRY_S - 1)).enforce
        now += RETRY_S
        effects = shelf.tick(at(now))
    assert effects.enforce == []
    assert shelf.next_deadline() is None
    assert shelf.state("pi").phase is Phase.FAULT
    assert "3 power commands in a row failed" in (shelf.state("pi").reason or "")


def test_an_unmet_wish_does_not_spin_while_the_power_is_unknown():
    shelf = shelf_with(OnChange.ENFORCE)
    command(shelf, PowerAction.ON, Power.ON)
    shelf.power_read("pi", Power.OFF, at(50))
    command(shelf, PowerAction.ON, Power.UNKNOWN, SILENT, seconds=51)
    assert shelf.tick(at(51 + RETRY_S)).enforce == []
    assert shelf.next_deadline() is None
    effects = shelf.power_read("pi", Power.OFF, at(300))
    assert effects.enforce
    assert shelf.unit("pi").watch.drifts == 1, "it is still the same change"


@pytest.mark.parametrize("policy", OnChange)
def test_three_failed_commands_in_a_row_are_a_fault(policy):
    shelf = shelf_with(policy)
    for _ in range(FAILURES_IN_A_ROW - 1):
        command(shelf, PowerAction.ON, Power.OFF, SILENT)
    command(shelf, PowerAction.ON, Power.ON)
    for _ in range(FAILURES_IN_A_ROW - 1):
        command(shelf, PowerAction.ON, Power.ON, SILENT)
        assert shelf.state("pi").phase is not Phase.FAULT
    command(shelf, PowerAction.ON, Power.ON, SILENT)
    assert shelf.state("pi").phase is Phase.FAULT
    assert "no answer" in (shelf.state("pi").reason or "")


def test_a_command_that_was_refused_changes_no_target_and_raises_no_alarm():
    shelf = shelf_with(OnChange.ADOPT)
    command(shelf, PowerAction.ON, Power.ON)
    refused = ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message="pi: must never be switched off")
    for _ in range(FAILURES_IN_A_ROW):
        effects = command(shelf, PowerAction.OFF, Power.ON, refused)
        assert effects.alerts == []
    assert shelf.state("pi").target is Power.ON
    assert shelf.state("pi").phase is Phase.STARTING


@pytest.mark.parametrize(("phase", "becomes"), [(Phase.OFF, Phase.FAULT), (Phase.BUSY, Phase.BUSY)])
def test_a_board_that_cannot_be_read_is_put_aside_unless_it_is_at_work(phase, becomes):
    shelf = Shelf("lab", 1, {"pi": BoardPlan()}, at(0))
    power = Power.ON if phase is Phase.BUSY else Power.OFF
    shelf.restore("pi", BoardMemory(phase, None, START, None, "boot-1"), power, at(0))
    raised = shelf.unreadable("pi", SILENT, at(10))
    assert [(name, alert is not None) for _, name, alert in raised.alerts] == [("unreadable", True)]
    assert shelf.state("pi").phase is becomes
    cleared = shelf.unreadable("pi", None, at(20))
    assert cleared.alerts == [("pi", "unreadable", None)]


@pytest.mark.parametrize(("policy", "enforced"), [(OnChange.ADOPT, []), (OnChange.ENFORCE, [PowerAction.ON])])
def test_what_changed_while_the_agent_was_away(policy, enforced):
    shelf = Shelf("lab", 2, {"pi": BoardPlan(on_change=policy)}, at(0))
    effects = shelf.restore("pi", BoardMemory(Phase.READY, None, START, "on", "boot-1"), Power.OFF, at(0))
    assert [action for _, action, _ in effects.enforce] == enforced
    assert shelf.state("pi").target is (Power.ON if enforced else Power.OFF)
    assert len([e for e in effects.events if e.type is EventType.POWER and "unexpected" in e.details]) == 1


def test_after_an_interrupted_cycle_the_wish_stands():
    shelf = Shelf("lab", 2, {"pi": BoardPlan()}, at(0))
    shelf.restore("pi", BoardMemory(Phase.OFF, None, START, "on", None), Power.OFF, at(0), interrupted=True)
    assert shelf.state("pi").target is Power.ON


def test_a_long_peace_forgets_the_changes_before():
    watch = PowerWatch(OnChange.ENFORCE)
    found = [watch.compare(Power.OFF, Power.ON, number * (STABLE_S + 1)) for number in range(10)]
    assert found == [Drift.ENFORCE] * 10
