"""The retained payloads that `boardhand boards` shows, read without pydantic: its import would take the command longer
than all the rest. The same names and meaning as in `wire.payloads`, as far as they are shown; a test compares both.
"""

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from wire.ids import is_id
from wire.phases import LeaseKind, Phase, Power, Presence

MAX_PAYLOAD_BYTES = 256 * 1024  # the contract's own limit, `wire.codec`
MAX_SHORT_TEXT = 256
MAX_TEXT = 4096

__all__ = ["AgentState", "BoardSelf", "BoardState", "Lease", "PayloadError", "decode"]


class PayloadError(ValueError):
    """A payload that cannot be taken: which key, and what is wrong with it."""


class AgentState(NamedTuple):
    state: Presence
    session: int
    since: datetime


class BoardState(NamedTuple):
    power: Power
    phase: Phase
    since: datetime
    agent: str
    session: int
    seq: int
    target: Power | None = None
    reason: str | None = None


class BoardSelf(NamedTuple):
    state: Presence
    boot_id: str
    address: str | None = None
    os: str | None = None
    uptime_s: float | None = None
    work: str | None = None
    client: str | None = None


class Lease(NamedTuple):
    holder: str
    token: int
    expires: datetime
    kind: LeaseKind | None = None
    since: datetime | None = None
    ends: datetime | None = None
    comment: str | None = None


Reader = Callable[[object], object]
E = TypeVar("E", Presence, Power, Phase, LeaseKind)


def _text(longest: int) -> Reader:
    def read(value: object) -> str:
        if not isinstance(value, str) or len(value) > longest:
            raise ValueError(f"is no text of at most {longest} letters")
        return value

    return read


def _count(least: int, most: float = math.inf) -> Reader:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"is no whole number from {least}")
        return value

    return read


def _one_of(kind: type[E]) -> Reader:
    def read(value: object) -> E:
        if not isinstance(value, str):
            raise ValueError("is no text")  # noqa: TRY004  # one error for all that is wrong in a payload
        return kind(value)

    return read


def _own_presence(value: object) -> Presence:
    """Of a board, which cannot say that it is lost."""
    if not isinstance(value, str) or value == Presence.LOST:
        raise ValueError("is neither online nor offline")
    return Presence(value)


def _time(value: object) -> datetime:
    """RFC 3339."""
    if not isinstance(value, str):
        raise ValueError("is no time")  # noqa: TRY004
    read = datetime.fromisoformat(value)
    if read.tzinfo is None:
        raise ValueError("has no time zone")
    return read


def _id(value: object) -> str:
    if not isinstance(value, str) or not is_id(value):
        raise ValueError("is no id")
    return value


def _duration(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError("is no number of seconds")
    return float(value)


_power, _short = _one_of(Power), _text(MAX_SHORT_TEXT)
_READERS: dict[type, dict[str, Reader]] = {
    AgentState: {"state": _one_of(Presence), "session": _count(0), "since": _time},
    BoardState: {
        "power": _power,
        "phase": _one_of(Phase),
        "since": _time,
        "agent": _id,
        "session": _count(0),
        "seq": _count(0),
        "target": _power,
        "reason": _text(MAX_TEXT),
    },
    BoardSelf: {
        "state": _own_presence,
        "boot_id": _short,
        "address": _short,
        "os": _short,
        "uptime_s": _duration,
        "work": _id,
        "client": _short,
    },
    Lease: {
        "holder": _short,
        "token": _count(1, 2**53),
        "expires": _time,
        "kind": _one_of(LeaseKind),
        "since": _time,
        "ends": _time,
        "comment": _short,
    },
}
P = TypeVar("P", AgentState, BoardState, BoardSelf, Lease)


def decode(model: type[P], payload: bytes) -> P:
    """A payload as `model`.

    Raises:
        PayloadError: it is too long, no JSON object, or a key is missing or of a wrong type.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise PayloadError(f"{len(payload)} bytes are more than the {MAX_PAYLOAD_BYTES} that are taken")
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"cannot be read as JSON: {error}") from None
    if not isinstance(said, dict):
        raise PayloadError("is no JSON object")
    values: dict[str, Any] = {key: _read(said, key, reader, model) for key, reader in _READERS[model].items()}
    return model(**values)


def _read(said: dict[str, object], key: str, reader: Reader, model: type[P]) -> object:
    value = said.get(key)
    if value is None and key in model._field_defaults:
        return None
    if key not in said:
        raise PayloadError(f"{key}: is missing")
    try:
        return reader(value)
    except ValueError as error:
        raise PayloadError(f"{key}: {error}") from None
