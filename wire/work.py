"""Leases and work: what broker and boards say to each other. Found in `wire.payloads` too, from where everybody takes
it."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from wire.codec import MAX_SHORT_TEXT
from wire.names import Id
from wire.payload_base import ErrorInfo, Payload, ShortText, Text, Token
from wire.phases import LeaseKind, LeaseStage, Outcome

MAX_STEPS = 200
ExitCode = Annotated[int, Field(ge=0, le=255)]
MAX_PATTERNS = 50
MAX_ARTIFACTS = 1000
"""Files of one job."""
MAX_ARTIFACT_BYTES = 1 << 30
ArtifactPattern = Annotated[str, Field(min_length=1, max_length=MAX_SHORT_TEXT, pattern=r"^[^\n\r\x00]+$")]
ArtifactName = Annotated[str, Field(min_length=1, max_length=1024)]


class Lease(Payload):
    """`board/<board>/lease`, retained while held; an empty payload when nobody holds it."""

    holder: ShortText
    token: Token
    expires: AwareDatetime
    kind: LeaseKind | None = None
    since: AwareDatetime | None = None
    ends: AwareDatetime | None = None
    """When it is taken back: a little before `expires`, so that clocks which differ open the board to nobody else."""
    comment: ShortText | None = None
    """What its person said that it is for."""


class LeaseNotice(Payload):
    """A person's lease: `lease/<lease>/state`, published at each change, and some minutes before its end. Without its
    token, which stands on `board/<board>/lease`."""

    lease: Id
    stage: LeaseStage
    holder: ShortText
    board: Id | None = None
    since: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    comment: ShortText | None = None
    reason: Text | None = None
    """Why it ended, or what is wrong with it."""


class Step(Payload):
    """One command line for the board's shell."""

    name: ShortText
    run: Annotated[str, Field(min_length=1, max_length=65536)]
    timeout_s: float = Field(default=600, gt=0, le=7 * 86400)
    exit_codes: Annotated[list[ExitCode], Field(min_length=1, max_length=16)] | None = None
    """With one of these it has passed; with 0 where this is absent."""
    continue_on_fail: bool = False
    """The next step runs though this one did not pass."""


class StepResult(Payload):
    name: ShortText
    exit_code: int | None = None
    """None when it never ran to its end; `problem` then says why."""
    took_s: float = Field(default=0, ge=0)
    problem: Text | None = None
    passed: bool | None = None
    """The broker's verdict, by exit codes and output; boards do not say it."""


class ArtifactWish(Payload):
    """The files that the board sends after the steps, however they ended: what the shell's patterns find."""

    paths: Annotated[list[ArtifactPattern], Field(min_length=1, max_length=MAX_PATTERNS)]
    max_bytes: int = Field(ge=1, le=MAX_ARTIFACT_BYTES)
    """Of all of them together; a file beyond it is named and not sent."""


class WorkOffer(Payload):
    """Broker to board: take this job. The board answers `accept`, and runs it once per token."""

    kind: Literal["offer"] = "offer"
    job: Id
    token: Token
    expires: AwareDatetime
    name: ShortText
    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_STEPS)]
    env: dict[str, Text] = Field(default={})
    artifacts: ArtifactWish | None = None


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


class WorkArtifact(Payload):
    """A piece of a file that the job left, between its last log and its outcome. Pieces of a file come in order; `n`
    counts the files from 0 per token. Every file ends with a piece that has `sha256`, or `problem` where it could not
    be sent whole."""

    kind: Literal["artifact"] = "artifact"
    job: Id
    token: Token
    n: int = Field(ge=0, le=MAX_ARTIFACTS - 1)
    name: ArtifactName
    """Its path, as the pattern found it."""
    offset: int = Field(ge=0, le=MAX_ARTIFACT_BYTES)
    data: Annotated[str, Field(max_length=64 * 1024, pattern=r"^[A-Za-z0-9+/]*={0,2}$")] = ""
    """Base64, with padding."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    problem: Text | None = None


class WorkOutcome(Payload):
    """Board to broker; repeated until a `WorkAck` comes."""

    kind: Literal["outcome"] = "outcome"
    job: Id
    token: Token
    outcome: Outcome
    steps: Annotated[list[StepResult], Field(max_length=MAX_STEPS)] = Field(default=[])
    problem: Text | None = None
    log_chunks: int = Field(default=0, ge=0)
    """How many `WorkLog` pieces were sent, so that the broker knows whether it has them all."""


WorkMessage = Annotated[WorkOffer | WorkAck | WorkStop | BoardOrder, Field(discriminator="kind")]
"""Anything on `board/<board>/work`."""
WorkReport = Annotated[WorkAsk | WorkAccept | WorkLog | WorkArtifact | WorkOutcome, Field(discriminator="kind")]
"""Anything on `board/<board>/work/result`."""
