"""Requests on `broker/request/<verb>`: what they mean, and their answers. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import Field, ValidationError

from broker.groups.members import members
from broker.happenings import Cancel, PowerAsked, Submit
from broker.health.happenings import BoardAsked, BoardVerb
from broker.jobs.spec import JobSpec, JobSpecError, parse_job
from broker.jobs.steps import wire_steps
from broker.leases.happenings import LeaseOrder
from broker.leases.requests import MODELS, AskedForLeases, AskLeases, lease_order
from wire.names import Id
from wire.payloads import (
    MAX_PAYLOAD_BYTES,
    ErrorInfo,
    Payload,
    PayloadError,
    Request,
    Response,
    ShortText,
    Transaction,
    WorkOffer,
    decode,
    encode,
)
from wire.phases import ErrorKind, JobState, PowerAction

# Room for the envelope; well below `MAX_PAYLOAD_BYTES`, so that every MQTT server passes it on.
MAX_ANSWER_BYTES = 190_000
# The offer's own keys, beside the steps and the environment.
OFFER_ROOM_BYTES = 2048
MOST_LISTED = 1000
GROUP_LINE_BYTES = 132
"""Of one board in what its group adds to the environment."""


class _Submit(Payload):
    yaml: str
    submitter: ShortText = ""


class _Jobs(Payload):
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)
    state: ShortText | None = None
    before: Id | None = None


class _OfJob(Payload):
    job: Id


class _Logs(Payload):
    job: Id
    from_chunk: int = Field(default=0, ge=0, le=2**53)
    limit: int = Field(default=200, ge=1, le=MOST_LISTED)


class _OfJobFrom(Payload):
    job: Id
    start: int = Field(default=0, ge=0, le=2**31)


class _Artifact(Payload):
    job: Id
    attempt: int = Field(ge=1, le=2**31)
    n: int = Field(ge=0, le=2**31)
    offset: int = Field(default=0, ge=0, le=2**53)


class _Boards(Payload):
    limit: int = Field(default=MOST_LISTED, ge=1, le=MOST_LISTED)
    after: Id | None = None


class _OfBoard(Payload):
    board: Id


class _Maintenance(Payload):
    board: Id
    on: bool


class _Health(Payload):
    board: Id | None = None
    after: Id | None = None


@dataclass(frozen=True, slots=True)
class AskJobs:
    tag: str
    limit: int
    state: JobState | None
    before: str | None


@dataclass(frozen=True, slots=True)
class AskJob:
    tag: str
    job: str


@dataclass(frozen=True, slots=True)
class AskLogs:
    tag: str
    job: str
    from_chunk: int
    limit: int


@dataclass(frozen=True, slots=True)
class AskTimeline:
    tag: str
    job: str
    start: int


@dataclass(frozen=True, slots=True)
class AskArtifacts:
    tag: str
    job: str
    start: int


@dataclass(frozen=True, slots=True)
class AskArtifact:
    """A piece of one file from `offset` on."""

    tag: str
    job: str
    attempt: int
    n: int
    offset: int


@dataclass(frozen=True, slots=True)
class AskHealth:
    """Of one board, or of all from `after` on."""

    tag: str
    board: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class AskBoards:
    tag: str
    limit: int
    after: str | None


Question = AskJobs | AskJob | AskLogs | AskTimeline | AskArtifacts | AskArtifact | AskBoards | AskLeases | AskHealth
"""Changes nothing; asked again it is answered anew."""
Order = Submit | Cancel | PowerAsked | LeaseOrder | BoardAsked
"""Changes something; done once per transaction."""


class RequestError(Exception):
    """A request that cannot be taken. `transaction` is the request's where it could be read."""

    def __init__(self, transaction: str | None, kind: ErrorKind, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.transaction = transaction
        self.info = ErrorInfo(kind=kind, message=message[:4096], key=key[:256] if key else None)


class _OnlyTransaction(Payload):
    transaction: Transaction


D = TypeVar("D", bound=Payload)


def read_request(verb: str, payload: bytes, now: datetime) -> Question | Order:
    """What a request asks for; its `tag` is the transaction.

    Raises:
        RequestError: it cannot be read, came too late, or asks for something that is not there.
    """
    try:
        request = decode(Request, payload)
    except PayloadError as error:
        raise RequestError(_transaction_of(payload), ErrorKind.BAD_REQUEST, str(error), error.key) from None
    if request.expires is not None and request.expires <= now:
        late_s = (now - request.expires).total_seconds()
        raise RequestError(request.transaction, ErrorKind.EXPIRED, f"it expired {late_s:.1f} s ago: send it again")
    try:
        return _meaning(verb, request)
    except JobSpecError as error:
        key = f"data.yaml:{error.key}" if error.key else "data.yaml"
        raise RequestError(request.transaction, ErrorKind.BAD_REQUEST, str(error), key) from None


def _transaction_of(payload: bytes) -> str | None:
    try:
        return decode(_OnlyTransaction, payload).transaction
    except PayloadError:
        return None


def _data(model: type[D], request: Request) -> D:
    try:
        return model.model_validate(request.data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(("data", *map(str, first["loc"])))
        raise RequestError(request.transaction, ErrorKind.BAD_REQUEST, f"{key}: {first['msg']}", key) from None


def _meaning(verb: str, request: Request) -> Question | Order:  # noqa: PLR0911  # a table of verbs
    tag = request.transaction
    match verb:
        case "submit":
            return _submit(request)
        case "cancel":
            return Cancel(tag, _data(_OfJob, request).job)
        case "jobs":
            jobs = _data(_Jobs, request)
            return AskJobs(tag, jobs.limit, _job_state(jobs.state, request), jobs.before)
        case "job":
            return AskJob(tag, _data(_OfJob, request).job)
        case "logs":
            logs = _data(_Logs, request)
            return AskLogs(tag, logs.job, logs.from_chunk, logs.limit)
        case "timeline" | "artifacts":
            part = _data(_OfJobFrom, request)
            return (AskTimeline if verb == "timeline" else AskArtifacts)(tag, part.job, part.start)
        case "artifact":
            file = _data(_Artifact, request)
            return AskArtifact(tag, file.job, file.attempt, file.n, file.offset)
        case "reserve" | "extend" | "release" | "hand-over":
            return lease_order(tag, _data(MODELS[verb], request))
        case "leases":
            return _leases(request)
        case _:
            return _about_boards(verb, request)


def _about_boards(verb: str, request: Request) -> Question | Order:
    tag = request.transaction
    match verb:
        case "sleep" | "wake":
            power = PowerAction.OFF if verb == "sleep" else PowerAction.ON
            return PowerAsked(tag, _data(_OfBoard, request).board, power)
        case "accept" | "retire" | "check" | "forget":
            return BoardAsked(tag, _data(_OfBoard, request).board, BoardVerb(verb))
        case "maintenance":
            wanted = _data(_Maintenance, request)
            on_or_off = BoardVerb.MAINTENANCE_ON if wanted.on else BoardVerb.MAINTENANCE_OFF
            return BoardAsked(tag, wanted.board, on_or_off)
        case "health":
            health = _data(_Health, request)
            return AskHealth(tag, health.board, health.after)
        case "boards":
            boards = _data(_Boards, request)
            return AskBoards(tag, boards.limit, boards.after)
        case _:
            known = "submit, cancel, jobs, job, logs, timeline, artifacts, artifact, boards, sleep, wake, "
            known += "reserve, extend, release, hand-over, leases, accept, retire, check, forget, maintenance, health"
            raise RequestError(tag, ErrorKind.NOT_FOUND, f"the broker knows no {verb!r}; it knows {known}")


def _leases(request: Request) -> AskLeases:
    asked = _data(AskedForLeases, request)
    return AskLeases(request.transaction, asked.start, asked.lease)


def _submit(request: Request) -> Submit:
    asked = _data(_Submit, request)
    spec = parse_job(asked.yaml)
    parts = members(spec)
    for part in parts or [None]:
        _fits(spec if part is None else part.spec, len(parts))
    return Submit(request.transaction, spec, asked.submitter)


def _fits(spec: JobSpec, boards: int) -> None:
    offer = WorkOffer(
        job="job-1",
        token=1,
        expires=datetime.fromisoformat("2000-01-01T00:00:00+00:00"),
        name=spec.name,
        steps=wire_steps(spec),
        env=dict(spec.env),
        artifacts=spec.artifacts.wish() if spec.artifacts is not None else None,
    )
    size, room = len(encode(offer)), MAX_PAYLOAD_BYTES - OFFER_ROOM_BYTES - boards * GROUP_LINE_BYTES
    if size > room:
        raise JobSpecError("steps", None, f"the job makes an offer of {size} bytes, and {room} can be sent")


def _job_state(text: str | None, request: Request) -> JobState | None:
    try:
        return JobState(text) if text is not None else None
    except ValueError:
        known = ", ".join(JobState)
        message = f"data.state: {text!r} is no state of a job; known are {known}"
        raise RequestError(request.transaction, ErrorKind.BAD_REQUEST, message, "data.state") from None


def response(transaction: str | None, data: dict[str, object], error: ErrorInfo | None = None) -> bytes:
    """An answer as it goes out."""
    return encode(Response(transaction=transaction, ok=error is None, data=data, error=error))


def response_with(transaction: str, data: bytes) -> bytes:
    """The same, for what went well and whose data is JSON already."""
    empty = response(transaction, {})
    return empty.removesuffix(b"{}}") + data + b"}"


def what_fits(items: Sequence[Payload], room_bytes: int = MAX_ANSWER_BYTES) -> list[dict[str, object]]:
    """As many of the first items, as JSON objects, as one answer can hold; at least one where there is one."""
    fitting: list[dict[str, object]] = []
    for item in items:
        room_bytes -= len(encode(item)) + 1
        if room_bytes < 0 and fitting:
            break
        fitting.append(item.model_dump(mode="json", exclude_none=True))
    return fitting
