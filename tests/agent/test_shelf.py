from datetime import UTC, datetime, timedelta

import pytest

from agent.life import LifeEvent
from agent.memory import BoardMemory
from agent.shelf import BoardPlan, Effects, Moment, Shelf, UnknownBoardError
from wire.payloads import BoardSelf, ErrorInfo
from wire.phases import ErrorKind, EventType, Phase, Power, PowerAction, Presence, Purpose

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def at(seconds: float) -> Moment:
    return Moment(seconds, START + timedelta(seconds=seconds))


@pytest.fixture
def shelf() -> Shelf:
    shelf = Shelf("lab", 3, {"pi": BoardPlan(60.0, 1), "bone": BoardPlan()}, at(0))
    shelf.restore("pi", None, Power.OFF, at(0))
    return shelf


def kinds(effects: Effects) -> list[str]:
    return [event.type.value for event in effects.events]


def phases(effects: Effects) -> list[object]:
    return [event.details["phase"] for event in effects.events if event.type is EventType.PHASE]


def come_online(shelf: Shelf, seconds: float, boot_id: str = "boot-1") -> Effects:
    effects = shelf.registered("pi", boot_id, {})
    effects.add(shelf.said("pi", BoardSelf(state=Presence.ONLINE, boot_id=boot_id), at(seconds)))
    return effects


def bring_up(shelf: Shelf) -> None:
    shelf.power_read("pi", Power.ON, at(1))
    come_online(shelf, 20)
    assert shelf.unit("pi").life.phase is Phase.READY


def test_state_is_what_was_read_and_target_what_was_asked(shelf: Shelf) -> None:
    shelf.command_begun("pi", PowerAction.ON, Purpose.OPERATOR)
    state = shelf.state("pi")
    assert (state.power, state.target, state.phase) == (Power.OFF, Power.ON, Phase.OFF)
    effects = shelf.power_read("pi", Power.ON, at(1))
    assert kinds(effects) == ["power", "phase"]
    assert shelf.state("pi").power is Power.ON
    assert effects.show == [("pi", Phase.STARTING)]


def test_a_sleep_is_not_an_off(shelf: Shelf) -> None:
    bring_up(shelf)
    shelf.command_begun("pi", PowerAction.OFF, Purpose.SLEEP)
    first = shelf.power_read("pi", Power.OFF, at(30))
    rest = shelf.command_ended("pi", PowerAction.OFF, Power.OFF, None, at(30))
    assert phases(first) + phases(rest) == ["sleeping"]
    assert first.new_boot == ["pi"]
    shelf.command_begun("pi", PowerAction.OFF, Purpose.OPERATOR)
    assert phases(shelf.command_ended("pi", PowerAction.OFF, Power.OFF, None, at(40))) == ["off"]


def test_a_hub_that_lies_is_a_fault_named_as_such(shelf: Shelf) -> None:
    shelf.command_begun("pi", PowerAction.ON, Purpose.OPERATOR)
    error = ErrorInfo(kind=ErrorKind.NOT_VERIFIED, message="pdu1:3 accepted on and still reads off")
    effects = shelf.command_ended("pi", PowerAction.ON, Power.OFF, error, at(5))
    state = shelf.state("pi")
    assert (state.power, state.phase, state.reason) == (Power.OFF, Phase.FAULT, error.message)
    assert effects.alerts[0][1] == "power"
    shelf.command_begun("pi", PowerAction.ON, Purpose.OPERATOR)
    effects = shelf.command_ended("pi", PowerAction.ON, Power.ON, None, at(9))
    assert shelf.state("pi").phase is Phase.STARTING
    assert ("pi", "power", None) in effects.alerts


def test_an_unreachable_pdu_leaves_the_phase_alone(shelf: Shelf) -> None:
    bring_up(shelf)
    error = ErrorInfo(kind=ErrorKind.UNREACHABLE, message="pdu1 does not answer")
    shelf.command_begun("pi", PowerAction.OFF, Purpose.OPERATOR)
    shelf.command_ended("pi", PowerAction.OFF, Power.UNKNOWN, error, at(30))
    assert (shelf.state("pi").power, shelf.state("pi").phase) == (Power.UNKNOWN, Phase.READY)
    effects = shelf.power_read("pi", Power.ON, at(40))
    assert phases(effects) == []
    assert shelf.state("pi").phase is Phase.READY
    shelf.power_read("pi", Power.UNKNOWN, at(41))
    assert phases(shelf.power_read("pi", Power.OFF, at(42))) == ["off"]


def test_the_order_of_a_boot(shelf: Shelf) -> None:
    told: list[object] = []
    told += phases(shelf.power_read("pi", Power.ON, at(1)))
    told += phases(shelf.heard("pi", LifeEvent.NETBOOT_SEEN, {}, at(2)))
    told += phases(shelf.heard("pi", LifeEvent.KERNEL_SENT, {}, at(3)))
    told += phases(shelf.registered("pi", "boot-1", {}))
    assert shelf.state("pi").phase is Phase.BOOTING  # it cannot take work yet
    told += phases(come_online(shelf, 9))
    told += phases(shelf.said("pi", BoardSelf(state=Presence.ONLINE, boot_id="boot-1", work="job-7"), at(10)))
    told += phases(shelf.said("pi", BoardSelf(state=Presence.ONLINE, boot_id="boot-1"), at(11)))
    assert told == ["starting", "netboot", "booting", "ready", "busy", "ready"]


def test_only_the_boot_that_proved_itself_is_listened_to(shelf: Shelf) -> None:
    bring_up(shelf)
    for boot_id in ("boot-0", "impostor"):
        said = shelf.said("pi", BoardSelf(state=Presence.OFFLINE, boot_id=boot_id), at(30))
        assert said == Effects()
    assert shelf.state("pi").phase is Phase.READY
    assert kinds(shelf.refused("pi", {"mac": "x"})) == ["registration-refused"]
    assert shelf.state("pi").phase is Phase.READY


def test_registering_again_says_nothing_new(shelf: Shelf) -> None:
    bring_up(shelf)
    assert kinds(shelf.registered("pi", "boot-1", {})) == []
    assert kinds(shelf.registered("pi", "boot-2", {})) == ["registered"]


def test_packets_of_a_board_that_is_off_do_not_wake_it(shelf: Shelf) -> None:
    assert shelf.heard("pi", LifeEvent.NETBOOT_SEEN, {}, at(1)) == Effects()


def test_a_silent_board_gets_its_time_then_one_cycle_then_a_fault(shelf: Shelf) -> None:
    bring_up(shelf)
    shelf.said("pi", BoardSelf(state=Presence.OFFLINE, boot_id="boot-1"), at(100))
    assert shelf.state("pi").phase is Phase.STARTING
    assert shelf.next_deadline() == 160
    assert shelf.tick(at(159)).cycle == []
    assert shelf.tick(at(160)).cycle == ["pi"]
    effects = shelf.tick(at(220))
    assert effects.cycle == []
    assert shelf.state("pi").phase is Phase.FAULT
    assert "last seen: starting" in (shelf.state("pi").reason or "")
    assert effects.alerts[0][1] == "boot"
    shelf.said("pi", BoardSelf(state=Presence.ONLINE, boot_id="boot-1"), at(225))
    assert shelf.state("pi").phase is Phase.FAULT  # old news; it has to prove itself again
    assert ("pi", "boot", None) in come_online(shelf, 230).alerts
    assert shelf.state("pi").phase is Phase.READY


@pytest.mark.parametrize(
    ("stored", "power", "expected"),
    [
        (Phase.READY, Power.ON, Phase.READY),
        (Phase.READY, Power.UNKNOWN, Phase.READY),
        (Phase.READY, Power.OFF, Phase.OFF),
        (Phase.SLEEPING, Power.OFF, Phase.SLEEPING),
        (Phase.SLEEPING, Power.ON, Phase.STARTING),
        (Phase.OFF, Power.ON, Phase.STARTING),
        (Phase.BOOTING, Power.ON, Phase.BOOTING),
        (Phase.FAULT, Power.OFF, Phase.FAULT),
        (Phase.MAINTENANCE, Power.ON, Phase.MAINTENANCE),
    ],
)
def test_a_new_session_believes_the_hardware(stored: Phase, power: Power, expected: Phase) -> None:
    shelf = Shelf("lab", 4, {"pi": BoardPlan(60.0, 1)}, at(0))
    memory = BoardMemory(stored, "as before", START, "on", "boot-1")
    effects = shelf.restore("pi", memory, power, at(500))
    state = shelf.state("pi")
    assert (state.phase, state.power) == (expected, power)
    assert "pi" in effects.changed
    assert effects.cycle == []
    if expected.coming_up:
        assert shelf.next_deadline() == 560
    if power is Power.OFF and stored is Phase.READY:
        assert shelf.unit("pi").boot_id is None


def test_an_alert_of_an_earlier_session_does_not_stand_for_ever() -> None:
    shelf = Shelf("lab", 4, {"pi": BoardPlan(), "bone": BoardPlan()}, at(0))
    well = shelf.restore("pi", BoardMemory(Phase.READY, None, START, "on", "boot-1"), Power.ON, at(1))
    names = ("power", "unreadable", "boot", "console")
    assert well.alerts == [("pi", name, None) for name in names]
    ill = shelf.restore("bone", BoardMemory(Phase.FAULT, "lies", START, "on", None), Power.OFF, at(1))
    assert ill.alerts == []
    shelf.command_begun("bone", PowerAction.ON, Purpose.OPERATOR)
    assert ("bone", "power", None) in shelf.command_ended("bone", PowerAction.ON, Power.ON, None, at(2)).alerts


def test_maintenance_and_back(shelf: Shelf) -> None:
    bring_up(shelf)
    shelf.maintenance("pi", on=True, moment=at(30))
    shelf.power_read("pi", Power.OFF, at(31))
    shelf.power_read("pi", Power.ON, at(32))
    assert shelf.state("pi").phase is Phase.MAINTENANCE
    shelf.maintenance("pi", on=False, moment=at(40))
    assert shelf.state("pi").phase is Phase.STARTING


def test_a_board_of_somebody_else(shelf: Shelf) -> None:
    assert "elsewhere" not in shelf
    with pytest.raises(UnknownBoardError):
        shelf.state("elsewhere")
