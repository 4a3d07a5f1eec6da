"""What the API takes and gives, for its OpenAPI document. Boards, jobs and events are as the contract has them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from broker.web.access import Role
from wire.names import Id
from wire.payloads import Alert, BoardInfo, ErrorInfo, Event, JobSummary
from wire.phases import LeaseKind, Phase, Power, PowerAction, Presence

MAX_YAML_CHARACTERS = 128 * 1024
LONGEST_LEASE_S = 30 * 86400.0


class View(BaseModel):
    """Something that the API shows; later versions may show more. Made from the contract's JSON with `strict=False`:
    payloads would take no text for a time."""

    model_config = ConfigDict(extra="allow")


class Asked(BaseModel):
    """Something that the API is asked; a key that nobody knows is a typo."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """Why something was not done, as on MQTT: `kind` says what to do next."""

    error: ErrorInfo


class LeaseView(View):
    """Who holds a board. The token that switches it is not shown."""

    holder: str
    expires: datetime
    kind: LeaseKind | None = None
    since: datetime | None = None
    ends: datetime | None = None
    comment: str | None = None


class BoardView(View):
    """A board. `power` is unknown while its agent is away; `watts` is null where nothing measures."""

    board: str
    power: Power
    phase: Phase | None = None
    reason: str | None = None
    since: datetime | None = None
    agent: str | None = None
    agent_online: bool = False
    info: BoardInfo | None = None
    work: str | None = None
    lease: LeaseView | None = None
    watts: float | None = None
    alerts: dict[str, Alert] = {}


class AgentView(View):
    agent: str
    state: Presence | None = None


class FarmView(View):
    """The farm in numbers."""

    version: str
    broker: Presence | None = None
    phases: dict[Phase, int]
    watts: float
    you: str | None = Field(description="the name of your token; null without one")
    role: Role | None = None


class JobList(View):
    jobs: list[JobSummary]
    more: bool = Field(description="there are older ones: ask with `before`")


class LogPieceView(View):
    seq: int
    attempt: int
    step: str | None = None
    text: str


class LogView(View):
    chunks: list[LogPieceView]
    next: int = Field(description="`from_chunk` of the next question")
    ended: bool


class Timeline(View):
    """Events of a board, the newest first."""

    events: list[Event]
    more: bool


class Login(Asked):
    token: Annotated[str, Field(min_length=1, max_length=256)]


class Me(View):
    name: str
    role: Role


class SubmitJob(Asked):
    yaml: Annotated[str, Field(min_length=1, max_length=MAX_YAML_CHARACTERS)]


class Submitted(View):
    job: str


class SwitchPower(Asked):
    """`force` overrides a lease; an admin's alone, told in the board's timeline."""

    power: PowerAction
    force: bool = False


class Switched(View):
    """What the hardware says after the command."""

    ok: bool
    power: Power
    took_ms: float


class Maintenance(Asked):
    on: bool


class Joining(Asked):
    open: bool
    for_s: Annotated[float, Field(gt=0, le=86400)] = 600


class Reserve(Asked):
    """A board by name, or any that has the labels; `wait` queues when all are taken, `wake` switches on one that
    sleeps, `off` switches it off at the end (null: as the farm does it)."""

    board: Id | None = None
    labels: dict[str, object] = {}
    for_s: Annotated[float, Field(ge=60, le=LONGEST_LEASE_S)] = 7200
    comment: Annotated[str, Field(max_length=256)] = ""
    wait: bool = False
    wake: bool = False
    off: bool | None = None


class Extend(Asked):
    for_s: Annotated[float, Field(ge=60, le=LONGEST_LEASE_S)]


class HandOver(Asked):
    to: Id


Sleep = Literal["sleep", "wake"]
Trust = Literal["accept", "check", "retire", "forget"]
