"""How far the work of a board without a client is, as a table, and what its session has done."""

from dataclasses import dataclass
from enum import StrEnum

from wire.payloads import (
    BoardOrder,
    Step,
    WorkAccept,
    WorkArtifact,
    WorkAsk,
    WorkLog,
    WorkOffer,
    WorkOutcome,
)


class Work(StrEnum):
    IDLE = "idle"
    RUNNING = "running"
    STOPPING = "stopping"
    """Its step is being ended; it is reported then."""
    DROPPING = "dropping"
    """The same, and nobody wants to know."""
    DONE = "done"
    """Its outcome is said until it is acknowledged."""


class Word(StrEnum):
    OFFER = "offer"
    SAME = "offer of what we have"
    OLD = "offer of what was reported"
    PASSED = "step passed"
    OVER = "last step over"
    STOP = "stop"
    TAKEN = "acknowledged"
    REFUSED = "token was old"


_W, _E = Work, Word
WORK: dict[tuple[Work, Word], tuple[str, Work]] = {
    (_W.IDLE, _E.OFFER): ("begin", _W.RUNNING),
    (_W.IDLE, _E.OLD): ("report_again", _W.IDLE),
    (_W.RUNNING, _E.SAME): ("accept", _W.RUNNING),
    # Busy with something else: the accept, or the outcome, tells the broker with what.
    (_W.RUNNING, _E.OFFER): ("accept", _W.RUNNING),
    (_W.RUNNING, _E.OLD): ("report_again", _W.RUNNING),
    (_W.RUNNING, _E.PASSED): ("next", _W.RUNNING),
    (_W.RUNNING, _E.OVER): ("finish", _W.DONE),
    (_W.RUNNING, _E.STOP): ("kill", _W.STOPPING),
    (_W.RUNNING, _E.REFUSED): ("kill", _W.DROPPING),
    (_W.STOPPING, _E.PASSED): ("finish", _W.DONE),
    (_W.STOPPING, _E.OVER): ("finish", _W.DONE),
    (_W.STOPPING, _E.REFUSED): ("", _W.DROPPING),
    (_W.DROPPING, _E.PASSED): ("drop", _W.IDLE),
    (_W.DROPPING, _E.OVER): ("drop", _W.IDLE),
    (_W.DONE, _E.OFFER): ("report", _W.DONE),
    (_W.DONE, _E.SAME): ("report", _W.DONE),
    (_W.DONE, _E.OLD): ("report_again", _W.DONE),
    (_W.DONE, _E.STOP): ("report", _W.DONE),
    (_W.DONE, _E.TAKEN): ("forget", _W.IDLE),
    (_W.DONE, _E.REFUSED): ("forget", _W.IDLE),
}
"""What is done, and the next state. Where a pair is absent nothing happens."""


@dataclass(frozen=True, slots=True)
class RunStep:
    """Run this step of the job; `first` says that it is the job's first."""

    offer: WorkOffer
    step: Step
    first: bool


@dataclass(frozen=True, slots=True)
class KillStep:
    """End the step that runs; it is reported as any other."""

    why: str


@dataclass(frozen=True, slots=True)
class JobOver:
    """The job's steps are over, and the console is free."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Store what is to be said if nobody can say it any more; None forgets it."""

    outcome: WorkOutcome | None


@dataclass(frozen=True, slots=True)
class Announce:
    """Say that the board is there, with the job that it has."""

    work: str | None


@dataclass(frozen=True, slots=True)
class Obey:
    """Reboot, or power down."""

    order: BoardOrder


Action = RunStep | KillStep | JobOver | Keep | Announce | Obey
Report = WorkAsk | WorkAccept | WorkLog | WorkArtifact | WorkOutcome
