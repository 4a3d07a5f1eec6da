"""Requests to the farm's work broker, and to agents: one transaction, repeated until it is answered.

The same transaction twice is done once, by contract; so a request is sent again when the connection broke or the
broker was restarting, and can neither be lost nor done double.
"""

import json
import time
from typing import Any

from cli.exits import CliError, Exit, advice_of, exit_of
from cli.plain_text import shown
from cli.session import Session, new_id
from cli.target import Target
from wire.payloads import BrokerState, PayloadError, Request, Response, decode, encode
from wire.phases import Presence
from wire.topics import Topics

REPEAT_S = 3.0  # a broker restarts in about a second; much more often would only fill its queue
PRESENCE_S = 1.0  # retained state follows the SUBACK at once
RETRY_PAUSE_S = 0.5
ANSWER_TIMEOUT_S = 15.0
SUBMIT_TIMEOUT_S = 60.0  # long enough for the broker, or the MQTT server, to be restarted meanwhile


def ask_broker(
    target: Target, verb: str, data: dict[str, object], *, timeout_s: float, patient: bool
) -> dict[str, Any]:
    """The `data` of the broker's answer. With `patient`, a broker or MQTT server that is away is waited for until
    `timeout_s`; otherwise that is said at once.

    Raises:
        CliError: the broker said no (by its error kind), did not answer, or the server is not reachable.
    """
    transaction = "cli-" + new_id()
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            with Session(target) as session:
                return _Exchange(session, verb, transaction, data).answer(deadline_s, patient=patient)
        except CliError as error:
            again = patient and error.code is Exit.UNREACHABLE and time.monotonic() + RETRY_PAUSE_S < deadline_s
            if not again:
                raise
            time.sleep(RETRY_PAUSE_S)


class _Exchange:
    """One request on one connection."""

    def __init__(self, session: Session, verb: str, transaction: str, data: dict[str, object]) -> None:
        topics = Topics(session.prefix)
        self._session = session
        self._verb = verb
        self._transaction = transaction
        self._request = topics.broker_request(verb)
        self._response = topics.broker_response(verb)
        self._presence = topics.broker_state()
        self._payload = encode(Request(transaction=transaction, data=data))
        self._broker: str = "unknown: it has not said a word there"

    def answer(self, deadline_s: float, *, patient: bool) -> dict[str, Any]:
        session = self._session
        session.subscribe(self._response, self._presence)
        session.publish(self._request, self._payload)
        now_s = time.monotonic()
        repeat_s, presence_s = now_s + REPEAT_S, now_s + PRESENCE_S
        while (now_s := time.monotonic()) < deadline_s:
            if not patient and now_s >= presence_s and self._broker != Presence.ONLINE:
                raise self._nobody()
            if now_s >= repeat_s:
                session.publish(self._request, self._payload)
                repeat_s = now_s + REPEAT_S
            until_s = min(deadline_s, repeat_s, presence_s if now_s < presence_s else deadline_s)
            message = session.receive(max(0.0, until_s - now_s))
            if message is None:
                continue
            if message.topic == self._presence:
                self._take_presence(message.payload)
            elif message.topic == self._response and not message.retain:
                data = self._take_response(message.payload)
                if data is not None:
                    return data
        raise self._nobody()

    def _take_presence(self, payload: bytes) -> None:
        try:
            self._broker = decode(BrokerState, payload).state
        except PayloadError as error:
            self._broker = f"unreadable ({shown(error, 80)})"
            return
        if self._broker == Presence.ONLINE:
            # It may have come up after our request was sent; the transaction keeps this from being done double.
            self._session.publish(self._request, self._payload)

    def _take_response(self, payload: bytes) -> dict[str, Any] | None:
        try:
            response = decode(Response, payload)
        except PayloadError:
            # Somebody else's broken answer must not end our wait; ours would at least carry our transaction.
            if self._transaction.encode() in payload:
                raise CliError(
                    Exit.FAILED, f"the broker's answer to '{self._verb}' cannot be read: {shown(payload[:120])}",
                    "look at the broker's log",
                ) from None  # fmt: skip
            return None
        if response.transaction != self._transaction:
            return None
        if response.ok:
            return response.data
        kind = response.error.kind.value if response.error else "internal"
        text = response.error.message if response.error else "no reason given"
        key = f" ({shown(response.error.key)})" if response.error and response.error.key else ""
        raise CliError(exit_of(kind), f"broker: {shown(text)}{key}", advice_of(kind))

    def _nobody(self) -> CliError:
        target = self._session.target
        return CliError(
            Exit.NO_ANSWER,
            f"the work broker did not answer '{self._verb}' at {target.host}:{target.port} (it is {self._broker})",
            "start it with 'boardhand broker' or 'boardhand up'",
        )


def unreadable(what: str, data: object) -> CliError:
    """An answer that lacks what the contract promises."""
    text = shown(json.dumps(data, default=str), 120)
    return CliError(Exit.FAILED, f"the broker's {what} cannot be read: {text}", "is it of the same version?")
