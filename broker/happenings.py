"""What the scheduler is told and what it asks for: the two sides of its sans-IO core."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.job import Job
from broker.job_spec import JobSpec
from wire.payloads import (
    AgentState,
    BoardInfo,
    BoardSelf,
    BoardState,
    ErrorInfo,
    JobSummary,
    PowerResult,
    Step,
    WorkLog,
    WorkReport,
)
from wire.phases import PowerAction, Purpose


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, twice: `mono` in seconds for intervals, `wall` for what people and other programs read."""

    mono: float
    wall: datetime

    def after(self, seconds: float) -> datetime:
        return self.wall + timedelta(seconds=seconds)

    def until(self, wall: datetime) -> float:
        """The monotonic time at which the wall clock shows `wall`, as far as we know now."""
        return self.mono + (wall - self.wall).total_seconds()


# --- told ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AgentSeen:
    agent: str
    state: AgentState | None


@dataclass(frozen=True, slots=True)
class StateSeen:
    board: str
    state: BoardState | None


@dataclass(frozen=True, slots=True)
class InfoSeen:
    board: str
    info: BoardInfo | None


@dataclass(frozen=True, slots=True)
class SelfSeen:
    board: str
    said: BoardSelf | None


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """A retained lease was delivered. `token` is None for an empty or unreadable payload."""

    board: str
    token: int | None
    empty: bool


@dataclass(frozen=True, slots=True)
class Reported:
    board: str
    report: WorkReport


@dataclass(frozen=True, slots=True)
class PowerReported:
    board: str
    result: PowerResult


@dataclass(frozen=True, slots=True)
class Submit:
    """`tag` names the request in the `Reply`."""

    tag: str
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class Cancel:
    tag: str
    job: str


@dataclass(frozen=True, slots=True)
class PowerAsked:
    """A person wants a board asleep (`OFF`) or awake (`ON`)."""

    tag: str
    board: str
    power: PowerAction


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The MQTT server cannot be reached: decide nothing until `Settled`."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Connected, subscribed, and the retained messages have all come."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Happening = (
    AgentSeen
    | StateSeen
    | InfoSeen
    | SelfSeen
    | LeaseSeen
    | Reported
    | PowerReported
    | Submit
    | Cancel
    | PowerAsked
    | Disconnected
    | Settled
    | Tick
)


# --- asked for -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaveJob:
    """Commit this job as it now is, before any message of the same answer goes out."""

    job: Job


@dataclass(frozen=True, slots=True)
class SaveToken:
    board: str
    token: int


@dataclass(frozen=True, slots=True)
class SaveAttempt:
    """One lease of a job, as it stands. `result` is None while it is under way; `told` says that the board itself
    reported it, so that a repetition is acknowledged."""

    job: int
    attempt: int
    board: str
    token: int
    began: datetime
    ended: datetime | None = None
    result: str | None = None
    told: bool = False
    log_chunks: int | None = None
    """How many pieces of output the board says it sent."""


@dataclass(frozen=True, slots=True)
class SaveLog:
    job: int
    attempt: int
    log: WorkLog


@dataclass(frozen=True, slots=True)
class Announce:
    summary: JobSummary


@dataclass(frozen=True, slots=True)
class PutLease:
    board: str
    token: int
    holder: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class ClearLease:
    board: str


@dataclass(frozen=True, slots=True)
class SendOffer:
    board: str
    job: str
    token: int
    expires: datetime
    name: str
    steps: list[Step]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SendStop:
    board: str
    job: str
    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class SendAck:
    board: str
    job: str
    token: int
    ok: bool
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class SendPower:
    board: str
    power: PowerAction
    id: str
    purpose: Purpose
    token: int | None
    expires: datetime


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request; `error` is None when it was done."""

    tag: str
    data: dict[str, object]
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should find in the log."""

    text: str


Saved = SaveJob | SaveToken | SaveAttempt | SaveLog
Action = Saved | Announce | PutLease | ClearLease | SendOffer | SendStop | SendAck | SendPower | Reply | Note
