"""What the power service answers."""

from dataclasses import dataclass
from enum import StrEnum

from wire.payloads import ErrorInfo
from wire.phases import Power, PowerAction


@dataclass(frozen=True, slots=True)
class PowerOutcome:
    """How an operation ended. `power` was read back after the last command, or is unknown."""

    ok: bool
    power: Power
    error: ErrorInfo | None
    took_ms: float


class FindingKind(StrEnum):
    INTERRUPTED = "interrupted"
    """An operation was under way when the last agent ended; `power` says what it left behind."""
    UNREADABLE = "unreadable"
    """An outlet of the feed could not be read; `error` says why."""
    SPLIT = "split"
    """Some outlets of the feed are on and some off."""


@dataclass(frozen=True, slots=True)
class StartFinding:
    """What the start found to be other than all well. Nothing was switched because of it."""

    kind: FindingKind
    board: str
    power: Power
    message: str
    error: ErrorInfo | None = None
    operation_id: str | None = None
    action: PowerAction | None = None
