"""Actions in, MQTT messages out. No I/O."""

from dataclasses import dataclass

from broker.happenings import (
    Action,
    Announce,
    ClearLease,
    PutLease,
    SendAck,
    SendOffer,
    SendPower,
    SendStop,
)
from wire.payloads import Lease, PowerCommand, WorkAck, WorkOffer, WorkStop, encode
from wire.topics import Topics


@dataclass(frozen=True, slots=True)
class Outgoing:
    topic: str
    payload: bytes
    retain: bool = False


def message_for(topics: Topics, action: Action) -> Outgoing | None:
    """The message that an action is, or None for one that is not said over MQTT."""
    match action:
        case Announce(summary):
            return Outgoing(topics.job_state(summary.job), encode(summary))
        case PutLease(board, token, holder, expires):
            lease = Lease(holder=holder, token=token, expires=expires)
            return Outgoing(topics.lease(board), encode(lease), retain=True)
        case ClearLease(board):
            return Outgoing(topics.lease(board), b"", retain=True)
        case SendPower():
            command = PowerCommand(
                power=action.power, id=action.id, expires=action.expires, token=action.token, purpose=action.purpose
            )
            return Outgoing(topics.power_set(action.board), encode(command))
        case SendOffer() | SendStop() | SendAck():
            return Outgoing(topics.work(action.board), _work(action))
        case _:
            return None


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
            )
            return encode(offer)
        case SendStop():
            return encode(WorkStop(job=action.job, token=action.token, reason=action.reason[:4096]))
        case SendAck():
            return encode(WorkAck(job=action.job, token=action.token, ok=action.ok, error=action.error))
