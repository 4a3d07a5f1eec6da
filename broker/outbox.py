"""Actions in, MQTT messages out. No I/O."""

from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from broker.groups.multinode_payloads import MAX_ANSWER_LETTERS, WorkAnswer
from broker.happenings import (
    Action,
    Announce,
    ClearLease,
    PutLease,
    SendAck,
    SendAnswer,
    SendOffer,
    SendPower,
    SendRequest,
    SendStop,
)
from broker.health.happenings import TellAlert
from broker.leases.happenings import TellLease
from wire.payloads import BrokerState, Lease, PowerCommand, Request, WorkAck, WorkOffer, WorkStop, encode
from wire.phases import Presence
from wire.topics import Topics

ALERT = "health"
"""The broker's alert about a board."""


def _version() -> str:
    try:
        return version("boardhand")
    except PackageNotFoundError:
        return "unknown"


def presence(state: Presence, session: int, since: datetime) -> bytes:
    """What stands on `broker/state`."""
    return encode(BrokerState(state=state, session=session, since=since, version=_version()))


@dataclass(frozen=True, slots=True)
class Outgoing:
    topic: str
    payload: bytes
    retain: bool = False


def clearing(topics: Topics, board: str) -> list[Outgoing]:
    """What takes a board that nobody has any more from the MQTT server."""
    kept = (topics.board_state(board), topics.board_info(board), topics.board_self(board), topics.lease(board))
    return [Outgoing(topic, b"", retain=True) for topic in (*kept, topics.alert(board, ALERT))]


def message_for(topics: Topics, action: Action) -> Outgoing | None:  # noqa: PLR0911  # a table of actions
    """The message that an action is, or None for one that is not said over MQTT."""
    match action:
        case Announce(summary):
            return Outgoing(topics.job_state(summary.job), encode(summary))
        case TellAlert(board, alert):
            return Outgoing(topics.alert(board, ALERT), encode(alert) if alert is not None else b"", retain=True)
        case TellLease(notice):
            return Outgoing(topics.lease_state(notice.lease), encode(notice))
        case PutLease():
            return Outgoing(topics.lease(action.board), encode(_lease(action)), retain=True)
        case ClearLease(board):
            return Outgoing(topics.lease(board), b"", retain=True)
        case SendPower():
            command = PowerCommand(
                power=action.power, id=action.id, expires=action.expires, token=action.token, purpose=action.purpose
            )
            return Outgoing(topics.power_set(action.board), encode(command))
        case SendRequest(agent, verb, transaction, data, expires):
            request = Request(transaction=transaction, expires=expires, data=data)
            return Outgoing(topics.agent_request(agent, verb), encode(request))
        case SendAnswer(board, job, token, call, ok, text):
            answer = WorkAnswer(job=job, token=token, call=call, ok=ok, text=text[:MAX_ANSWER_LETTERS])
            return Outgoing(topics.work_answer(board), encode(answer))
        case SendOffer() | SendStop() | SendAck():
            return Outgoing(topics.work(action.board), _work(action))
        case _:
            return None


def _lease(put: PutLease) -> Lease:
    return Lease(
        holder=put.holder,
        token=put.token,
        expires=put.expires,
        kind=put.kind,
        since=put.since,
        ends=put.ends,
        comment=put.comment,
    )


def _work(action: SendOffer | SendStop | SendAck) -> bytes:
    match action:
        case SendOffer():
            offer = WorkOffer(
                job=action.job,
                token=action.token,
                expires=action.expires,
                name=action.name,
                steps=action.steps,
                env=action.env,
                artifacts=action.artifacts,
            )
            return encode(offer)
        case SendStop():
            return encode(WorkStop(job=action.job, token=action.token, reason=action.reason[:4096]))
        case SendAck():
            return encode(WorkAck(job=action.job, token=action.token, ok=action.ok, error=action.error))
