"""`cli.light_payloads` beside `wire.payloads`: whatever the contract's own models say, it says too."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wire.payloads
from cli import light_payloads
from wire.phases import LeaseKind, Phase, Power, Presence

TIME = "2026-11-20T10:00:00.25+01:00"
GOOD: dict[str, dict[str, object]] = {
    "AgentState": {"state": "online", "session": 1, "since": TIME},
    "BoardState": {
        "power": "on", "target": "off", "phase": "ready", "reason": "r", "since": "2026-11-20T10:00:00Z",
        "agent": "lab-1", "session": 0, "seq": 7,
    },
    "BoardSelf": {
        "state": "online", "boot_id": "1", "address": "10.0.0.1", "os": "o", "uptime_s": 2.5, "work": "job-1",
        "client": "c",
    },
    "Lease": {
        "holder": "anna", "token": 3, "expires": TIME, "kind": "person", "since": TIME, "ends": TIME, "comment": "c",
    },
}  # fmt: skip
ODD: list[object] = [
    None, True, False, 0, 1, -1, 2**60, 0.5, -0.5, "", "x", "x" * 257, "x" * 4097, "Bad Id", "a" * 64, [], {}, ["on"],
    "online", "offline", "lost", "unknown", "on", "2026-11-20", "2026-11-20T10:00:00", "25:00", "job-1", 10**30,
    *Phase, *Power, *Presence, *LeaseKind,
]  # fmt: skip
FIELDS = [(name, key) for name, said in GOOD.items() for key in said]


def both(name: str, payload: bytes) -> tuple[object, object]:
    def read(module: object, fields: tuple[str, ...]) -> object:
        try:
            found = module.decode(getattr(module, name), payload)  # type: ignore[attr-defined]
        except module.PayloadError:  # type: ignore[attr-defined]
            return None
        return {field: getattr(found, field) for field in fields}

    fields = getattr(light_payloads, name)._fields
    return read(light_payloads, fields), read(wire.payloads, fields)


@pytest.mark.parametrize(("name", "key"), FIELDS)
def test_each_key_is_judged_alike(name: str, key: str) -> None:
    for odd in ODD:
        light, whole = both(name, json.dumps(GOOD[name] | {key: odd}).encode())
        assert light == whole, odd
    light, whole = both(name, json.dumps({k: v for k, v in GOOD[name].items() if k != key}).encode())
    assert light == whole
    light, whole = both(name, json.dumps(GOOD[name]).encode())
    assert light == whole != None  # noqa: E711  # both, and something


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 9999, b" " * 300_000]
)
def test_what_is_no_payload_is_none_for_both(name: str, payload: bytes) -> None:
    assert both(name, payload) == (None, None)


@given(st.sampled_from(sorted(GOOD)), st.binary(max_size=60))
def test_nothing_else_comes_out(name: str, payload: bytes) -> None:
    light, whole = both(name, payload)
    assert light == whole
