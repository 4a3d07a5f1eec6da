"""What stands in the messages. Every payload is one JSON object in UTF-8; unknown keys are tolerated, wrong types
are an error that names the key.

Times are RFC 3339 with an offset. Durations carry their unit in their name. `decode` and `encode` of `wire.codec`,
which are also found here, are the only ways in and out.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from wire.codec import MAX_PAYLOAD_BYTES as MAX_PAYLOAD_BYTES  # noqa: PLC0414  # part of the contract, so found here too
from wire.codec import MAX_SHORT_TEXT as MAX_SHORT_TEXT  # noqa: PLC0414  # part of the contract, so found here too
from wire.codec import PayloadError as PayloadError  # noqa: PLC0414  # part of the contract, so found here too
from wire.codec import decode as decode  # noqa: PLC0414  # part of the contract, so found here too
from wire.codec import encode as encode  # noqa: PLC0414  # part of the contract, so found here too
from wire.labels import Label as Label  # noqa: PLC0414  # part of the contract, so found here too
from wire.names import Id, Mac
from wire.payload_base import MAX_TEXT as MAX_TEXT  # noqa: PLC0414  # part of the contract, so found here too
from wire.payload_base import BootId as BootId  # noqa: PLC0414  # part of the contract, so found here too
from wire.payload_base import ErrorInfo as ErrorInfo  # noqa: PLC0414  # part of the contract, so found here too
from wire.payload_base import Payload as Payload  # noqa: PLC0414  # part of the contract, so found here too
from wire.payload_base import ShortText as ShortText  # noqa: PLC0414  # part of the contract, so found here too
from wire.payload_base import Text as Text  # noqa: PLC0414  # part of the contract, so found here too
from wire.payload_base import Token as Token  # noqa: PLC0414  # part of the contract, so found here too
from wire.payload_base import Transaction as Transaction  # noqa: PLC0414  # part of the contract, so found here too
from wire.phases import EventType, JobState, Phase, Power, PowerAction, Presence, Purpose
from wire.work import MAX_ARTIFACT_BYTES as MAX_ARTIFACT_BYTES  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import MAX_ARTIFACTS as MAX_ARTIFACTS  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import MAX_PATTERNS as MAX_PATTERNS  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import MAX_STEPS as MAX_STEPS  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import ArtifactName as ArtifactName  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import ArtifactPattern as ArtifactPattern  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import ArtifactWish as ArtifactWish  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import BoardOrder as BoardOrder  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import ExitCode as ExitCode  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import Lease as Lease  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import LeaseNotice as LeaseNotice  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import Step as Step  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import StepResult as StepResult  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import WorkAccept as WorkAccept  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import WorkAck as WorkAck  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import WorkArtifact as WorkArtifact  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import WorkAsk as WorkAsk  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import WorkLog as WorkLog  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import WorkMessage as WorkMessage  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import WorkOffer as WorkOffer  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import WorkOutcome as WorkOutcome  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import WorkReport as WorkReport  # noqa: PLC0414  # part of the contract, so found here too
from wire.work import WorkStop as WorkStop  # noqa: PLC0414  # part of the contract, so found here too

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
    outlets: list[OutletInfo] = Field(default=[])


class AgentInfo(Payload):
    """`agent/<agent>/info`, retained."""

    version: ShortText
    contract: ShortText
    host: ShortText
    controllers: list[ControllerInfo] = Field(default=[])
    consoles: list[Id] = Field(default=[])
    boards: list[Id] = Field(default=[])
    hooks: list[ShortText] = Field(default=[])
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

    macs: list[Mac] = Field(default=[])
    serial: ShortText | None = None
    uuid: ShortText | None = None
    compatible: list[ShortText] = Field(default=[])
    arch: ShortText | None = None
    memory_mb: int | None = Field(default=None, ge=0)
    address: ShortText | None = None
    labels: dict[ShortText, Label] = Field(default={})
    feed: list[ShortText] = Field(default=[])
    console: ShortText | None = None
    """Where others connect: `telnet://HOST:PORT` (RFC 2217 too), or `unix:/PATH` on its agent's host."""
    image: ShortText | None = None


class Telemetry(Payload):
    """`board/<board>/telemetry`. What no device measured is absent: `energy_wh` has gaps; `estimated_wh` is theirs."""

    power_w: float | None = None
    energy_wh: float | None = Field(default=None, ge=0)
    estimated_wh: float | None = Field(default=None, ge=0)
    energy_since: AwareDatetime | None = None
    temperature_c: float | None = None


class Alert(Payload):
    """`board/<board>/alert/<name>` and `agent/<agent>/alert/<name>`, retained until cleared by an empty payload."""

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
    details: dict[str, object] = Field(default={})


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
    macs: list[Mac] = Field(default=[])
    boot_id: BootId
    board: Id | None = None
    agent: Id | None = None
    proof: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    serial: ShortText | None = None
    uuid: ShortText | None = None
    compatible: list[ShortText] = Field(default=[])
    arch: ShortText | None = None
    memory_mb: int | None = Field(default=None, ge=0)
    kernel: ShortText | None = None
    address: ShortText | None = None
    client: ShortText | None = None
    inventory: dict[ShortText, Label] = Field(default={}, max_length=64)
    """What it is made of, as labels that jobs may ask for: `model`, `cpu`, `cpus`, `nics`, `storage`, `storage_gb`;
    its settings' own labels go first. New ones may come with later versions."""


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
    steps: list[StepResult] = Field(default=[])


class Request(Payload):
    """`…/request/<verb>`. `transaction` comes back in the answer; the same one twice is done once."""

    transaction: Transaction
    expires: AwareDatetime | None = None
    data: dict[str, object] = Field(default={})


class Response(Payload):
    """`…/response/<verb>`."""

    transaction: Transaction | None = None
    ok: bool
    data: dict[str, object] = Field(default={})
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
