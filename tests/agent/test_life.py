import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.life import TABLE, Action, BoardLife, LifeEvent, PhaseChange, mermaid
from wire.phases import Phase, Power

ALL = [(phase, event) for phase in Phase for event in LifeEvent]


@pytest.mark.parametrize(("phase", "event"), ALL)
def test_every_phase_takes_every_event(phase: Phase, event: LifeEvent) -> None:
    life = BoardLife(60.0, boot_retries=0, phase=phase)
    outcomes = life.on(event, 100.0, "why")
    expected = TABLE[phase].get(event, phase)
    assert life.phase is expected
    if expected is phase:
        assert outcomes == []
    else:
        assert outcomes == [PhaseChange(phase, expected, "why")]
        assert life.reason == "why"
    coming_up_now = life.phase.coming_up and not phase.coming_up
    assert (life.boot_deadline == 160.0) == coming_up_now


def test_what_a_person_set_aside_only_a_person_takes_back() -> None:
    for event in LifeEvent:
        if event is not LifeEvent.MAINTENANCE_OFF:
            life = BoardLife(60.0, phase=Phase.MAINTENANCE)
            life.on(event, 0.0)
            assert life.phase is Phase.MAINTENANCE


def test_a_life_as_it_should_be() -> None:
    life = BoardLife(60.0)
    seen = []
    for event in (
        LifeEvent.POWER_ON,
        LifeEvent.NETBOOT_SEEN,
        LifeEvent.BOOT_FILE_SENT,
        LifeEvent.KERNEL_SENT,
        LifeEvent.NETBOOT_SEEN,  # the kernel's own DHCP client
        LifeEvent.ONLINE,
        LifeEvent.WORK_BEGUN,
        LifeEvent.WORK_ENDED,
        LifeEvent.SLEEP,
    ):
        seen += [change.new for change in life.on(event, 1.0)]
    assert seen == ["starting", "netboot", "booting", "ready", "busy", "ready", "sleeping"]


def test_a_board_that_does_not_come_up_is_cycled_once_and_then_a_fault() -> None:
    life = BoardLife(60.0, boot_retries=1)
    life.follow_power(Power.ON, 0.0)
    assert not life.boot_overdue(59.9)
    assert life.boot_overdue(60.0)
    assert life.on(LifeEvent.BOOT_TIMEOUT, 60.0, "late") == [Action.CYCLE_FOR_BOOT]
    life.follow_power(Power.OFF, 61.0)
    life.follow_power(Power.ON, 63.0)
    assert not life.boot_overdue(122.0)
    assert life.boot_overdue(123.0)
    life.on(LifeEvent.BOOT_TIMEOUT, 123.0, "late again")
    assert (life.phase, life.reason) == (Phase.FAULT, "late again")
    assert not life.boot_overdue(10_000.0)


def test_retries_come_back_with_a_board_that_came_up() -> None:
    life = BoardLife(60.0, boot_retries=1)
    life.follow_power(Power.ON, 0.0)
    life.on(LifeEvent.BOOT_TIMEOUT, 60.0)
    life.follow_power(Power.OFF, 61.0)
    life.follow_power(Power.ON, 63.0)
    life.on(LifeEvent.ONLINE, 70.0)
    life.on(LifeEvent.GONE, 80.0)
    assert life.on(LifeEvent.BOOT_TIMEOUT, 140.0) == [Action.CYCLE_FOR_BOOT]


@given(st.lists(st.tuples(st.sampled_from(LifeEvent), st.floats(0, 100)), max_size=60))
def test_no_story_cycles_for_ever_or_waits_without_a_deadline(story: list[tuple[LifeEvent, float]]) -> None:
    life = BoardLife(60.0, boot_retries=2)
    now, cycles_since_up = 0.0, 0
    for event, step in story:
        now += step
        for outcome in life.on(event, now):
            if outcome is Action.CYCLE_FOR_BOOT:
                cycles_since_up += 1
            elif outcome.new in {Phase.READY, Phase.OFF, Phase.SLEEPING}:
                cycles_since_up = 0
        assert cycles_since_up <= 2
        assert life.phase.coming_up == (life.boot_deadline is not None)


def test_a_board_that_never_registers_is_never_late() -> None:
    life = BoardLife(None)
    life.follow_power(Power.ON, 0.0)
    assert life.phase is Phase.STARTING
    assert not life.boot_overdue(1e9)


def test_the_diagram_shows_every_phase() -> None:
    drawn = mermaid()
    for phase in Phase:
        assert phase.value in drawn
