"""The transfer's state machine against a lossy, duplicating, reordering network, in virtual time."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.tftp_packet import encode_ack
from netboot.tftp_timing import MIN_RTO_S, QUIET_END_S, RESENT_FACTOR, RESENT_GRACE
from netboot.tftp_transfer import Outcome, Span, Transfer


def transfer(size=5000, block_bytes=512, window=1, *, with_oack=False, now=0.0, **more):
    return Transfer(size=size, block_bytes=block_bytes, window=window, with_oack=with_oack, now=now, **more)


class Client:
    """A receiver as RFC 7440 section 4 describes it; lockstep is the window of one."""

    def __init__(self, machine, patience_s=5.0):
        self.machine, self.window = machine, machine.window
        self.expected, self.in_window = 1, 0
        self.received = 0
        self.done = False
        self.last_ack = None
        self.patience_s = patience_s
        self.deadline = patience_s

    def take(self, block, now):
        """A DATA block (or the OACK, 0) arrives; the ACK to send, or None."""
        self.deadline = now + self.patience_s
        if block == 0:
            return self.ack(0) if self.expected == 1 else None
        if block == self.expected:
            self.received += self.machine.extent(block)[1]
            self.expected += 1
            self.in_window += 1
            self.done = self.done or block == self.machine.total
            if self.done or self.in_window >= self.window:
                return self.ack(block)
            return None
        if block < self.expected and self.window == 1:
            return self.ack(block)  # a copy: acknowledged again, as the RFC wants it
        return self.ack(self.expected - 1)

    def ack(self, block):
        self.in_window = 0
        self.last_ack = block
        return block


def simulate(machine, rng, loss, copies, jitter_s, *, lanes=True):
    """Run server and client over a bad network; returns the client and the time it took."""
    client, wire, counter, now = Client(machine), [], 0, 0.0

    def put(kind, block, at):
        nonlocal counter
        for _ in range(1 + (rng.random() < copies)):
            if rng.random() >= loss:
                counter += 1
                wire.append((at + 0.0005 + rng.random() * jitter_s, counter, kind, block))

    def emit(span, at):
        if span is not None:
            for block in range(span.first, span.last + 1):
                put("data", block, at)

    def send(span, at):
        emit(span, at)
        if lanes and span is not None and machine.steady:
            window, after = machine.window, span.last
            lane = [Span(first, first + window - 1) for first in range(after + 1, after + 64, window)]
            lane = [span for span in lane if span.last <= machine.total]
            machine.open_lane(zip(lane, [encode_ack(machine.wire_number(s.last)) for s in lane], strict=True))

    def acknowledged(block, at):
        nonlocal strides
        data = encode_ack(machine.wire_number(block))
        span = machine.in_stride(data, at) if machine.outcome is None else None
        if span is not None:
            strides += 1
            emit(span, at)
        else:
            send(machine.on_packet(data, at), at)

    strides = 0
    send(machine.start(0.0), 0.0)
    for _ in range(200_000):
        if machine.outcome is not None:
            break
        times = [(machine.deadline, 0, "server", 0), *wire]
        if not client.done:
            times.append((client.deadline, 0, "client", 0))
        event = min(times)
        now = max(now, event[0])
        if event[2] == "server":
            send(machine.on_timer(now), now)
            continue
        if event[2] == "client":
            client.deadline = now + client.patience_s
            if client.last_ack is not None:
                put("ack", client.last_ack, now)
            continue
        wire.remove(event)
        if event[2] == "ack":
            acknowledged(event[3], now)
        else:
            answer = client.take(event[3], now)
            if answer is not None:
                put("ack", answer, now)
    client.strides = strides
    return client, now


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    window=st.sampled_from([1, 1, 2, 8, 16]),
    with_oack=st.booleans(),
    loss=st.sampled_from([0.0, 0.01, 0.1, 0.3]),
    lanes=st.booleans(),
    copies=st.sampled_from([0.0, 0.1, 0.5]),
    jitter_s=st.sampled_from([0.0, 0.001, 0.02]),
    size=st.integers(0, 40_000),
)
def test_any_network_delivers_the_file(seed, window, with_oack, loss, lanes, copies, jitter_s, size):
    machine = transfer(size, window=window, with_oack=with_oack)
    client, took_s = simulate(machine, random.Random(seed), loss, copies, jitter_s, lanes=lanes)
    assert machine.outcome is Outcome.COMPLETE
    if client.done:
        assert client.received == size
    else:  # only the silent end may claim more than the client has, and only after a long silence
        assert took_s >= QUIET_END_S
    assert machine.resent <= RESENT_FACTOR * machine.total + RESENT_GRACE + machine.window


def test_one_percent_loss_costs_little_time():
    machine = transfer(1468 * 1400, block_bytes=1468)
    client, took_s = simulate(machine, random.Random(1), 0.01, 0.0, 0.0)
    assert client.done
    assert took_s < 1400 * 2 * 0.0005 + 60 * 2 * MIN_RTO_S  # some 30 losses, each about one short timer


@pytest.mark.parametrize("window", [1, 4, 16])
def test_many_losses_do_not_pile_up_the_back_off(window):
    """5 % lost: without the collapse some of these runs take 26 s."""
    for seed in range(30):
        machine = transfer(1024 * 300, block_bytes=1024, window=window, with_oack=True)
        client, took_s = simulate(machine, random.Random(seed), 0.05, 0.0, 0.0)
        assert client.done
        assert took_s < 5


def test_without_loss_nothing_is_sent_twice():
    for window in (1, 16):
        machine = transfer(1468 * 500, block_bytes=1468, window=window, with_oack=True)
        client, _ = simulate(machine, random.Random(2), 0.0, 0.0, 0.0)
        assert client.done
        assert machine.resent == 0
        assert client.strides > 0.8 * 500 / window - 8  # most of it went by the fast lane


def test_one_percent_of_loss_hardly_ever_makes_bursts():
    slow = 0
    for seed in range(20):
        machine = transfer(1468 * 1000, block_bytes=1468, window=16, with_oack=True)
        client, took_s = simulate(machine, random.Random(seed), 0.01, 0.0, 0.0)
        assert client.done
        slow += took_s > 1.5
    assert slow <= 2
