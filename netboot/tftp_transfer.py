"""One transfer to one client, without I/O and without a clock: packets and times in, spans of blocks to send out.

Blocks are counted from 1 and never wrap in here; only `wire_number` knows the 16 bits of the wire. The OACK is block
0. `base` is the highest block that the client has, `sent` the highest that is on its way.

    awaiting --ACK of sent--> next window          awaiting --ACK of the last block--> COMPLETE
    awaiting --ACK of a part--> window after it*    awaiting --ERROR--> ABORTED
    awaiting --ACK of base, lockstep--> nothing     awaiting --timer--> same window again, or the end
    awaiting --ACK of base, windowed--> same window again, at most once per guard time
    * at most once per round trip: later ones only move `base`

Lockstep never answers a repeated ACK with DATA (RFC 1123 section 4.2.3.1, the Sorcerer's Apprentice): a client that
waits is served by our own timer, which is shorter than any client's.
"""

from enum import Enum
from typing import NamedTuple

from netboot.tftp_packet import ACK, ERROR, encode_ack, head

INITIAL_RTO_S = 0.2
MIN_RTO_S = 0.05  # below this a busy board's pauses look like loss
MAX_RTO_S = 4.0
GIVE_UP_S = 30.0  # U-Boot retries a lost link for as long
MAX_TRIES = 15
MAX_COLLAPSES = 16
"""Progress after a timeout takes the back-off back, so often without a new measurement: with many losses there is none
for long, and each loss would cost MAX_RTO_S. Then Karn's rule holds, for a client that has become slower."""
QUIET_END_S = 6.0
"""Some boot ROMs never acknowledge the last block: repeated for so long, it counts as received. Longer than the 5 s
after which clients repeat their last ACK."""
GUARD_S = 0.01
"""Windowed clients acknowledge every packet that follows a gap; one answer per guard time is enough."""
MAX_GUARDED_RESENDS = 10  # per window; beyond, only the timer resends (EDK2 clients made gigabytes of it)
RESENT_FACTOR = 16
RESENT_GRACE = 256
"""A transfer ends when it resent more than RESENT_FACTOR times its blocks and RESENT_GRACE: a client that cannot
count must not make us flood the network."""


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
        "_awaited",
        "_base_rto_s",
        "_collapses",
        "_guarded",
        "_max_rto_s",
        "_modulus",
        "_progress_at",
        "_resent_window",
        "_restarted_at",
        "_rto_s",
        "_rttvar_s",
        "_sent_at",
        "_srtt_s",
        "_tries",
        "base",
        "block_bytes",
        "client_error",
        "deadline",
        "heard",
        "ignored",
        "outcome",
        "resent",
        "rollover",
        "sent",
        "size",
        "total",
        "window",
    )

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
        self._collapses = 0
        self._srtt_s = 0.0
        self._rttvar_s = 0.0
        self._tries = 0
        self._guarded = 0
        self._resent_window = False
        self._sent_at = self._progress_at = now
        self._restarted_at = float("-inf")
        self._awaited = b""

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
        if self.heard or self.outcome is not None or now - self._sent_at < GUARD_S:
            return None
        return self._resend(now)

    def on_packet(self, data: bytes, now: float) -> Span | None:
        """A packet from the client. Anything but an expected ACK or an ERROR is counted in `ignored`."""
        if self.outcome is not None:
            return None
        if data == self._awaited:
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
        if self.outcome is not None or now < self.deadline:
            return None
        silent_s = now - self._progress_at
        if self.heard and self.sent == self.total and silent_s >= QUIET_END_S:
            self.outcome = Outcome.COMPLETE
            return None
        if silent_s >= GIVE_UP_S or self._tries >= MAX_TRIES:
            self.outcome = Outcome.TIMED_OUT
            return None
        self._tries += 1
        self._rto_s = min(self._rto_s * 2, self._max_rto_s)
        return self._resend(now)

    def on_unreachable(self) -> None:
        """The client's port is closed. It may have closed it right after its last ACK, which then got lost."""
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
        guard_s = max(GUARD_S, self._srtt_s)
        if self.window == 1 or now - self._sent_at < guard_s or self._guarded >= MAX_GUARDED_RESENDS:
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
            self._measure(now - self._sent_at)
        elif self._tries and self._collapses < MAX_COLLAPSES:
            self._collapses += 1
            self._rto_s = self._base_rto_s
        self.heard = True
        self.base = block
        self._tries = 0
        self._guarded = 0
        self._progress_at = now
        if block >= self.total:
            self.outcome = Outcome.COMPLETE
            return None
        before = self.sent
        if before > block:
            # Within a round trip of the last restart this ACK may still belong to what was sent before it.
            if now - self._restarted_at < self._srtt_s:
                self.deadline = now + self._rto_s
                return None
            self._restarted_at = now
        span = self._send_window(now)
        # A part of a window that is sent again must not be measured as if it were new.
        self._resent_window = before > block
        return self._counted(span, min(before, span.last) - block)

    def _measure(self, sample_s: float) -> None:
        """RFC 6298 section 2."""
        if self._srtt_s == 0.0:
            self._srtt_s, self._rttvar_s = sample_s, sample_s / 2
        else:
            self._rttvar_s += 0.25 * (abs(self._srtt_s - sample_s) - self._rttvar_s)
            self._srtt_s += 0.125 * (sample_s - self._srtt_s)
        self._rto_s = self._base_rto_s = min(max(self._srtt_s + 4 * self._rttvar_s, MIN_RTO_S), self._max_rto_s)
        self._collapses = 0

    def _send_window(self, now: float) -> Span:
        first = self.base + 1
        last = 0 if first == 0 else min(self.base + self.window, self.total)
        self.sent = last
        self._awaited = encode_ack(self.wire_number(last))
        self._sent_at = now
        self.deadline = now + self._rto_s
        self._resent_window = False
        return Span(first, last)

    def _resend(self, now: float) -> Span | None:
        span = self._send_window(now)
        self._resent_window = True
        return self._counted(span, span.last - span.first + 1)

    def _counted(self, span: Span, again: int) -> Span | None:
        self.resent += again
        if self.resent > RESENT_FACTOR * self.total + RESENT_GRACE:
            self.outcome = Outcome.TOO_LOSSY
            return None
        return span
