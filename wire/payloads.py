"""What stands in the messages. Every payload is one JSON object in UTF-8; unknown keys are tolerated, wrong types
are an error that names the key.

Times are RFC 3339 with an offset. Durations carry their unit in their name. `decode` and `encode` of `wire.codec`,
which are also found here, are the only ways in and out.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from wire.codec import MAX_PAYLOAD_BYTES as MAX_PAYLOAD_BYTES  # noqa: PLC0414  # part of the contract, so found here too
from wire.codec import MAX_SHORT_TEXT as MAX_SHORT_TEXT  # noqa: PLC0414  # part of the contract, so found here too
from wire.codec import PayloadError as PayloadError  # noqa: PLC0414  # part of the contract, so found here too
from wire.codec import decode as decode  # noqa: PLC0414  # part of the contract, so found here too
from wire.codec import encode as encode  # noqa: PLC0414  # part of the contract, so found here too
from wire.labels import Label as Label  # noqa: PLC0414  # part of the contract, so found here too
from wire.names import Id, Mac
from wire.phases import ErrorKind, EventType, JobState, Outcome, Phase, Power, PowerAction, Presence, Purpose

MAX_TEXT = 4096
MAX_STEPS = 200

Text = Annotated[str, Field(max_length=MAX_TEXT)]
ShortText = Annotated[str, Field(max_length=MAX_SHORT_TEXT)]
Token = Annotated[int, Field(ge=1, le=2**53)]
Transaction = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]
BootId = Transaction


class Payload(BaseModel):
    """Base of all payloads: immutable, strict on known keys, tolerant of unknown ones."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class ErrorInfo(Payload):
    """An error as it is told over MQTT. `key` names the payload or settings key at fault where there is one."""

    kind: ErrorKind
    message: Text
    key: ShortText | None = None


# --- agent -----------------------------------------------------------------------------------------------------


class AgentState(Payload):
    """`agent/<agent>/state`, retained; the will says `lost` with the same session."""

    state: Presence
    session: int = Field(ge=0)
    since: AwareDatetime


class OutletInfo(Payload):
    """One switched port of a controller, as last read back."""

    outlet: ShortText
    name: ShortText | None = None
    """What is written on it, as the controller says."""
    power: Power = Power.UNKNOWN
    board: Id | None = None


class ControllerInfo(Payload):
    name: Id
    driver: ShortText
    description: Text = ""
    device: Text | None = None
    """What the controller says that it is, and why that is believed."""
    problem: Text | None = None
    """Why it could not be asked."""
    outlets: list[OutletInfo] = []


class AgentInfo(Payload):
    """`agent/<agent>/info`, retained."""

    version: ShortText
    contract: ShortText
    host: ShortText
    controllers: list[ControllerInfo] = []
    consoles: list[Id] = []
    boards: list[Id] = []
    hooks: list[ShortText] = []
    """Points of a board's life at which programs of the admin's run here. Where `before-job` is among them, the agent
    wants to be asked (`prepare`) before a board is offered work."""


# --- board, as its agent sees it -------------------------------------------------------------------------------


class BoardState(Payload):
    """`board/<board>/state`, retained. `power` was read back; `target` is what was asked for; `seq` is the number
    of the last event that is contained in this state."""

    power: Power
    target: Power | None = None
    phase: Phase
    reason: Text | None = None
    since: AwareDatetime
    agent: Id
    session: int = Field(ge=0)
    seq: int = Field(ge=0)


class BoardInfo(Payload):
    """`board/<board>/info`, retained: who the board is and how it is wired."""

    macs: list[Mac] = []
    serial: ShortText | None = None
    uuid: ShortText | None = None
    compatible: list[ShortText] = []
    arch: ShortText | None = None
    memory_mb: int | None = Field(default=None, ge=0)
    address: ShortText | None = None
    labels: dict[ShortText, Label] = {}
    feed: list[ShortText] = []
    console: ShortText | None = None
    image: ShortText | None = None


class Telemetry(Payload):
    """`board/<board>/telemetry`. What no device measured is absent: `energy_wh` has gaps; `estimated_wh` is theirs."""

    power_w: float | None = None
    energy_wh: float | None = Field(default=None, ge=0)
    estimated_wh: float | None = Field(default=None, ge=0)
    energy_since: AwareDatetime | None = None
    temperature_c: float | None = None


class Alert(Payload):
    """`board/<board>/alert/<name>`, retained until cleared by an empty payload."""

    what: Text
    since: AwareDatetime
    do: Text = ""


class Event(Payload):
    """`event/<board>`. `seq` has no gap per board over the whole life of the agent's state folder; a reader drops a
    `seq` that it has seen."""

    type: EventType
    at: AwareDatetime
    board: Id
    agent: Id
    session: int = Field(ge=0)
    seq: int = Field(ge=1)
    details: dict[str, object] = {}


class PowerCommand(Payload):
    """`board/<board>/power/set`: as JSON, or as the bare word of `power`."""

    power: PowerAction
    id: Transaction | None = None
    expires: AwareDatetime | None = None
    token: Token | None = None
    force: bool = False
    purpose: Purpose = Purpose.OPERATOR


class PowerResult(Payload):
    """`board/<board>/power/result`. `power` is the read-back after the command, whether it succeeded or not."""

    id: Transaction | None = None
    ok: bool
    power: Power
    action: PowerAction | None = None
    error: ErrorInfo | None = None
    took_ms: float = Field(ge=0)


# --- board, as it speaks for itself ----------------------------------------------------------------------------


class Registration(Payload):
    """`register`: a board that came up says what it knows of itself.

    `proof` is HMAC-SHA256, in hexadecimal, of `registration_message(board, boot_id, mac)` with the boot's secret
    (its hexadecimal text as the key). The secret itself never travels over MQTT.
    """

    mac: Mac
    macs: list[Mac] = []
    boot_id: BootId
    board: Id | None = None
    agent: Id | None = None
    proof: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    serial: ShortText | None = None
    uuid: ShortText | None = None
    compatible: list[ShortText] = []
    arch: ShortText | None = None
    memory_mb: int | None = Field(default=None, ge=0)
    kernel: ShortText | None = None
    address: ShortText | None = None
    client: ShortText | None = None


class RegistrationAnswer(Payload):
    """`register/<mac>`: the answer to the board. `boot_id` comes back so that an old answer is not taken for ours."""

    ok: bool
    boot_id: ShortText
    board: Id | None = None
    agent: Id | None = None
    error: ErrorInfo | None = None


class BoardSelf(Payload):
    """`board/<board>/self`, retained; the will says `offline` with the same `boot_id`."""

    state: Literal[Presence.ONLINE, Presence.OFFLINE]
    boot_id: ShortText
    address: ShortText | None = None
    os: ShortText | None = None
    uptime_s: float | None = Field(default=None, ge=0)
    work: Id | None = None
    """The job it is working on."""
    client: ShortText | None = None


def registration_message(board: str, boot_id: str, mac: str) -> bytes:
    """What `Registration.proof` signs. A newline can stand in none of the three."""
    return f"boardhand-register\n{board}\n{boot_id}\n{mac.lower()}".encode()


# --- leases and work -------------------------------------------------------------------------------------------


class Lease(Payload):
    """`board/<board>/lease`, retained while held; an empty payload when nobody holds it."""

    holder: ShortText
    token: Token
    expires: AwareDatetime


class Step(Payload):
    """One command line for the board's shell."""

    name: ShortText
    run: Annotated[str, Field(min_length=1, max_length=65536)]
    timeout_s: float = Field(default=600, gt=0, le=7 * 86400)


class StepResult(Payload):
    name: ShortText
    exit_code: int | None = None
    """None when it never ran to its end; `problem` then says why."""
    took_s: float = Field(default=0, ge=0)
    problem: Text | None = None


class WorkOffer(Payload):
    """Broker to board: take this job. The board answers `accept`, and runs it once per token."""

    kind: Literal["offer"] = "offer"
    job: Id
    token: Token
    expires: AwareDatetime
    name: ShortText
    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_STEPS)]
    env: dict[str, Text] = {}


class WorkAck(Payload):
    """Broker to board: the outcome is stored; the board may forget it. `ok` is false when the token was old."""

    kind: Literal["ack"] = "ack"
    job: Id
    token: Token
    ok: bool = True
    error: ErrorInfo | None = None


class WorkStop(Payload):
    """Broker to board: end this job now and report it as `error`."""

    kind: Literal["stop"] = "stop"
    job: Id
    token: Token
    reason: Text = ""


class BoardOrder(Payload):
    """To the board: reboot, or power down cleanly."""

    kind: Literal["reboot", "poweroff"]
    reason: Text = ""


class WorkAsk(Payload):
    """Board to broker: I have nothing to do."""

    kind: Literal["ask"] = "ask"
    boot_id: ShortText


class WorkAccept(Payload):
    kind: Literal["accept"] = "accept"
    job: Id
    token: Token
    boot_id: ShortText


class WorkLog(Payload):
    """A piece of the job's output. `seq` counts from 0 per token, so a repeated piece is seen as such."""

    kind: Literal["log"] = "log"
    job: Id
    token: Token
    seq: int = Field(ge=0)
    text: Annotated[str, Field(max_length=64 * 1024)]
    step: ShortText | None = None


class WorkOutcome(Payload):
    """Board to broker; repeated until a `WorkAck` comes."""

    kind: Literal["outcome"] = "outcome"
    job: Id
    token: Token
    outcome: Outcome
    steps: Annotated[list[StepResult], Field(max_length=MAX_STEPS)] = []
    problem: Text | None = None
    log_chunks: int = Field(default=0, ge=0)
    """How many `WorkLog` pieces were sent, so that the broker knows whether it has them all."""


WorkMessage = Annotated[WorkOffer | WorkAck | WorkStop | BoardOrder, Field(discriminator="kind")]
"""Anything on `board/<board>/work`."""
WorkReport = Annotated[WorkAsk | WorkAccept | WorkLog | WorkOutcome, Field(discriminator="kind")]
"""Anything on `board/<board>/work/result`."""


# --- broker ----------------------------------------------------------------------------------------------------


class BrokerState(Payload):
    """`broker/state`, retained; the will says `lost`."""

    state: Presence
    session: int = Field(ge=0)
    since: AwareDatetime
    version: ShortText = ""


class JobSummary(Payload):
    """One job as `boardhand jobs` shows it; also `job/<job>/state`, published at each change."""

    job: Id
    name: ShortText
    state: JobState
    board: Id | None = None
    attempt: int = Field(default=0, ge=0)
    priority: int = 0
    reason: Text | None = None
    """Why it waits, or why it ended as it did."""
    submitted: AwareDatetime
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    steps: list[StepResult] = []


class Request(Payload):
    """`…/request/<verb>`. `transaction` comes back in the answer; the same one twice is done once."""

    transaction: Transaction
    expires: AwareDatetime | None = None
    data: dict[str, object] = {}


class Response(Payload):
    """`…/response/<verb>`."""

    transaction: Transaction | None = None
    ok: bool
    data: dict[str, object] = {}
    error: ErrorInfo | None = None


def parse_power_command(payload: bytes) -> PowerCommand:
    """A power command from a bare word (`on`, ` OFF\\n`) or from JSON.

    Raises:
        PayloadError: it is neither.
    """
    if len(payload) <= 16 and not payload.lstrip().startswith(b"{"):
        word = payload.strip().lower()
        for action in PowerAction:
            if word == action.value.encode():
                return PowerCommand(power=action)
        shown = payload.decode("utf-8", "backslashreplace")
        raise PayloadError("power", f"{shown!r} is not on, off or cycle")
    return decode(PowerCommand, payload)
