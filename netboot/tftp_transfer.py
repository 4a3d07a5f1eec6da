"""One transfer to one client, without I/O and without a clock: packets and times in, spans of blocks to send out.

Blocks are counted from 1 and never wrap in here; only `wire_number` knows the 16 bits of the wire. The OACK is block
0. `base` is the highest block that the client has, `sent` the highest that is on its way.

    awaiting --ACK of sent--> next window          awaiting --ACK of the last block--> COMPLETE
    awaiting --ACK of a part--> window after it*    awaiting --ERROR--> ABORTED
    awaiting --ACK of base, lockstep--> nothing     awaiting --timer--> same window again, or the end
    awaiting --ACK of base, windowed--> same window again, at most once per guard time
    awaiting --timer, a part of the window not sent yet--> next burst of it
    * at most once per round trip: later ones only move `base`, and the window with it

Lockstep never answers a repeated ACK with DATA (RFC 1123 section 4.2.3.1, the Sorcerer's Apprentice): a client that
waits is served by our own timer, which is shorter than any client's.

A window leaves in one piece. Only when several windows in a row came with losses is it taken for a queue that
overflows: then windows leave in bursts with pauses, and in one piece again after some without loss. Single losses
change nothing: slowing down for them costs half the speed on a line that is merely bad.
"""

import struct
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from netboot.tftp_packet import ACK, ERROR, head
from netboot.tftp_timing import (
    CLEAN_IN_A_ROW,
    GIVE_UP_S,
    GUARD_S,
    INITIAL_RTO_S,
    LOSSES_IN_A_ROW,
    MAX_COLLAPSES,
    MAX_DOUBT_RTO_S,
    MAX_GAP_S,
    MAX_GUARDED_RESENDS,
    MAX_RTO_S,
    MAX_TRIES,
    MIN_BURST,
    MIN_GAP_S,
    MIN_RTO_S,
    MIN_WINDOW_RTO_S,
    QUIET_END_S,
    RESENT_FACTOR,
    RESENT_GRACE,
    STEADY_SAMPLES,
)

_ACK_WORD = ACK << 16
_pack_ack = struct.Struct("!I").pack

Octets = bytes | memoryview
Lane = Iterator[tuple[Octets, bytes]]
_NO_LANE: Lane = iter(())


class Outcome(Enum):
    """How a transfer ended."""

    COMPLETE = "complete"
    ABORTED = "aborted by the client"
    TIMED_OUT = "the client fell silent"
    TOO_LOSSY = "too many blocks were lost"


class Span(NamedTuple):
    """Blocks to send now, both ends included."""

    first: int
    last: int


class Transfer:
    """The sender's side of one RRQ.

    Args:
        size: octets to send.
        block_bytes: 8..65464.
        window: blocks per ACK, 1 for lockstep.
        with_oack: the first packet is an OACK.
        now: monotonic seconds.
        timeout_s: the client's `timeout` option: our timer never waits longer.
        rollover: the number that follows 65535 on the wire, 0 or 1.
    """

    __slots__ = (
        "_base_rto_s", "_burst", "_clean", "_collapses", "_doubtful", "_gap_s", "_guarded", "_lane", "_losses",
        "_max_rto_s", "_min_rto_s", "_modulus", "_progress_at", "_resent_window", "_restarted_at", "_rto_s",
        "_rttvar_s", "_samples", "_srtt_s", "awaited", "base", "block_bytes", "client_error", "deadline", "heard",
        "ignored", "last", "outcome", "resent", "rollover", "sent", "sent_at", "size", "total", "tries", "window",
    )  # fmt: skip

    def __init__(
        self,
        *,
        size: int,
        block_bytes: int,
        window: int,
        with_oack: bool,
        now: float,
        timeout_s: int | None = None,
        rollover: int = 0,
    ) -> None:
        self.size = size
        self.block_bytes = block_bytes
        self.window = window
        self.rollover = rollover
        self.total = size // block_bytes + 1
        self.base = -1 if with_oack else 0
        self.sent = self.base
        self.heard = False
        self.resent = 0
        self.ignored = 0
        self.outcome: Outcome | None = None
        self.client_error = (0, "")
        self.deadline = now
        self._modulus = 65536 - rollover
        self._max_rto_s = min(MAX_RTO_S, timeout_s) if timeout_s else MAX_RTO_S
        self._rto_s = self._base_rto_s = INITIAL_RTO_S
        self._min_rto_s = MIN_RTO_S if window == 1 else MIN_WINDOW_RTO_S
        self._collapses = 0
        self._srtt_s = 0.0
        self._rttvar_s = 0.0
        self.tries = 0
        self._guarded = 0
        self._resent_window = self._doubtful = False
        self.sent_at = self._progress_at = now
        self._restarted_at = float("-inf")
        self._samples = 0
        self._lane = _NO_LANE
        self._burst = window
        self._gap_s = MIN_GAP_S
        self.last = self.base
        self._losses = self._clean = 0
        self.awaited = b""

    def wire_number(self, block: int) -> int:
        """The 16-bit number of `block`: 65535 is followed by `rollover`."""
        if block < 65536:
            return block
        return (block - self.rollover) % self._modulus + self.rollover

    def extent(self, block: int) -> tuple[int, int]:
        """Offset and length, in octets, of `block` (1..total)."""
        offset = (block - 1) * self.block_bytes
        return offset, min(self.block_bytes, self.size - offset)

    def start(self, now: float) -> Span:
        """The first packets."""
        return self._send_window(now)

    def repeat_start(self, now: float) -> Span | None:
        """The request came twice: the first packets again, unless the client already has them or they just left."""
        if self.heard or self.outcome is not None or now - self.sent_at < GUARD_S:
            return None
        return self._resend(now)

    @property
    def pacing(self) -> bool:
        """Whether a part of the window waits for its turn: `deadline` is then near."""
        return self.sent < self.last and self.outcome is None

    @property
    def steady(self) -> bool:
        """Whether a lane may be opened: nothing is being repeated, and the round trip is known."""
        if self._resent_window or self._samples < STEADY_SAMPLES or self._burst < self.window:
            return False
        return self.sent == self.last and not (self.rollover and self.total > 65535)

    def open_lane(self, lane: Lane) -> None:
        """The fast lane: full windows that follow `sent`, each as it leaves and with the ACK that then is awaited."""
        self._lane = lane

    def close_lane(self) -> None:
        """From now on `on_packet` decides."""
        self._lane = _NO_LANE

    def pumped(self) -> None:
        """The fast lane is somebody else's, who tells by `left` how far it came."""
        self._lane = iter(())

    def in_lane(self) -> bool:
        """Whether the lane is open, though it may have come to its end."""
        return self._lane is not _NO_LANE

    def left(self, awaited: int, sent_at: float) -> None:
        """By somebody else's lane, windows left up to the one that `awaited` acknowledges, the last at `sent_at`."""
        if self._lane is not _NO_LANE:
            self.awaited = _pack_ack(_ACK_WORD | awaited)
            self.sent_at = sent_at
            self._catch_up()

    def in_stride(self, data: bytes, now: float) -> Octets | None:
        """What to send if `data` acknowledges all that is on its way and a lane is open; else None: ask `on_packet`.

        This is all that happens for most packets, so it only notes what `_catch_up` needs. No round trip is measured
        here; that is done in between, when a lane ends. `deadline` may be too early meanwhile, never too late.
        """
        if data == self.awaited:
            for packets, awaited in self._lane:
                self.awaited = awaited
                self.sent_at = now
                return packets
        return None

    def _catch_up(self) -> None:
        """Count what left by the lane."""
        awaited = self.awaited
        steps = ((awaited[2] << 8 | awaited[3]) - self.last) & 0xFFFF if self._lane is not _NO_LANE else 0
        if steps:
            self.sent = self.last = self.last + steps
            self.base = self.sent - self.window
            self._progress_at = self.sent_at
            self.deadline = self.sent_at + self._rto_s
            self._collapses = 0  # an ACK in stride came in time: the round trip is as it was measured

    def on_packet(self, data: bytes, now: float) -> Span | None:
        """A packet from the client. Anything but an expected ACK or an ERROR is counted in `ignored`."""
        if self.outcome is not None:
            return None
        self._catch_up()
        if data == self.awaited and self.sent == self.last:
            return self._advance(self.sent, now)
        parts = head(data)
        if parts is not None and parts[0] == ACK:
            return self._on_other_ack(parts[1], now)
        if parts is not None and parts[0] == ERROR:
            text = data[4:].partition(b"\0")[0].decode("ascii", "replace")
            self.client_error = (parts[1], text)
            self.outcome = Outcome.ABORTED
            return None
        self.ignored += 1
        return None

    def on_timer(self, now: float) -> Span | None:
        """Call at or after `deadline`."""
        self._catch_up()
        if self.outcome is not None or now < self.deadline:
            return None
        if self.sent < self.last:
            return self._next_burst(now)
        silent_s = now - self._progress_at
        if self.heard and self.sent == self.total and silent_s >= QUIET_END_S:
            self.outcome = Outcome.COMPLETE
            return None
        if silent_s >= GIVE_UP_S or self.tries >= MAX_TRIES:
            self.outcome = Outcome.TIMED_OUT
            return None
        self.tries += 1
        self._rto_s = min(self._rto_s * 2, self._max_rto_s)
        self._window_lost()
        return self._resend(now)

    def again(self, now: float) -> Span | None:
        """What was sent last could not leave in that form: the same once more."""
        self._catch_up()
        return self._resend(now)

    def on_unreachable(self) -> None:
        """The client's port is closed. It may have closed it right after its last ACK, which then got lost."""
        self._catch_up()
        if self.outcome is None:
            done = self.heard and self.sent == self.total
            self.outcome = Outcome.COMPLETE if done else Outcome.ABORTED
            self.client_error = (0, "its port is closed")

    def _on_other_ack(self, number: int, now: float) -> Span | None:
        ahead = self._ahead(number)
        if ahead is None or ahead > self.sent - self.base:
            self.ignored += 1
            return None
        if ahead > 0:
            return self._advance(self.base + ahead, now)
        if self._doubtful and self.window == 1:  # a second ACK of a block that we sent twice: it was only late
            self._doubtful = False
            self._min_rto_s = min(2 * self._min_rto_s, MAX_DOUBT_RTO_S, self._max_rto_s)
            self._rto_s = self._base_rto_s = max(self._base_rto_s, self._min_rto_s)
        guard_s = max(GUARD_S, self._srtt_s)
        if self.window == 1 or now - self.sent_at < guard_s or self._guarded >= MAX_GUARDED_RESENDS:
            self.ignored += 1
            return None
        self._guarded += 1
        self._restarted_at = now
        return self._resend(now)

    def _ahead(self, number: int) -> int | None:
        """How many blocks beyond `base` an ACK of `number` reaches."""
        if self.base < 0:
            return 1 if number == 0 else None
        if number < self.rollover and self.base > 0:
            return None
        return (number - self.wire_number(self.base)) % self._modulus

    def _advance(self, block: int, now: float) -> Span | None:
        if not self._resent_window:  # Karn: an ACK of something sent twice measures nothing
            self._measure(now - self.sent_at)
        elif self.tries and self._collapses < MAX_COLLAPSES:
            self._collapses += 1
            self._rto_s = self._base_rto_s
        self.heard = True
        self.base = block
        self._lane = _NO_LANE
        self._doubtful = self.tries > 0
        self.tries = 0
        self._guarded = 0
        self._progress_at = now
        if block >= self.total:
            self.outcome = Outcome.COMPLETE
            return None
        before = self.sent
        if before > block:
            # Within a round trip of the last restart this ACK may still belong to what was sent before it.
            if now - self._restarted_at < self._settle_s():
                return self._extend(now)
            self._restarted_at = now
            self._window_lost()
        elif self._burst < self.window or self._losses:
            self._window_arrived()
        span = self._send_window(now)
        # A part of a window that is sent again must not be measured as if it were new.
        self._resent_window = before > block
        return self._counted(span, min(before, span.last) - block)

    def _measure(self, sample_s: float) -> None:
        """RFC 6298 section 2."""
        self._samples += 1
        if self._srtt_s == 0.0:
            self._srtt_s, self._rttvar_s = sample_s, sample_s / 2
        else:
            self._rttvar_s += 0.25 * (abs(self._srtt_s - sample_s) - self._rttvar_s)
            self._srtt_s += 0.125 * (sample_s - self._srtt_s)
        self._rto_s = self._base_rto_s = min(max(self._srtt_s + 4 * self._rttvar_s, self._min_rto_s), self._max_rto_s)
        self._collapses = 0

    def _window_lost(self) -> None:
        self._lane = _NO_LANE
        self._clean = 0
        self._losses += 1
        if self.window > MIN_BURST and self._losses >= LOSSES_IN_A_ROW:
            self._losses = 0
            if self._burst == self.window:
                self._gap_s = max(MIN_GAP_S, self._srtt_s / 2)
            else:
                self._gap_s *= 2
            self._gap_s = min(self._gap_s, MAX_GAP_S)
            self._burst = max(MIN_BURST, self._burst // 2)

    def _window_arrived(self) -> None:
        self._losses = 0
        if self._burst < self.window:
            self._clean += 1
            if self._clean >= CLEAN_IN_A_ROW:
                self._clean = 0
                self._burst = min(2 * self._burst, self.window)
                self._gap_s = max(MIN_GAP_S, self._gap_s / 2)

    def _send_window(self, now: float) -> Span:
        first = self.base + 1
        self.last = last = 0 if first == 0 else min(self.base + self.window, self.total)
        self.sent = sent = min(last, self.base + self._burst) if self._burst < self.window else last
        self.awaited = _pack_ack(_ACK_WORD | self.wire_number(last))
        self.sent_at = now
        self.deadline = now + (self._gap_s if sent < last else self._rto_s)
        self._resent_window = False
        return Span(first, sent)

    def _settle_s(self) -> float:
        """How long after a restart ACKs may still speak of what was sent before it."""
        return self._srtt_s if self._burst == self.window else self._srtt_s + self._gap_s * self.window / self._burst

    def _extend(self, now: float) -> Span | None:
        """The client counts its window from `base` on: send what that adds, or it waits for it and we for its ACK."""
        first, last = self.sent + 1, min(self.base + self.window, self.total)
        pacing = self.sent < self.last
        self.last = last
        self.awaited = _pack_ack(_ACK_WORD | self.wire_number(last))
        if pacing:
            return None
        self.sent = last
        self.deadline = now + self._rto_s
        return Span(first, last) if first <= last else None

    def _next_burst(self, now: float) -> Span | None:
        first = self.sent + 1
        self.sent = sent = min(self.last, self.sent + self._burst)
        self.deadline = now + (self._gap_s if sent < self.last else self._rto_s)
        return self._counted(Span(first, sent), sent - first + 1 if self._resent_window else 0)

    def _resend(self, now: float) -> Span | None:
        span = self._send_window(now)
        self._resent_window = True
        self._lane = _NO_LANE
        return self._counted(span, span.last - span.first + 1)

    def _counted(self, span: Span, again: int) -> Span | None:
        self.resent += again
        if self.resent > RESENT_FACTOR * self.total + RESENT_GRACE:
            self.outcome = Outcome.TOO_LOSSY
            return None
        return span
