"""The transfer's state machine, rule by rule; against a bad network: test_tftp_network.py."""

import itertools

import pytest

from netboot.tftp_packet import encode_ack, encode_error
from netboot.tftp_timing import (
    CLEAN_IN_A_ROW,
    GIVE_UP_S,
    GUARD_S,
    INITIAL_RTO_S,
    LOSSES_IN_A_ROW,
    MAX_GAP_S,
    MAX_GUARDED_RESENDS,
    MIN_BURST,
    MIN_RTO_S,
    QUIET_END_S,
    RESENT_FACTOR,
    RESENT_GRACE,
)
from netboot.tftp_transfer import Outcome, Span, Transfer


def transfer(size=5000, block_bytes=512, window=1, *, with_oack=False, now=0.0, **more):
    return Transfer(size=size, block_bytes=block_bytes, window=window, with_oack=with_oack, now=now, **more)


def test_lockstep_from_start_to_end():
    machine = transfer(1000)
    assert machine.start(0) == Span(1, 1)
    assert machine.extent(1) == (0, 512)
    assert machine.on_packet(encode_ack(1), 0.001) == Span(2, 2)
    assert machine.extent(2) == (512, 488)
    assert machine.on_packet(encode_ack(2), 0.002) is None
    assert machine.outcome is Outcome.COMPLETE


@pytest.mark.parametrize(("size", "blocks", "last"), [(0, 1, 0), (511, 1, 511), (512, 2, 0), (513, 2, 1), (1024, 3, 0)])
def test_the_last_block_is_always_short(size, blocks, last):
    machine = transfer(size)
    assert machine.total == blocks
    assert machine.extent(blocks)[1] == last


def test_oack_is_block_0():
    machine = transfer(with_oack=True, window=4)
    assert machine.start(0) == Span(0, 0)
    assert machine.on_packet(encode_ack(1), 0.1) is None
    assert machine.on_packet(encode_ack(0), 0.1) == Span(1, 4)
    assert machine.heard


@pytest.mark.parametrize("copies", [1, 3, 50])
def test_sorcerers_apprentice_gets_nothing(copies):
    machine = transfer()
    machine.start(0)
    assert machine.on_packet(encode_ack(1), 0.01) == Span(2, 2)
    for copy in range(copies):
        assert machine.on_packet(encode_ack(1), 0.02 + copy * 0.01) is None
        assert machine.on_packet(encode_ack(0), 0.02 + copy * 0.01) is None
    assert machine.resent == 0
    assert machine.on_packet(encode_ack(2), 1) == Span(3, 3)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\4\0", encode_ack(3), encode_ack(65535), b"\0\3\0\1xx", b"\0\1f\0octet\0"]
)
def test_nonsense_changes_nothing(data):
    machine = transfer()
    machine.start(0)
    before = machine.deadline
    assert machine.on_packet(data, 0.01) is None
    assert (machine.base, machine.sent, machine.outcome, machine.deadline) == (0, 1, None, before)
    assert machine.ignored == 1


def test_a_padded_ack_counts():
    machine = transfer()
    machine.start(0)
    assert machine.on_packet(encode_ack(1) + b"pad", 0.01) == Span(2, 2)


def test_error_ends_at_once():
    machine = transfer()
    machine.start(0)
    assert machine.on_packet(encode_error(8, "User aborted the transfer"), 0.01) is None
    assert machine.outcome is Outcome.ABORTED
    assert machine.client_error == (8, "User aborted the transfer")
    assert machine.on_packet(encode_ack(1), 0.02) is None
    assert machine.on_timer(100) is None


def test_timer_backs_off_and_gives_up():
    machine = transfer()
    machine.start(0)
    now, waits = 0.0, []
    while machine.outcome is None:
        waits.append(machine.deadline - now)
        assert machine.on_timer(machine.deadline - 0.001) is None
        now = machine.deadline
        span = machine.on_timer(now)
        assert span in {Span(1, 1), None}
    assert machine.outcome is Outcome.TIMED_OUT
    assert waits[0] == pytest.approx(INITIAL_RTO_S)
    assert all(later >= earlier * 0.999 for earlier, later in itertools.pairwise(waits))
    assert GIVE_UP_S <= now <= GIVE_UP_S + 5


def test_timeout_option_bounds_the_timer():
    machine = transfer(timeout_s=1)
    machine.start(0)
    waits = []
    for _ in range(8):
        now = machine.deadline
        machine.on_timer(now)
        waits.append(machine.deadline - now)
    assert max(waits) <= 1.0 + 1e-9


def test_rto_follows_the_round_trip():
    machine = transfer(100_000)
    machine.start(0)
    now = 0.0
    for block in range(1, 30):
        now += 0.001
        machine.on_packet(encode_ack(block), now)
    assert machine.deadline - now == pytest.approx(MIN_RTO_S)
    for block in range(30, 100):
        now += 0.3
        machine.on_packet(encode_ack(block), now)
    assert 0.3 < machine.deadline - now < 0.6


def answered(machine, block, now, copies=1):
    """The client acknowledges `block` so often, at once."""
    for _ in range(copies):
        machine.on_packet(encode_ack(block), now)


@pytest.mark.parametrize("pause_s", [0.03, 0.1, 0.15])
def test_a_board_that_pauses_is_given_the_time_it_needs(pause_s):
    """It acknowledges both copies of a block; after some of these pauses there are no copies any more."""
    machine = transfer(512 * 400)
    machine.start(0)
    now, resent = 0.0, []
    for block in range(1, 400):
        before, answer_at = machine.resent, now + (pause_s if block % 20 == 0 else 0.001)
        while machine.deadline < answer_at:
            machine.on_timer(machine.deadline)
        now = answer_at
        answered(machine, block, now, 1 + machine.resent - before)
        resent.append(machine.resent - before)
    assert resent[19] > 0
    assert sum(resent[200:]) == 0


def test_a_board_without_pauses_keeps_the_short_timer_however_much_is_lost():
    machine = transfer(512 * 400)
    machine.start(0)
    now = 0.0
    for block in range(1, 400):
        if block > 20 and block % 3 == 0:
            now = machine.deadline
            machine.on_timer(now)
        now += 0.001
        answered(machine, block, now)
    assert machine.deadline - now == pytest.approx(MIN_RTO_S)


def test_karn_a_resent_block_measures_nothing():
    machine = transfer()
    machine.start(0)
    machine.on_timer(machine.deadline)
    waited = machine.deadline
    machine.on_packet(encode_ack(1), waited - 0.001)
    assert machine.deadline - waited > MIN_RTO_S


def test_last_block_is_retried_quietly_and_counts_as_received():
    machine = transfer(600)
    machine.start(0)
    machine.on_packet(encode_ack(1), 0.001)
    spans = 0
    while machine.outcome is None:
        spans += machine.on_timer(machine.deadline) is not None
    assert machine.outcome is Outcome.COMPLETE
    assert spans >= 5
    assert machine.deadline >= QUIET_END_S


def test_a_client_never_heard_did_not_get_its_file():
    machine = transfer(10)
    machine.start(0)
    while machine.outcome is None:
        machine.on_timer(machine.deadline)
    assert machine.outcome is Outcome.TIMED_OUT


@pytest.mark.parametrize(("acked", "outcome"), [(1, Outcome.COMPLETE), (0, Outcome.ABORTED)])
def test_closed_port(acked, outcome):
    machine = transfer(600)
    machine.start(0)
    if acked:
        machine.on_packet(encode_ack(1), 0.001)
    machine.on_unreachable()
    assert machine.outcome is outcome


def test_partial_ack_restarts_after_it():
    machine = transfer(50_000, window=8)
    machine.start(0)
    assert machine.on_packet(encode_ack(3), 0.01) == Span(4, 11)
    assert machine.resent == 5
    assert machine.on_packet(encode_ack(11), 0.02) == Span(12, 19)


def test_repeated_ack_of_a_window_is_answered_once_per_guard_time():
    machine = transfer(50_000, window=8)
    machine.start(0)
    machine.on_packet(encode_ack(8), 0.01)
    assert machine.on_packet(encode_ack(8), 0.01 + GUARD_S / 2) is None
    assert machine.on_packet(encode_ack(8), 0.01 + GUARD_S * 1.1) == Span(9, 16)
    assert machine.on_packet(encode_ack(8), 0.01 + GUARD_S * 1.2) is None
    answered = sum(machine.on_packet(encode_ack(8), 1 + 0.1 * n) is not None for n in range(100))
    assert answered == MAX_GUARDED_RESENDS - 1


def test_resends_are_capped_over_the_transfer():
    machine = transfer(512 * 200, window=16)
    machine.start(0)
    now, block = 0.0, 0
    while machine.outcome is None and block < 200:
        for _ in range(9):
            now += 0.02
            machine.on_packet(encode_ack(block), now)
        block += 1
        machine.on_packet(encode_ack(block), now)
    assert machine.outcome is Outcome.TOO_LOSSY
    assert machine.resent < RESENT_FACTOR * machine.total + RESENT_GRACE + 17


@pytest.mark.parametrize(("rollover", "numbers"), [(0, [65534, 65535, 0, 1]), (1, [65534, 65535, 1, 2])])
@pytest.mark.parametrize("window", [1, 16])
def test_rollover(rollover, numbers, window):
    machine = transfer(8 * 200_000, block_bytes=8, window=window, rollover=rollover)
    assert [machine.wire_number(block) for block in range(65534, 65538)] == numbers
    span = machine.start(0)
    now = 0.0
    while machine.outcome is None:
        now += 0.001
        span = machine.on_packet(encode_ack(machine.wire_number(span.last)), now)
        assert span is not None or machine.outcome is Outcome.COMPLETE
    assert machine.resent == 0


def test_repeated_request_gets_the_first_packet_again():
    machine = transfer(with_oack=True)
    machine.start(0)
    assert machine.repeat_start(GUARD_S / 2) is None
    assert machine.repeat_start(0.1) == Span(0, 0)
    machine.on_packet(encode_ack(0), 0.11)
    assert machine.repeat_start(0.5) is None


def test_a_client_that_becomes_slow_is_not_sent_everything_twice():
    machine = transfer(1_000_000)
    machine.start(0)
    now, block = 0.0, 0
    while block < 300:
        slow_s = 0.001 if block < 20 else 0.7
        answer_at = now + slow_s
        while machine.deadline < answer_at:
            machine.on_timer(machine.deadline)
        now, block = answer_at, block + 1
        machine.on_packet(encode_ack(block), now)
    assert machine.resent < 150


def lose_windows(machine, count, at):
    """So many windows in a row lose their second half."""
    for _ in range(count):
        at += 1.0
        while machine.pacing:
            machine.on_timer(machine.deadline)
        at = max(at, machine.deadline - 0.01)
        machine.on_packet(encode_ack(machine.wire_number(machine.base + machine.window // 2)), at)
    return at


def test_single_losses_do_not_slow_down():
    machine = transfer(1468 * 2000, block_bytes=1468, window=16)
    machine.start(0)
    now = 0.0
    for _ in range(20):
        now = lose_windows(machine, LOSSES_IN_A_ROW - 1, now)
        assert not machine.pacing
        now += 1.0
        span = machine.on_packet(encode_ack(machine.wire_number(machine.sent)), now)
        assert span.last - span.first == 15


def test_losses_in_a_row_make_bursts_and_their_end_makes_windows_whole():
    machine = transfer(1468 * 4000, block_bytes=1468, window=16)
    machine.start(0)
    now = lose_windows(machine, LOSSES_IN_A_ROW, 0.0)
    assert machine.pacing
    first = machine.base + 1
    assert machine.sent == first + 7
    assert machine.deadline - now <= MAX_GAP_S
    assert machine.on_timer(machine.deadline) == Span(first + 8, first + 15)
    assert not machine.pacing
    now = lose_windows(machine, 4 * LOSSES_IN_A_ROW, machine.deadline)
    assert machine.sent == machine.base + MIN_BURST
    for _ in range(4 * CLEAN_IN_A_ROW):
        while machine.pacing:
            now = machine.deadline
            machine.on_timer(now)
        now += 0.01
        machine.on_packet(encode_ack(machine.wire_number(machine.sent)), now)
    assert not machine.pacing
    assert machine.sent - machine.base == 16


def test_an_ack_soon_after_a_restart_moves_the_window_along():
    """The client counts its window from its own ACK; without the rest of it, both would wait for the timer."""
    machine = transfer(512 * 100, window=4)
    machine.start(0)
    machine.on_packet(encode_ack(4), 0.01)
    assert machine.on_packet(encode_ack(6), 0.02) == Span(7, 10)
    assert machine.on_packet(encode_ack(7), 0.021) == Span(11, 11)
    assert machine.on_packet(encode_ack(11), 0.03) == Span(12, 15)


def test_a_window_that_could_not_leave_in_stride_leaves_again():
    machine = transfer(512 * 100, window=2)
    machine.start(0)
    machine.open_lane(iter([(b"a", encode_ack(4)), (b"b", encode_ack(6))]))
    assert machine.in_stride(encode_ack(1), 0.01) is None
    assert machine.in_stride(encode_ack(2), 0.01) == b"a"
    assert machine.in_stride(encode_ack(4), 0.02) == b"b"
    assert machine.again(0.02) == Span(5, 6)
    assert (machine.base, machine.sent) == (4, 6)
    assert machine.in_stride(encode_ack(6), 0.03) is None
