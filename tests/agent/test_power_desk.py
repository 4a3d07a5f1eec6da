import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.power_desk import LeaseBook, Refused, judge
from wire.payloads import Lease, PowerCommand, encode
from wire.phases import ErrorKind, PowerAction

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def decide(payload: bytes | dict, leases: LeaseBook | None = None, *, force_allowed: bool = False) -> object:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return judge("pi", raw, now=NOW, leases=leases or LeaseBook(), force_allowed=force_allowed)


def leased(token: int = 5, *, seconds: float = 60) -> LeaseBook:
    book = LeaseBook()
    book.heard("pi", encode(Lease(holder="job-1", token=token, expires=NOW + timedelta(seconds=seconds))))
    return book


@pytest.mark.parametrize("word", [b"on", b"ON", b" On\n"])
def test_a_bare_word_is_a_command(word: bytes) -> None:
    assert decide(word) == PowerCommand(power=PowerAction.ON)


@pytest.mark.parametrize(
    ("payload", "kind", "key", "answered"),
    [
        ({"power": "on", "id": "x1", "expires": "2026-11-21T11:59:59Z"}, ErrorKind.EXPIRED, "expires", "x1"),
        ({"power": "on", "id": 7}, ErrorKind.BAD_REQUEST, "id", None),
        ({"power": "explode", "id": "x2"}, ErrorKind.BAD_REQUEST, "power", "x2"),
        ({"power": "on", "id": "bad id!"}, ErrorKind.BAD_REQUEST, "id", None),
        ({"power": "on", "expires": "tomorrow", "id": "x3"}, ErrorKind.BAD_REQUEST, "expires", "x3"),
        ({"id": "x4"}, ErrorKind.BAD_REQUEST, "power", "x4"),
        (b"toggle", ErrorKind.BAD_REQUEST, "power", None),
        (b"\xff\xfe\x00", ErrorKind.BAD_REQUEST, "power", None),
        (b"[1]", ErrorKind.BAD_REQUEST, "power", None),
        (b'{"power":' + b"[" * 100_000, ErrorKind.BAD_REQUEST, None, None),
        (b"x" * 300_000, ErrorKind.BAD_REQUEST, None, None),
    ],
)
def test_what_is_wrong_is_answered_with_the_key(payload, kind, key, answered) -> None:
    verdict = decide(payload)
    assert isinstance(verdict, Refused)
    assert (verdict.error.kind, verdict.error.key, verdict.id) == (kind, key, answered)
    assert "pi" in verdict.error.message


def test_unknown_keys_are_tolerated() -> None:
    assert isinstance(decide({"power": "off", "colour": "red"}), PowerCommand)


def test_a_leased_board_obeys_its_token_alone() -> None:
    for payload in ({"power": "off"}, {"power": "off", "token": 4}, {"power": "off", "force": True}):
        verdict = decide(payload, leased())
        assert isinstance(verdict, Refused)
        assert verdict.error.kind is ErrorKind.NOT_ALLOWED
        assert "job-1" in verdict.error.message
    assert isinstance(decide({"power": "off", "token": 5}, leased()), PowerCommand)
    assert isinstance(decide({"power": "off", "force": True}, leased(), force_allowed=True), PowerCommand)


def test_a_lease_that_ran_out_binds_nobody_and_helps_nobody() -> None:
    assert isinstance(decide(b"off", leased(seconds=0)), PowerCommand)
    verdict = decide({"power": "off", "token": 5}, leased(seconds=-1))
    assert isinstance(verdict, Refused)


def test_a_released_lease_is_gone() -> None:
    book = leased()
    book.heard("pi", b"")
    assert isinstance(decide(b"off", book), PowerCommand)


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_nothing_received_raises(payload: bytes) -> None:
    assert isinstance(decide(payload), PowerCommand | Refused)
