"""Compares a board's power with what was last asked for, and says what to do where they differ. No I/O, no clock.

A person pressed the PDU's button, the PDU restarted, the hub was enumerated anew: the truth is adopted, or, where the
board's settings say so, the wish is enforced. Whoever keeps changing it back wins after the third time: a person at the
shelf has a reason, and two masters that switch against each other wear out a relay and a board.
"""

from dataclasses import dataclass
from enum import StrEnum

from wire.payloads import ErrorInfo
from wire.phases import ErrorKind, Power

FAILURES_IN_A_ROW = 3
"""So many failed power commands in a row put the board aside: more of them help nobody."""
DRIFTS_IN_A_ROW = 3
STABLE_S = 600.0
"""A power that stayed as it was set for this long has been accepted; a later change is a new one."""
RETRY_S = 10.0
"""Rest before a wish that could not be enforced is tried again."""

NEVER_BEGUN = frozenset({ErrorKind.NOT_ALLOWED, ErrorKind.BUSY, ErrorKind.UNKNOWN_BOARD})
"""Commands that ended so never reached a device: they say nothing about it."""


class OnChange(StrEnum):
    """What a board's settings want when somebody else changed its power."""

    ADOPT = "adopt"
    ENFORCE = "enforce"


class Drift(StrEnum):
    """What a comparison found; the word stands in the event."""

    NONE = "none"
    ADOPT = "adopted"
    ENFORCE = "enforced"
    GIVE_UP = "given-up"


@dataclass(slots=True)
class PowerWatch:
    """One board.

    Attributes:
        switching: power commands under way; while there are any, a change is ours.
        failures: power commands that failed, in a row.
        drifts: changes by somebody else, in a row.
        unmet: the wish could not be enforced yet; that it still differs is no new change.
        retry_at: monotonic time at which it is tried again.
    """

    on_change: OnChange = OnChange.ADOPT
    switching: int = 0
    failures: int = 0
    drifts: int = 0
    unmet: bool = False
    retry_at: float | None = None
    _last_drift: float = float("-inf")

    def compare(self, power: Power, target: Power | None, now: float) -> Drift:
        """What to do about `power`, as read back at `now`."""
        self.retry_at = None
        if self.switching or target is None or power is Power.UNKNOWN or power is target:
            return Drift.NONE
        if self.on_change is OnChange.ADOPT:
            return Drift.ADOPT
        if not self.unmet:
            self.drifts = self.drifts + 1 if now - self._last_drift < STABLE_S else 1
            self._last_drift = now
            if self.drifts >= DRIFTS_IN_A_ROW:
                return Drift.GIVE_UP
        return Drift.ENFORCE

    def ended(self, error: ErrorInfo | None) -> int:
        """A power command ended; how many have failed in a row now."""
        self.switching = max(0, self.switching - 1)
        self.retry_at, self.unmet = None, False
        if error is None:
            self.failures = 0
        elif error.kind not in NEVER_BEGUN | {ErrorKind.INTERRUPTED}:
            self.failures += 1
        return self.failures

    def try_again(self, now: float) -> None:
        """The wish could not be enforced; try again after a rest."""
        self.unmet, self.retry_at = True, now + RETRY_S

    def retry_due(self, now: float) -> bool:
        """Whether a wish is to be enforced again."""
        return self.retry_at is not None and now >= self.retry_at
