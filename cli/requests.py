"""Requests to the farm's work broker, and to agents: one transaction, repeated until it is answered.

The same transaction twice is done once, by contract; so a request is sent again when the connection broke or the
broker was restarting, and can neither be lost nor done double.

On the path of commands that people and scripts wait for: payloads are read by hand, because importing pydantic would
cost them more than all the rest.
"""

import json
import time
from typing import Any

from cli.exits import CliError, Exit, advice_of, exit_of
from cli.plain_text import shown
from cli.session import Session, new_id
from cli.target import Target
from wire.topics import Topics

REPEAT_S = 3.0  # a broker restarts in about a second; much more often would only fill its queue
PRESENCE_S = 1.0  # retained state follows the SUBACK at once
RETRY_PAUSE_S = 0.5
ONLINE = "online"  # `wire.phases.Presence`, without its import
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
        self._payload = json.dumps({"transaction": transaction, "data": data}).encode()
        self._broker: str = "unknown: it has not said a word there"

    def answer(self, deadline_s: float, *, patient: bool) -> dict[str, Any]:
        session = self._session
        session.subscribe(self._response, self._presence)
        session.publish(self._request, self._payload)
        now_s = time.monotonic()
        repeat_s, presence_s = now_s + REPEAT_S, now_s + PRESENCE_S
        while (now_s := time.monotonic()) < deadline_s:
            if not patient and now_s >= presence_s and self._broker != ONLINE:
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
        said = json_object(payload)
        state = said.get("state") if said is not None else None
        if not isinstance(state, str):
            self._broker = f"unreadable ({shown(payload[:80])})"
            return
        self._broker = shown(state, 40)
        if state == ONLINE:
            # It may have come up after our request was sent; the transaction keeps this from being done double.
            self._session.publish(self._request, self._payload)

    def _take_response(self, payload: bytes) -> dict[str, Any] | None:
        said = json_object(payload)
        if said is None or not _is_response(said):
            # Somebody else's broken answer must not end our wait; ours would at least carry our transaction.
            if self._transaction.encode() in payload:
                raise CliError(
                    Exit.FAILED, f"the broker's answer to '{self._verb}' cannot be read: {shown(payload[:120])}",
                    "look at the broker's log",
                )  # fmt: skip
            return None
        if said.get("transaction") != self._transaction:
            return None
        if said["ok"]:
            data: dict[str, Any] = said.get("data") or {}
            return data
        error = said.get("error") or {}
        kind, text, key = (error.get(name) for name in ("kind", "message", "key"))
        kind = kind if isinstance(kind, str) else "internal"
        told = shown(text if isinstance(text, str) else "no reason given")
        where = f" ({shown(key)})" if isinstance(key, str) and key else ""
        raise CliError(exit_of(kind), f"broker: {told}{where}", advice_of(kind))

    def _nobody(self) -> CliError:
        target = self._session.target
        return CliError(
            Exit.NO_ANSWER,
            f"the work broker did not answer '{self._verb}' at {target.host}:{target.port} (it is {self._broker})",
            "start it with 'boardhand broker' or 'boardhand up'",
        )


def json_object(payload: bytes) -> dict[str, Any] | None:
    """A payload as a JSON object; None for anything else."""
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _is_response(said: dict[str, Any]) -> bool:
    """Whether it is what `wire.payloads.Response` describes, as far as is read here."""
    return isinstance(said.get("ok"), bool) and all(
        isinstance(said.get(name), dict | None) for name in ("data", "error")
    )


def unreadable(what: str, data: object) -> CliError:
    """An answer that lacks what the contract promises."""
    text = shown(json.dumps(data, default=str), 120)
    return CliError(Exit.FAILED, f"the broker's {what} cannot be read: {text}", "is it of the same version?")
