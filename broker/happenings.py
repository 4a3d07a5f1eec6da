"""What the scheduler is told and what it asks for: the two sides of its sans-IO core."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.groups.multinode_payloads import WorkCall
from broker.health.happenings import BoardAsked, ForgetBoard, SaveHealth, TellAlert
from broker.jobs.life import Job
from broker.jobs.spec import JobSpec
from broker.leases.happenings import LeaseOrder, SaveLease, TellLease
from wire.payloads import (
    AgentInfo,
    AgentState,
    ArtifactWish,
    BoardInfo,
    BoardSelf,
    BoardState,
    ErrorInfo,
    JobSummary,
    PowerResult,
    Response,
    Step,
    WorkArtifact,
    WorkLog,
    WorkReport,
)
from wire.phases import LeaseKind, PowerAction, Purpose


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
class AgentInfoSeen:
    """What an agent says of itself, or None when it says no more."""

    agent: str
    info: AgentInfo | None


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
class Called:
    """A board of a group makes a MultiNode call."""

    board: str
    call: WorkCall


@dataclass(frozen=True, slots=True)
class PowerReported:
    board: str
    result: PowerResult


@dataclass(frozen=True, slots=True)
class AgentAnswered:
    """An agent's answer to a request of ours, or of somebody else: the transaction tells."""

    agent: str
    verb: str
    response: Response


@dataclass(frozen=True, slots=True)
class Submit:
    """`tag` names the request in the `Reply`."""

    tag: str
    spec: JobSpec
    submitter: str = ""


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
    | AgentInfoSeen
    | StateSeen
    | InfoSeen
    | SelfSeen
    | LeaseSeen
    | Reported
    | Called
    | PowerReported
    | AgentAnswered
    | Submit
    | Cancel
    | PowerAsked
    | LeaseOrder
    | BoardAsked
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
class SaveMeeting:
    """A message that a board has sent to its group: the text of its call."""

    group: int
    attempt: int
    board: str
    call: str
    text: str


@dataclass(frozen=True, slots=True)
class SaveOtherBoot:
    """The board may be up in a job's own boot (`on`), or is back at its standing profile."""

    board: str
    on: bool


@dataclass(frozen=True, slots=True)
class SaveBoot:
    """The board took so long from its wake until it was ready."""

    board: str
    took_s: float
    at: datetime


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """A line of a job's timeline; saved with the rest."""

    job: int
    attempt: int
    at: datetime
    what: str


@dataclass(frozen=True, slots=True)
class SaveArtifact:
    """A piece of a file that a job leaves behind. It is stored before the outcome that follows it is acknowledged."""

    job: int
    attempt: int
    report: WorkArtifact
    max_bytes: int
    """Of all files of the attempt."""


@dataclass(frozen=True, slots=True)
class Announce:
    summary: JobSummary


@dataclass(frozen=True, slots=True)
class PutLease:
    board: str
    token: int
    holder: str
    expires: datetime
    kind: LeaseKind = LeaseKind.JOB
    since: datetime | None = None
    comment: str | None = None
    ends: datetime | None = None


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
    artifacts: ArtifactWish | None = None


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """The answer to a MultiNode call."""

    board: str
    job: str
    token: int
    call: str
    ok: bool
    text: str


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
class SendRequest:
    """A request to an agent; answered by `AgentAnswered` with the same transaction, or never."""

    agent: str
    verb: str
    transaction: str
    data: dict[str, object]
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


Saved = (
    SaveJob
    | SaveToken
    | SaveAttempt
    | SaveLog
    | SaveMeeting
    | SaveOtherBoot
    | SaveBoot
    | SaveLease
    | SaveHealth
    | TimelineEntry
)
Action = (
    Saved
    | SaveArtifact
    | Announce
    | TellLease
    | TellAlert
    | ForgetBoard
    | PutLease
    | ClearLease
    | SendOffer
    | SendAnswer
    | SendStop
    | SendAck
    | SendPower
    | SendRequest
    | Reply
    | Note
)
