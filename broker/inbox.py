"""MQTT messages in, happenings out. No I/O; a message that cannot be read becomes a complaint, never an exception."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from broker.groups.multinode_payloads import CALL_TAIL, WorkCall
from broker.happenings import (
    AgentAnswered,
    AgentInfoSeen,
    AgentSeen,
    Called,
    Happening,
    InfoSeen,
    LeaseSeen,
    PowerReported,
    Reported,
    SelfSeen,
    StateSeen,
)
from broker.requests import Order, Question, RequestError, read_request
from wire.names import Id
from wire.payloads import (
    AgentInfo,
    AgentState,
    BoardInfo,
    BoardSelf,
    BoardState,
    ErrorInfo,
    Event,
    Lease,
    Payload,
    PayloadError,
    PowerResult,
    Response,
    Token,
    WorkAck,
    WorkReport,
    decode,
    encode,
)
from wire.phases import ErrorKind
from wire.topics import Topics

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request was read."""

    verb: str
    request: Question | Order


@dataclass(frozen=True, slots=True)
class Refused:
    """A request could not be taken; this goes back on `response/<verb>`."""

    verb: str
    error: RequestError


@dataclass(frozen=True, slots=True)
class Complaint:
    """A message that cannot be read. `topic` and `payload` are an answer, where there is somebody to be told."""

    about: str
    problem: str
    topic: str | None = None
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Heard:
    """An agent says what happened to a board: a line for the timeline of the job that has it."""

    event: Event


Found = Asked | Refused | Complaint | Heard | Happening | None
ANSWERS = ("boot", "netboot", "prepare", "maintenance")
"""What the broker asks of agents."""


def subscriptions(topics: Topics) -> list[str]:
    """What the broker listens to."""
    return [
        topics.every_agent("state"),
        topics.every_agent("info"),
        *(topics.every_board(tail) for tail in ("state", "info", "self", "lease", "work/result", "power/result")),
        *(topics.every_agent(f"response/{verb}") for verb in ANSWERS),
        topics.every_board(CALL_TAIL),
        topics.every_event(),
        f"{topics.prefix}/broker/request/+",
    ]


class _Outcome(Payload):
    """The part of a spoiled outcome that its sender must be answered by."""

    kind: Literal["outcome"]
    job: Id
    token: Token


def read_message(topics: Topics, topic: str, payload: bytes, *, retain: bool, now: datetime) -> Found:
    """What a message means; None for one that is not for us or that must not be acted on."""
    verb = topics.parse_verb(topic, "broker")
    if verb is not None:
        # A retained command is never acted on.
        return None if retain else _request(verb, payload, now)
    try:
        agent = topics.parse_agent(topic)
        if agent is not None:
            return _of_agent(agent.board, agent.tail, payload, retain=retain)
        if topic.startswith(f"{topics.prefix}/event/"):
            return None if retain else Heard(decode(Event, payload))
        board = topics.parse_board(topic)
        return _of_board(board.board, board.tail, payload, retain=retain) if board is not None else None
    except PayloadError as error:
        return _complaint(topics, topic, payload, error)


def _request(verb: str, payload: bytes, now: datetime) -> Asked | Refused:
    try:
        return Asked(verb, read_request(verb, payload, now))
    except RequestError as error:
        return Refused(verb, error)


def _retained(model: type[P], payload: bytes) -> P | None:
    return decode(model, payload) if payload else None


def _of_agent(agent: str, tail: str, payload: bytes, *, retain: bool) -> Happening | None:
    if tail == "state":
        return AgentSeen(agent, _retained(AgentState, payload))
    if tail == "info":
        return AgentInfoSeen(agent, _retained(AgentInfo, payload))
    head, _, verb = tail.partition("/")
    if head == "response" and verb in ANSWERS and not retain:
        return AgentAnswered(agent, verb, decode(Response, payload))
    return None


def _of_board(board: str, tail: str, payload: bytes, *, retain: bool) -> Happening | None:  # noqa: PLR0911  # a table of topics
    match tail:
        case "state":
            return StateSeen(board, _retained(BoardState, payload))
        case "info":
            return InfoSeen(board, _retained(BoardInfo, payload))
        case "self":
            return SelfSeen(board, _retained(BoardSelf, payload))
        case "lease":
            return _lease(board, payload) if retain else None  # else the echo of our own word
        case "work/result":
            return None if retain else Reported(board, decode(WorkReport, payload))  # type: ignore[arg-type]  # a union
        case "work/call":
            return None if retain else Called(board, decode(WorkCall, payload))
        case "power/result":
            return None if retain else PowerReported(board, decode(PowerResult, payload))
        case _:
            return None


def _lease(board: str, payload: bytes) -> LeaseSeen:
    try:
        lease = _retained(Lease, payload)
    except PayloadError:
        return LeaseSeen(board, None, empty=False)
    return LeaseSeen(board, lease.token if lease is not None else None, empty=lease is None)


def _complaint(topics: Topics, topic: str, payload: bytes, error: PayloadError) -> Complaint:
    complaint = Complaint(topic, str(error))
    board = topics.parse_board(topic)
    if board is None or board.tail != "work/result":
        return complaint
    try:
        spoiled = decode(_Outcome, payload)
    except PayloadError:
        return complaint
    # Unanswered, the board would repeat it for ever.
    told = ErrorInfo(kind=ErrorKind.BAD_REQUEST, message=str(error)[:4096], key=error.key[:256] or None)
    ack = WorkAck(job=spoiled.job, token=spoiled.token, ok=False, error=told)
    return Complaint(topic, str(error), topics.work(board.board), encode(ack))
