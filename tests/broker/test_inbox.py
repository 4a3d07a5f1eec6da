import json
from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
from hypothesis import given

from broker import happenings as h
from broker.answers import LogPiece
from broker.inbox import Asked, Complaint, Refused, read_message, subscriptions
from broker.outbox import message_for
from broker.requests import MAX_ANSWER_BYTES, AskLogs, RequestError, read_request, response, what_fits
from wire.payloads import Lease, PowerCommand, WorkMessage, decode, encode
from wire.phases import PowerAction, Purpose
from wire.topics import Topics

NOW = datetime(2026, 1, 1, tzinfo=UTC)
T = Topics()


def read(topic, payload, retain=False):
    return read_message(T, topic, payload, retain=retain, now=NOW)


def request(verb, data, **more):
    return read(T.broker_request(verb), json.dumps({"transaction": "t1", "data": data, **more}).encode())


def test_requests():
    assert request("cancel", {"job": "job-1"}) == Asked("cancel", h.Cancel("t1", "job-1"))
    assert request("sleep", {"board": "b1"}) == Asked("sleep", h.PowerAsked("t1", "b1", PowerAction.OFF))
    assert request("wake", {"board": "b1"}) == Asked("wake", h.PowerAsked("t1", "b1", PowerAction.ON))
    assert request("logs", {"job": "job-1"}) == Asked("logs", AskLogs("t1", "job-1", 0, 200))
    assert isinstance(request("submit", {"yaml": "name: a\nsteps: [b]"}).request, h.Submit)
    assert read(T.broker_request("jobs"), b'{"transaction":"t"}', retain=True) is None


@pytest.mark.parametrize(
    ("verb", "payload", "transaction", "key"),
    [
        ("jobs", b"", None, None),
        ("jobs", b'{"transaction":"a b"}', None, "transaction"),
        ("jobs", b'{"transaction":"t","expires":"soon"}', "t", "expires"),
        ("jobs", b'{"transaction":"t","data":{"limit":0}}', "t", "data.limit"),
        ("jobs", b'{"transaction":"t","data":{"limit":"5"}}', "t", "data.limit"),
        ("logs", b'{"transaction":"t","data":{"job":"../x"}}', "t", "data.job"),
        ("submit", b'{"transaction":"t","data":{}}', "t", "data.yaml"),
    ],
)
def test_refusals_name_the_key(verb, payload, transaction, key):
    found = read(T.broker_request(verb), payload)
    assert isinstance(found, Refused)
    assert (found.error.transaction, found.error.info.key) == (transaction, key)


def test_a_job_that_makes_too_long_an_offer():
    steps = "".join('- "' + r"\e" * 30000 + '"\n' for _ in range(2))
    with pytest.raises(RequestError) as caught:
        read_request(
            "submit", json.dumps({"transaction": "t", "data": {"yaml": f"name: a\nsteps:\n{steps}"}}).encode(), NOW
        )
    assert caught.value.info.key == "data.yaml:steps"


payloads = (
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(["kind", "job", "token", "state", "transaction", "data", "yaml", "seq"]), inner, max_size=6
        ),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode())
    | st.sampled_from(["ask", "accept", "log", "outcome"]).map(
        lambda kind: json.dumps({"kind": kind, "job": "job-1", "token": 1, "outcome": 5}).encode()
    )
)
TAILS = ["state", "info", "self", "lease", "work/result", "power/result", "alert/x", "work"]
topics = st.sampled_from(
    [
        *(f"boardhand/board/b1/{tail}" for tail in TAILS),
        *(f"boardhand/broker/request/{verb}" for verb in ("submit", "jobs", "logs", "cancel", "wake", "zz")),
        "boardhand/agent/a/state",
        "boardhand/agent/a/info",
        "other/x",
        "",
    ]
) | st.text(max_size=30)


@given(topics, payloads, st.booleans())
def test_nothing_received_raises(topic, payload, retain):
    found = read(topic, payload, retain)
    if isinstance(found, Complaint) and found.topic is not None:
        assert not decode(WorkMessage, found.payload).ok
    if retain:
        assert not isinstance(found, Asked | Refused | h.Reported | h.PowerReported)


def test_lease_is_taken_only_retained():
    lease = encode(Lease(holder="x", token=4, expires=NOW))
    assert read(T.lease("b1"), lease) is None
    assert read(T.lease("b1"), lease, retain=True) == h.LeaseSeen("b1", 4, empty=False)
    assert read(T.lease("b1"), b"rubbish", retain=True) == h.LeaseSeen("b1", None, empty=False)


def test_subscriptions_cover_what_is_read():
    assert "boardhand/board/+/work/result" in subscriptions(T)
    assert "boardhand/board/+/work" not in subscriptions(T)


def test_power_command_on_the_wire():
    action = h.SendPower("b1", PowerAction.ON, "wake-b1-3", Purpose.WAKE, 3, NOW)
    message = message_for(T, action)
    assert (message.topic, message.retain) == ("boardhand/board/b1/power/set", False)
    command = decode(PowerCommand, message.payload)
    assert (command.id, command.token, command.purpose, command.expires) == ("wake-b1-3", 3, Purpose.WAKE, NOW)
    assert message_for(T, h.Note("x")) is None


def test_an_answer_is_never_too_long():
    pieces = [LogPiece(seq=n, attempt=1, text="\x1b" * 16 * 1024) for n in range(5)]
    shown = what_fits(pieces)
    assert len(shown) == 1
    assert len(response("t", {"chunks": shown})) < MAX_ANSWER_BYTES
