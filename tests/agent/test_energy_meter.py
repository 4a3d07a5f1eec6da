"""Integration of readings: what is measured, what is a gap, and that no second and no watt hour is lost between."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.energy import DAY_S, HOUR_S, Amount, BoardRecord, Condition, MeterReading
from agent.energy_meter import DAYS_KEPT_S, MAX_COUNTER_GAP_S, EnergyMeter, Unstored
from agent.unit import Moment
from wire.energy import EnergyState
from wire.phases import Phase, Power

EPOCH = datetime(2026, 11, 21, 10, tzinfo=UTC)
GAP_S = 30.0
READY = Condition(Power.ON, Phase.READY)
BUSY = Condition(Power.ON, Phase.BUSY)
OFF = Condition(Power.OFF, Phase.OFF)
ASLEEP = Condition(Power.OFF, Phase.SLEEPING)
LOST = Condition(Power.UNKNOWN, Phase.READY)


def at(seconds: float) -> Moment:
    return Moment(1000.0 + seconds, EPOCH + timedelta(seconds=seconds))


def watts(value: float) -> MeterReading:
    return MeterReading(power_w=value)


def counter(value: float) -> MeterReading:
    return MeterReading(energy_wh=value)


def fresh() -> EnergyMeter:
    meter = EnergyMeter(GAP_S)
    meter.begin("b", None, at(0))
    return meter


def joules(amount: Amount) -> float:
    return amount.wh * 3600


def fed(*steps: tuple[float, MeterReading | Condition | None, Condition | None]) -> dict[EnergyState, Amount]:
    """Totals after `(time, reading, condition)`, where `(time, condition, None)` is a change heard of."""
    meter = fresh()
    for when, what, condition in steps:
        if isinstance(what, Condition):
            meter.changed("b", what, at(when))
        else:
            assert condition is not None
            meter.read("b", what, condition, at(when))
    return meter.record("b").totals


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        (Condition(Power.ON, Phase.READY), EnergyState.IDLE),
        (Condition(Power.ON, Phase.BUSY), EnergyState.BUSY),
        (Condition(Power.ON, Phase.NETBOOT), EnergyState.COMING_UP),
        (Condition(Power.ON, Phase.FAULT), EnergyState.ON),
        (Condition(Power.ON, Phase.SLEEPING), EnergyState.ON),
        (Condition(Power.OFF, Phase.SLEEPING), EnergyState.SLEEPING),
        (Condition(Power.OFF, Phase.FAULT), EnergyState.OFF),
        (Condition(Power.UNKNOWN, Phase.READY), EnergyState.UNKNOWN),
    ],
)
def test_power_read_back_goes_before_phase(condition: Condition, state: EnergyState) -> None:
    assert condition.state is state


def test_power_runs_straight_between_two_readings() -> None:
    totals = fed((0, watts(4), READY), (10, watts(6), READY))
    assert totals == {EnergyState.IDLE: Amount(10, 0, pytest.approx(50 / 3600))}


def test_a_change_of_phase_cuts_the_interval_where_it_happened() -> None:
    totals = fed((0, watts(0), READY), (4, BUSY, None), (10, watts(10), BUSY))
    assert joules(totals[EnergyState.IDLE]) == pytest.approx(8)
    assert joules(totals[EnergyState.BUSY]) == pytest.approx(42)


def test_a_change_of_power_is_a_step() -> None:
    totals = fed((0, watts(5), READY), (4, ASLEEP, None), (10, watts(0.5), ASLEEP))
    assert (totals[EnergyState.IDLE].measured_s, joules(totals[EnergyState.IDLE])) == (4, pytest.approx(20))
    assert (totals[EnergyState.SLEEPING].measured_s, joules(totals[EnergyState.SLEEPING])) == (6, pytest.approx(3))


def test_a_step_without_a_reading_after_it_is_measured_up_to_it_only() -> None:
    totals = fed((0, watts(5), READY), (4, OFF, None), (20, None, OFF), (40, None, OFF))
    assert totals[EnergyState.IDLE] == Amount(4, 0, pytest.approx(20 / 3600))
    assert totals[EnergyState.OFF] == Amount(0, 36, 0)


def test_a_reading_after_a_step_holds_back_to_it() -> None:
    totals = fed((10, None, OFF), (20, READY, None), (25, watts(3), READY))
    assert totals[EnergyState.IDLE] == Amount(5, 0, pytest.approx(15 / 3600))
    assert totals[EnergyState.OFF].measured_s == 0


def test_what_lies_between_two_steps_was_seen_by_nobody() -> None:
    totals = fed((0, watts(5), READY), (4, OFF, None), (9, READY, None), (12, watts(7), READY))
    assert totals[EnergyState.OFF] == Amount(0, 5, 0)
    assert totals[EnergyState.IDLE] == Amount(7, 0, pytest.approx((20 + 21) / 3600))


def test_nothing_holds_up_to_a_read_back_that_failed() -> None:
    totals = fed((0, watts(5), READY), (4, LOST, None), (10, watts(5), LOST))
    assert totals[EnergyState.IDLE] == Amount(0, 4, 0)
    assert totals[EnergyState.UNKNOWN] == Amount(0, 6, 0)


def test_a_missed_reading_is_bridged_and_a_gap_is_not() -> None:
    bridged = fed((0, watts(4), READY), (10, None, READY), (20, watts(4), READY))
    assert bridged[EnergyState.IDLE] == Amount(20, 0, pytest.approx(80 / 3600))
    for steps in (
        ((31, watts(4), READY),),
        ((10, None, READY), (20, None, READY), (31, None, READY), (31.5, watts(4), READY)),
    ):
        gap = fed((0, watts(4), READY), *steps)[EnergyState.IDLE]
        assert (gap.measured_s, gap.wh) == (0, 0)
        assert gap.unmeasured_s == pytest.approx(31, abs=0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.1, 1e9])
def test_readings_that_cannot_be_true_are_dropped_and_counted(bad: float) -> None:
    meter = fresh()
    meter.read("b", watts(4), READY, at(0))
    meter.read("b", watts(bad), READY, at(10))
    meter.read("b", watts(4), READY, at(20))
    assert meter.dropped("b") == 1
    assert meter.record("b").totals[EnergyState.IDLE] == Amount(20, 0, pytest.approx(80 / 3600))


def test_a_counter_measures_across_a_gap() -> None:
    totals = fed((0, counter(100), READY), (100, None, READY), (600, counter(102), READY))
    assert totals[EnergyState.IDLE] == Amount(600, 0, pytest.approx(2))


def test_a_counter_gives_nothing_to_an_outlet_that_is_off() -> None:
    totals = fed((0, counter(100), READY), (100, OFF, None), (300, counter(102), OFF))
    assert totals[EnergyState.IDLE] == Amount(100, 0, pytest.approx(2))
    assert totals[EnergyState.OFF] == Amount(200, 0, 0)


def test_a_counter_that_started_anew_leaves_a_gap() -> None:
    totals = fed((0, counter(100), READY), (60, counter(0.5), READY), (120, counter(1.5), READY))
    assert totals[EnergyState.IDLE] == Amount(60, 60, pytest.approx(1))


def test_a_counter_that_jumps_is_dropped() -> None:
    meter = fresh()
    meter.read("b", counter(0), READY, at(0))
    meter.read("b", counter(1e9), READY, at(10))
    assert meter.dropped("b") == 1
    assert meter.record("b").totals[EnergyState.IDLE] == Amount(0, 10, 0)


def test_a_counter_that_was_silent_for_too_long_leaves_a_gap() -> None:
    late = MAX_COUNTER_GAP_S + 1
    assert fed((0, counter(1), READY), (late, counter(2), READY))[EnergyState.IDLE] == Amount(0, late, 0)


def test_readings_of_watts_go_before_the_counter_while_they_come() -> None:
    both = [MeterReading(power_w=3.6, energy_wh=float(value)) for value in (10, 10, 11)]
    totals = fed((0, both[0], READY), (10, both[1], READY), (100, both[2], READY))
    assert totals[EnergyState.IDLE] == Amount(100, 0, pytest.approx(0.01 + 1))


def test_the_time_of_a_restart_is_unmeasured_and_unknown() -> None:
    meter = fresh()
    meter.read("b", watts(4), READY, at(10))
    record = meter.record("b")
    again = EnergyMeter(GAP_S)
    again.begin("b", record, Moment(5.0, EPOCH + timedelta(seconds=15)))
    again.changed("b", READY, Moment(5.0, EPOCH + timedelta(seconds=15)))
    again.read("b", watts(4), READY, Moment(6.0, EPOCH + timedelta(seconds=16)))
    totals = again.record("b").totals
    assert totals[EnergyState.UNKNOWN].unmeasured_s == pytest.approx(5 + 10)  # nothing was known before the first, too
    assert totals[EnergyState.IDLE].unmeasured_s == pytest.approx(1)


def test_a_counter_measures_what_was_used_while_the_agent_was_away() -> None:
    record = BoardRecord(EPOCH, EPOCH, 100.0, {})
    meter = EnergyMeter(GAP_S)
    meter.begin("b", record, at(600))
    meter.read("b", counter(101), READY, at(600))
    meter.read("b", counter(102), READY, at(610))
    totals = meter.record("b").totals
    assert sum(amount.wh for amount in totals.values()) == pytest.approx(2)
    assert totals[EnergyState.UNKNOWN].measured_s == pytest.approx(600)


@pytest.mark.parametrize(("away_s", "counted_s"), [(-7200.0, 0.0), (50.0 * 365 * DAY_S, float(DAYS_KEPT_S))])
def test_a_wall_clock_that_jumped_over_a_restart_is_bounded(away_s: float, counted_s: float) -> None:
    meter = EnergyMeter(GAP_S)
    meter.begin("b", BoardRecord(EPOCH, EPOCH, None, {}), Moment(7.0, EPOCH + timedelta(seconds=away_s)))
    meter.read("b", None, READY, Moment(8.0, EPOCH + timedelta(seconds=away_s + 1)))
    total = sum(amount.total_s for amount in meter.record("b").totals.values())
    assert total == pytest.approx(counted_s + 1)


def test_buckets_are_cut_at_the_hour_by_the_watts_on_both_sides() -> None:
    meter = EnergyMeter(GAP_S)
    begin = Moment(0.0, datetime(2026, 11, 21, 23, 59, 50, tzinfo=UTC))
    meter.begin("b", None, begin)
    meter.read("b", watts(0), READY, begin)
    meter.read("b", watts(20), READY, Moment(20.0, begin.wall + timedelta(seconds=20)))
    buckets = meter.take().buckets
    midnight = int(datetime(2026, 11, 22, tzinfo=UTC).timestamp())
    found = {(key.length_s, key.start_s - midnight): round(joules(amount), 6) for key, amount in buckets.items()}
    assert found == {(HOUR_S, -HOUR_S): 50, (DAY_S, -DAY_S): 50, (HOUR_S, 0): 150, (DAY_S, 0): 150}


def test_power_is_not_told_when_it_is_old_or_the_board_was_switched_since() -> None:
    meter = fresh()
    meter.read("b", watts(4), READY, at(0))
    assert meter.power_w("b", at(10)) == 4
    assert meter.power_w("b", at(31)) is None
    meter.changed("b", OFF, at(11))
    assert meter.power_w("b", at(12)) is None


def test_time_that_stands_still_or_runs_back_counts_nothing() -> None:
    totals = fed((10, watts(4), READY), (10, watts(6), READY), (5, watts(8), READY), (20, watts(6), READY))
    assert totals[EnergyState.IDLE] == Amount(10, 0, pytest.approx(60 / 3600))


def test_what_was_put_back_comes_again() -> None:
    meter = fresh()
    meter.read("b", watts(4), READY, at(0))
    meter.read("b", watts(4), READY, at(10))
    taken = meter.take()
    assert meter.take() == Unstored()
    meter.put_back(taken)
    assert meter.take() == taken


# --- of any series ----------------------------------------------------------------------------------------------

conditions = st.sampled_from([READY, BUSY, OFF, ASLEEP, LOST])
values = st.none() | st.floats(0, 100) | st.sampled_from([math.nan, -1.0])
readings = st.builds(MeterReading, values, st.none() | st.floats(0, 1000))
steps = st.lists(
    st.tuples(st.floats(0.01, 3000) | st.floats(0.01, 20), st.none() | readings, conditions, st.booleans()),
    min_size=1, max_size=40,
)  # fmt: skip


def play(meter: EnergyMeter, series, begin_s: float = 0.0) -> float:
    now = begin_s
    for wait_s, reading, condition, heard in series:
        now += wait_s
        if heard:
            meter.changed("b", condition, at(now))
        else:
            meter.read("b", reading, condition, at(now))
    return now


def summed(taken: list[Unstored], length_s: int) -> Amount:
    total = Amount()
    for unstored in taken:
        for key, amount in unstored.buckets.items():
            if key.length_s == length_s:
                total.add(amount)
    return total


def close(one: Amount, other: Amount) -> None:
    # Wall time has a resolution of 2e-7 s as a float of this century, at each of some hundred cuts.
    for name in ("measured_s", "unmeasured_s", "wh"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6, abs=1e-3), name


@given(steps)
def test_every_second_is_accounted_for_once_and_nothing_is_negative(series) -> None:
    meter = fresh()
    end = play(meter, series)
    meter.read("b", None, READY, at(end + MAX_COUNTER_GAP_S + 1))  # closes whatever was still bridged
    totals = meter.record("b").totals.values()
    assert sum(amount.total_s for amount in totals) == pytest.approx(end + MAX_COUNTER_GAP_S + 1)
    assert all(min(amount.measured_s, amount.unmeasured_s, amount.wh) >= 0 for amount in totals)
    whole = Amount()
    for amount in totals:
        whole.add(amount)
    taken = [meter.take()]
    close(summed(taken, HOUR_S), whole)
    close(summed(taken, DAY_S), whole)


@given(st.lists(st.tuples(st.floats(0.1, 29), st.floats(0, 100)), min_size=2, max_size=30), st.data())
def test_a_finer_series_on_the_same_line_has_the_same_energy(line, data) -> None:
    """Any reading more that lies on the line between two others changes nothing."""
    coarse, fine = fresh(), fresh()
    now, last = 0.0, None
    for wait_s, power in line:
        if last is not None:
            share = data.draw(st.floats(0.01, 0.99))
            fine.read("b", watts(last + (power - last) * share), READY, at(now + wait_s * share))
        now += wait_s
        coarse.read("b", watts(power), READY, at(now))
        fine.read("b", watts(power), READY, at(now))
        last = power
    close(fine.record("b").totals[EnergyState.IDLE], coarse.record("b").totals[EnergyState.IDLE])


@given(steps, st.sets(st.integers(0, 39)))
def test_storing_in_between_changes_nothing(series, cuts) -> None:
    whole, cut = fresh(), fresh()
    play(whole, series)
    taken, now = [], 0.0
    for number, step in enumerate(series):
        now = play(cut, [step], now)
        if number in cuts:
            taken.append(cut.take())
    taken.append(cut.take())
    assert cut.record("b") == whole.record("b")
    at_once = [whole.take()]
    for length_s in (HOUR_S, DAY_S):
        close(summed(taken, length_s), summed(at_once, length_s))


@given(st.lists(st.tuples(st.floats(1, 3000), st.floats(0, 6)), min_size=1, max_size=20), st.data())
def test_a_counter_loses_nothing_however_it_is_read(growth, data) -> None:
    """Whichever of its readings come through, the sum is what the counter went up."""
    meter = fresh()
    meter.read("b", counter(7), READY, at(0))
    now, total = 0.0, 7.0
    for number, (wait_s, more) in enumerate(growth):
        now, total = now + wait_s, total + more
        missed = number < len(growth) - 1 and wait_s < 50 and data.draw(st.booleans())
        meter.read("b", None if missed else counter(total), READY, at(now))
    assert meter.record("b").totals[EnergyState.IDLE].wh == pytest.approx(total - 7, abs=1e-6)
