"""Estimates and savings: never mixed into what was measured, and unknown where nothing is known."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.energy import Amount
from agent.energy_report import (
    BoardFacts,
    Guess,
    Nameplate,
    board_energy,
    figures,
    guesses,
    saved,
    states_of,
    telemetry,
)
from wire.energy import Basis, BoardEnergy, EnergyReport, EnergyState
from wire.payloads import decode, encode

START = datetime(2026, 11, 21, tzinfo=UTC)
IDLE, BUSY, UP, ON = EnergyState.IDLE, EnergyState.BUSY, EnergyState.COMING_UP, EnergyState.ON
SLEEPING, OFF, UNKNOWN = EnergyState.SLEEPING, EnergyState.OFF, EnergyState.UNKNOWN
NOTHING = Nameplate()


def hours(measured: float, unmeasured: float = 0.0, wh: float = 0.0) -> Amount:
    return Amount(measured * 3600, unmeasured * 3600, wh)


def test_own_average_goes_before_the_settings() -> None:
    plate = Nameplate(idle_w=9, busy_w=12, off_w=1)
    drawn = guesses({}, {IDLE: hours(2, wh=8)}, plate)
    assert drawn[IDLE] == Guess(4.0, measured=True)
    assert drawn[BUSY] == drawn[UP] == Guess(12, measured=False)
    assert drawn[SLEEPING] == drawn[OFF] == Guess(1, measured=False)
    assert UNKNOWN not in drawn


def test_the_average_of_the_asked_time_goes_first_when_it_is_long_enough() -> None:
    ever = {IDLE: hours(100, wh=500)}
    assert guesses({IDLE: hours(1, wh=3)}, ever, NOTHING)[IDLE].watts == 3
    assert guesses({IDLE: Amount(599, 0, 3)}, ever, NOTHING)[IDLE].watts == 5
    assert guesses({}, {IDLE: Amount(59, 0, 1)}, NOTHING).get(IDLE) is None


def test_without_watts_for_work_those_for_idling_are_taken() -> None:
    drawn = guesses({}, {}, Nameplate(idle_w=3))
    assert [drawn[state].watts for state in (IDLE, BUSY, UP, ON)] == [3, 3, 3, 3]


def test_an_outlet_that_is_off_passes_nothing_and_that_is_an_estimate() -> None:
    found = figures({OFF: hours(0, 5)}, guesses({}, {}, NOTHING))
    assert (found.measured_wh, found.estimated_wh, found.unknown_s) == (0, 0, 0)
    assert found.measured_s == 0


def test_gaps_are_estimated_apart() -> None:
    amounts = {IDLE: hours(3, 1, wh=9), BUSY: hours(0, 2), OFF: hours(1, 0, wh=0.5)}
    found = figures(amounts, guesses(amounts, amounts, NOTHING))
    assert (found.measured_wh, found.estimated_wh) == (9.5, pytest.approx(3))
    assert (found.total_s, found.on_s, found.measured_s, found.unknown_s) == (7 * 3600, 6 * 3600, 4 * 3600, 2 * 3600)


def test_nothing_known_is_no_figure_and_not_zero() -> None:
    amounts = {IDLE: hours(0, 1), SLEEPING: hours(0, 1)}
    found = figures({IDLE: hours(0, 1)}, guesses(amounts, amounts, NOTHING))
    assert found.estimated_wh is None
    whole = figures(amounts, guesses(amounts, amounts, NOTHING))
    assert (whole.saved_wh, whole.saved_basis, whole.unknown_s) == (None, Basis.UNKNOWN, 3600)


@pytest.mark.parametrize(
    ("sleep", "ever", "plate", "wh", "basis"),
    [
        (hours(10, wh=5), {IDLE: hours(1, wh=4)}, NOTHING, 35, Basis.MEASURED),
        (hours(5, 5, wh=2.5), {IDLE: hours(1, wh=4)}, NOTHING, 35, Basis.ESTIMATED),
        (hours(0, 10), {IDLE: hours(1, wh=4)}, NOTHING, 40, Basis.ESTIMATED),
        (hours(10, wh=5), {}, Nameplate(idle_w=4), 35, Basis.ESTIMATED),
        (hours(0, 10), {}, Nameplate(idle_w=4, off_w=0.5), 35, Basis.ESTIMATED),
        (hours(10, wh=5), {}, NOTHING, None, Basis.UNKNOWN),
        (hours(0, 0), {}, NOTHING, 0, Basis.MEASURED),
        (hours(10, wh=50), {IDLE: hours(1, wh=4)}, NOTHING, -10, Basis.MEASURED),
    ],
)
def test_what_sleep_saved(sleep: Amount, ever, plate: Nameplate, wh: float | None, basis: Basis) -> None:
    amounts = {SLEEPING: sleep}
    found = saved(amounts, guesses(amounts, {**ever, SLEEPING: sleep}, plate))
    assert found == (None if wh is None else pytest.approx(wh), basis)


def facts(ever, plate: Nameplate = NOTHING) -> BoardFacts:
    return BoardFacts(START, ever, plate, 4.2, 0)


def test_telemetry_tells_measured_and_estimated_by_key() -> None:
    both = telemetry(facts({IDLE: hours(3, 1, wh=9)}), 41.0)
    assert (both.power_w, both.energy_wh, both.estimated_wh, both.temperature_c) == (4.2, 9, pytest.approx(3), 41)
    whole = telemetry(facts({IDLE: hours(3, wh=9)}), None)
    assert (whole.energy_wh, whole.estimated_wh, whole.energy_since) == (9, None, START)
    none = telemetry(facts({IDLE: hours(0, 3)}, Nameplate(idle_w=2)), None)
    assert (none.energy_wh, none.estimated_wh) == (None, 6)
    nothing = telemetry(facts({IDLE: hours(0, 3)}), None)
    assert (nothing.energy_wh, nothing.estimated_wh) == (None, None)


amounts_of_a_board = st.dictionaries(
    st.sampled_from(EnergyState),
    st.builds(
        lambda measured, unmeasured, watts: Amount(measured, unmeasured, watts * measured / 3600),
        st.sampled_from([0.0, 1.0, 3600.0]) | st.floats(0, 1e6),
        st.sampled_from([0.0, 1.0, 3600.0]) | st.floats(0, 1e6),
        st.floats(0, 100),
    ),
)
plates = st.builds(Nameplate, *[st.none() | st.floats(0, 50)] * 3)


@given(st.lists(amounts_of_a_board, max_size=6), plates)
def test_days_add_up_to_the_whole(days, plate: Nameplate) -> None:
    periods = {START + timedelta(days=number): day for number, day in enumerate(days)}
    ever = {state: amount for day in days for state, amount in day.items()}
    board = board_energy("b", facts(ever, plate), periods, listed=True)
    for name in ("total_s", "on_s", "sleeping_s", "measured_s", "unknown_s", "measured_wh"):
        whole = getattr(board, name)
        assert sum(getattr(period, name) for period in board.periods) == pytest.approx(whole, abs=1e-6), name
        assert whole >= 0
    for name in ("estimated_wh", "saved_wh"):
        parts = [getattr(period, name) for period in board.periods]
        assert sum(part or 0.0 for part in parts) == pytest.approx(getattr(board, name) or 0.0, abs=1e-6), name
    assert board.total_s == pytest.approx(sum(s.measured_s + s.unmeasured_s for s in board.states), abs=1e-6)
    report = EnergyReport(since=START, until=START, boards=[board])
    assert decode(EnergyReport, encode(report)) == report


@given(amounts_of_a_board, plates)
def test_a_measured_figure_never_depends_on_the_settings(amounts, plate: Nameplate) -> None:
    with_plate = figures(amounts, guesses(amounts, amounts, plate))
    without = figures(amounts, guesses(amounts, amounts, NOTHING))
    assert (with_plate.measured_wh, with_plate.measured_s) == (without.measured_wh, without.measured_s)
    if without.saved_basis is Basis.MEASURED:
        assert with_plate.saved_wh == without.saved_wh
    assert with_plate.unknown_s <= without.unknown_s
    assert [share.state for share in states_of(amounts, {})] == [
        state for state in EnergyState if state in amounts and amounts[state].total_s > 0
    ]


def test_a_board_that_was_never_measured_says_so() -> None:
    board = board_energy("b", facts({IDLE: hours(0, 1)}), {START: {IDLE: hours(0, 1)}}, listed=False)
    assert isinstance(board, BoardEnergy)
    assert not board.metered
    assert board.periods == []
    assert board_energy("b", facts({IDLE: hours(1)}), {}, listed=False).metered
