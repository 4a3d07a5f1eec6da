"""The switching core against devices of every temper. No clock, no I/O."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.power import switching
from agent.power.driver import Timing
from agent.power.errors import (
    AuthenticationError,
    NotVerifiedError,
    RefusedError,
    UnreachableError,
)
from agent.power.feed import OutletRef, feed_power
from agent.power.switch_messages import (
    CallFailed,
    CannotReadBack,
    Finish,
    Read,
    ReadBack,
    Set,
    SetAccepted,
    TimePassed,
)
from agent.power.switching import FeedSwitch, State, Symbol, TransitionError
from tests.agent.power.switch_devices import OTHER_REF, REF, TIMING, Device, drive, unreachable
from wire.phases import Power, PowerAction


@pytest.mark.parametrize("action", [PowerAction.ON, PowerAction.OFF])
def test_a_quick_outlet_is_verified_without_any_wait(action):
    device = Device(on=action is PowerAction.OFF)
    machine, error, _, waits = drive(action, {REF: device})
    assert error is None
    assert waits == []
    assert machine.readings == {REF: Power(action)}
    assert len(device.sets) == 1


def test_a_slow_outlet_is_polled_with_growing_pauses():
    device = Device(follows_after_s=3.0)
    machine, error, _, waits = drive(PowerAction.ON, {REF: device})
    assert error is None
    assert machine.readings[REF] is Power.ON
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(TIMING.poll_interval_s)
    assert max(waits) <= switching.POLL_MAX_S
    assert len(device.sets) == 1


def test_an_outlet_that_lies_is_named_as_such_at_the_deadline():
    device = Device(lies=True)
    machine, error, ended, _ = drive(PowerAction.ON, {REF: device})
    assert isinstance(error, NotVerifiedError)
    assert machine.readings[REF] is Power.OFF
    assert len(device.sets) == 1
    assert 5.0 <= ended - 100.0 <= 5.6
    assert "pdu:1" in str(error)


@pytest.mark.parametrize(("mood", "kind"), [("refused", RefusedError), ("auth", AuthenticationError)])
def test_an_answer_of_no_is_never_repeated_and_the_power_is_still_told(mood, kind):
    device = Device(on=True, set_moods=[mood])
    machine, error, _, _ = drive(PowerAction.OFF, {REF: device})
    assert isinstance(error, kind)
    assert len(device.sets) == 1
    assert machine.readings[REF] is Power.ON


def test_a_lost_set_is_read_back_before_it_is_repeated():
    device = Device(set_moods=["done-but-silent"])
    _, error, _, _ = drive(PowerAction.ON, {REF: device})
    assert error is None
    assert len(device.sets) == 1, "it had been carried out: repeating it would have been blind"


def test_a_set_that_never_arrived_is_repeated_with_back_off():
    device = Device(set_moods=["silent", "silent"])
    _, error, _, waits = drive(PowerAction.ON, {REF: device})
    assert error is None
    assert [on for _, on in device.sets] == [True, True, True]
    assert switching.BACK_OFF_FIRST_S in waits
    assert 2 * switching.BACK_OFF_FIRST_S in waits


def test_a_device_that_stays_silent_ends_as_unreachable_with_power_unknown():
    device = Device(set_moods=["silent"] * 9, get_moods=["silent"] * 99)
    machine, error, ended, _ = drive(PowerAction.ON, {REF: device})
    assert isinstance(error, UnreachableError)
    assert REF not in machine.readings
    assert len(device.sets) == TIMING.attempts
    assert ended - 100.0 < 3 * (1 + 1 + 0.6) + 1, "nobody waits the whole deadline for a device that is away"


def test_accepted_and_then_silent_is_unreachable_not_verified():
    device = Device(get_moods=["silent"] * 99)
    machine, error, _, _ = drive(PowerAction.ON, {REF: device})
    assert isinstance(error, UnreachableError)
    assert REF not in machine.readings
    assert len(device.sets) == 1


def test_cycle_waits_the_minimum_off_time_from_the_verified_off():
    device = Device(on=True, follows_after_s=0.3)
    _, error, _, _ = drive(PowerAction.CYCLE, {REF: device})
    assert error is None
    (off_at, off), (on_at, on) = device.edges
    assert (off, on) == (False, True)
    assert on_at - off_at >= TIMING.min_off_s


def test_cycle_of_an_outlet_that_was_off_already_waits_no_more():
    device = Device(on=False)
    _, error, _, waits = drive(PowerAction.CYCLE, {REF: device}, off_since={REF: 90.0})
    assert error is None
    assert waits == []
    assert device.on_edges == 1


def test_an_off_time_that_the_hardware_contradicts_does_not_count():
    device = Device(on=True)
    _, error, _, _ = drive(PowerAction.CYCLE, {REF: device}, off_since={REF: 90.0})
    assert error is None
    (off_at, _), (on_at, _) = device.edges
    assert on_at - off_at >= TIMING.min_off_s


def test_on_right_after_off_waits_the_rest():
    device = Device(on=False)
    _, error, _, waits = drive(PowerAction.ON, {REF: device}, off_since={REF: 99.5})
    assert error is None
    assert waits == [pytest.approx(1.5)]


def test_cycle_never_goes_on_when_off_was_not_verified():
    device = Device(on=True, lies=True)
    _, error, _, _ = drive(PowerAction.CYCLE, {REF: device})
    assert isinstance(error, NotVerifiedError)
    assert [on for _, on in device.sets] == [False]


def test_without_read_back_nothing_is_claimed_and_the_off_time_is_still_kept():
    device = Device(on=True, blind=True)
    machine, error, _, waits = drive(PowerAction.CYCLE, {REF: device})
    assert error is None
    assert machine.readings == {}
    assert sum(waits) >= TIMING.min_off_s
    assert machine.off_since == {}


def test_a_lost_set_without_read_back_is_not_repeated():
    device = Device(blind=True, set_moods=["silent"])
    _, error, _, _ = drive(PowerAction.ON, {REF: device})
    assert isinstance(error, UnreachableError)
    assert len(device.sets) == 1


def test_a_reading_from_before_the_set_is_never_reported():
    """A cable may answer the first question and turn out to be mute after the set."""
    machine = FeedSwitch(PowerAction.OFF, (REF,), {REF: TIMING}, off_since={REF: 90.0})
    assert machine.start(100.0) == Read(REF)
    assert machine.handle(100.0, ReadBack(Power.OFF)) == Set(REF, on=False)
    assert machine.handle(100.0, SetAccepted()) == Read(REF)
    assert machine.handle(100.0, CannotReadBack()) == Finish(None)
    assert machine.readings == {}


def test_a_feed_goes_on_in_order_and_off_in_reverse():
    order = []
    devices = {REF: Device(on=True), OTHER_REF: Device(on=True)}
    for ref, device in devices.items():
        device.set = lambda now, on, ref=ref, was=device.set: (order.append((ref, on)), was(now, on))
    _, error, _, _ = drive(PowerAction.CYCLE, devices)
    assert error is None
    assert order == [(OTHER_REF, False), (REF, False), (REF, True), (OTHER_REF, True)]


def test_the_next_outlet_is_touched_after_the_one_before_has_settled():
    log = []
    for action, waited in ((PowerAction.ON, REF), (PowerAction.OFF, OTHER_REF)):
        devices = {REF: Device(on=action is PowerAction.OFF), OTHER_REF: Device(on=action is PowerAction.OFF)}
        _, error, _, waits = drive(action, devices, settle_after_s={waited: 3.0})
        assert error is None
        assert waits == [3.0]
        (first, _), (second, _) = sorted(device.edges[0] for device in devices.values())
        log.append(second - first)
    assert all(gap >= 3.0 for gap in log)


def test_after_the_last_outlet_nothing_settles():
    _, error, _, waits = drive(PowerAction.ON, {REF: Device(on=False)}, settle_after_s={REF: 3.0})
    assert (error, waits) == (None, [])


def test_only_the_outlets_that_may_go_off_do():
    devices = {REF: Device(on=True), OTHER_REF: Device(on=True)}
    machine, error, _, _ = drive(PowerAction.CYCLE, devices, off_feed=(OTHER_REF,))
    assert error is None
    assert [on for _, on in devices[REF].sets] == [True]
    assert [on for _, on in devices[OTHER_REF].sets] == [False, True]
    assert machine.readings == {REF: Power.ON, OTHER_REF: Power.ON}


@pytest.mark.parametrize("attempts", [1, 3, 20])
@pytest.mark.parametrize("verify_deadline_s", [5.0, 60.0])
@pytest.mark.parametrize(
    "moods", [{"set_moods": ["silent"] * 99, "get_moods": ["silent"] * 99}, {"get_moods": ["silent"] * 99}]
)
def test_a_deaf_device_is_reported_by_its_answer_deadline(attempts, verify_deadline_s, moods):
    timing = replace(
        TIMING, attempts=attempts, verify_deadline_s=verify_deadline_s, settle_s=3.0, answer_deadline_s=6.0
    )
    begun = 100.0
    device = Device(on=False, **{name: list(words) for name, words in moods.items()})
    _, error, ended, _ = drive(PowerAction.ON, {REF: device}, timing=timing, now=begun)
    assert isinstance(error, UnreachableError)
    assert error.attempts == len(device.sets) <= attempts
    assert ended - begun <= 6.0 + 2 * 1.0, "the deadline, and the calls that were under way"


def test_a_device_that_answers_now_and_then_is_not_given_up():
    timing = replace(TIMING, attempts=1, verify_deadline_s=60.0, settle_s=3.0, answer_deadline_s=6.0)
    device = Device(on=False, follows_after_s=20.0, get_moods=["silent", "silent", "ok"] * 60)
    _, error, ended, _ = drive(PowerAction.ON, {REF: device}, timing=timing)
    assert error is None
    assert ended - 100.0 >= 20.0


def test_every_pair_of_state_and_symbol_either_steps_or_is_named():
    events = {
        Symbol.ACCEPTED: SetAccepted(),
        Symbol.MATCH: ReadBack(Power.ON),
        Symbol.OTHER: ReadBack(Power.OFF),
        Symbol.LATE: ReadBack(Power.OFF),
        Symbol.BLIND: CannotReadBack(),
        Symbol.LOST: CallFailed(unreachable()),
        Symbol.FINAL: CallFailed(RefusedError("no", controller="pdu")),
        Symbol.TIMER: TimePassed(),
    }
    stepped = set()
    for state in State:
        for symbol, event in events.items():
            machine = FeedSwitch(PowerAction.ON, (REF,), {REF: TIMING})
            machine.start(0.0)
            machine.state = state
            machine._deadline = machine._silence_deadline = 0.0 if symbol is Symbol.LATE else 1e9
            if machine._symbol(1.0, event) is not symbol:
                continue  # LOST and LATE mean something else outside their states
            if (state, symbol) in switching.TRANSITIONS:
                machine.handle(1.0, event)
                stepped.add((state, symbol))
            else:
                with pytest.raises(TransitionError, match=str(state)):
                    machine.handle(1.0, event)
    assert stepped == set(switching.TRANSITIONS)


moods = st.lists(st.sampled_from(["ok", "silent", "done-but-silent", "refused", "auth", "conf"]), max_size=6)
reads = st.lists(st.sampled_from(["ok", "silent", "unknown", "auth"]), max_size=12)
devices_of_any_temper = st.builds(
    Device,
    on=st.booleans(),
    lies=st.booleans(),
    follows_after_s=st.sampled_from([0.0, 0.01, 0.4, 1.0, 4.0, 7.0]),
    set_moods=moods,
    get_moods=reads,
    blind=st.booleans(),
)


@settings(max_examples=600, deadline=None)
@given(
    action=st.sampled_from(PowerAction),
    feed=st.lists(devices_of_any_temper, min_size=1, max_size=3),
    off_ago_s=st.one_of(st.none(), st.floats(0, 10)),
    attempts=st.integers(1, 4),
)
def test_whatever_the_devices_do_only_what_was_read_back_is_reported(action, feed, off_ago_s, attempts):
    refs = [OutletRef("pdu", str(number)) for number in range(len(feed))]
    devices = dict(zip(refs, feed, strict=True))
    timing = Timing(5.0, 0.02, 0.5, 2.0, attempts, 1.0)
    known = {} if off_ago_s is None else {ref: 100.0 - off_ago_s for ref in refs if not devices[ref].on}
    were_on = {ref: device.on for ref, device in devices.items()}
    machine, error, _, _ = drive(action, devices, off_since=known, timing=timing)

    for ref, device in devices.items():
        # What is reported is the last read-back, and no set came after it.
        assert machine.readings.get(ref) is device.last_read or machine.readings.get(ref) is None
        # At most one ON edge per operation; a plain on or off makes no second edge at all.
        assert device.on_edges <= 1
        assert len([1 for _, on in device.sets if on]) <= attempts
        # Never off again after it was told to go on.
        told = [on for _, on in device.sets]
        assert told == sorted(told)
        if action is PowerAction.CYCLE and were_on[ref] and device.on_edges and not device.blind:
            off_at = next(when for when, on in device.edges if not on)
            on_at = next(when for when, on in device.edges if on)
            assert on_at - off_at >= timing.min_off_s
    if error is None:
        wanted = Power.OFF if action is PowerAction.OFF else Power.ON
        for ref, device in devices.items():
            assert device.blind or machine.readings[ref] is wanted
            assert device.blind or device.on == (wanted is Power.ON)
    reported = feed_power(machine.readings.get(ref, Power.UNKNOWN) for ref in refs)
    if reported is not Power.UNKNOWN:
        assert all(device.last_read is reported for device in devices.values())


@settings(max_examples=100, deadline=None)
@given(on=st.booleans(), action=st.sampled_from(PowerAction), read=reads.filter(lambda moods: "auth" not in moods))
def test_a_liar_is_never_believed(on, action, read):
    device = Device(on=on, lies=True, get_moods=[mood for mood in read if mood != "silent"])
    _, error, _, _ = drive(action, {REF: device})
    if on == (action is PowerAction.ON) and action is not PowerAction.CYCLE:
        assert error is None, "it is what was wanted, whoever did it"
    else:
        assert isinstance(error, NotVerifiedError)
