"""Every payload model: what is written can be read, and what is hostile raises PayloadError and nothing else."""

import json
import types
from datetime import timedelta, timezone
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, AwareDatetime, BaseModel, ValidationError

from wire import payloads
from wire.names import normal_mac
from wire.payloads import (
    MAX_PAYLOAD_BYTES,
    BoardInfo,
    BoardState,
    ErrorInfo,
    Event,
    PayloadError,
    PowerCommand,
    Registration,
    WorkMessage,
    WorkOffer,
    WorkReport,
    decode,
    encode,
    parse_power_command,
)
from wire.phases import ErrorKind, PowerAction

MODELS = sorted(
    (
        model
        for model in vars(payloads).values()
        if isinstance(model, type) and issubclass(model, payloads.Payload) and model is not payloads.Payload
    ),
    key=lambda model: model.__name__,
)
UNIONS = (WorkMessage, WorkReport)
UNION_OF = {member: union for union in UNIONS for member in get_args(get_args(union)[0])}

# --- strategies made from the models' own annotations -----------------------------------------------------------

# RFC 3339 has offsets of whole minutes; years are kept clear of the ends, where an offset would leave the calendar.
times = st.datetimes(
    timezones=st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
).filter(lambda time: 2 <= time.year <= 9998)
macs = st.binary(min_size=6, max_size=6).map(lambda octets: normal_mac(bytes([octets[0] & 0xFE, *octets[1:]]).hex(":")))
texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def bounds(metadata) -> dict[str, Any]:
    """The `ge`, `le`, `gt`, `min_length`, `max_length` and `pattern` that stand in a field's metadata."""
    found = {}
    for entry in metadata:
        if isinstance(entry, annotated_types.GroupedMetadata):
            found |= bounds(entry)
        elif hasattr(entry, "metadata"):
            found |= bounds(entry.metadata)
        else:
            names = ("ge", "le", "gt", "min_length", "max_length", "pattern")
            found |= {name: getattr(entry, name) for name in names if getattr(entry, name, None) is not None}
    return found


def text_values(limits) -> st.SearchStrategy:
    if "pattern" in limits:
        matching = st.from_regex(limits["pattern"], fullmatch=True)
        return matching.filter(lambda text: len(text) <= limits.get("max_length", len(text)))
    return st.text(
        st.characters(exclude_categories=["Cs"]),
        min_size=limits.get("min_length", 0),
        max_size=min(limits.get("max_length", 30), 30),
    )


def float_values(limits) -> st.SearchStrategy:
    low = limits.get("ge", limits.get("gt"))
    return st.floats(low, limits.get("le"), exclude_min="gt" in limits, allow_nan=False, allow_infinity=False)


SIMPLE = {
    str: text_values,
    int: lambda limits: st.integers(limits.get("ge", -(2**70)), limits.get("le", 2**70)),
    float: float_values,
    bool: lambda _: st.booleans(),
    type(None): lambda _: st.none(),
    AwareDatetime: lambda _: times,
    object: lambda _: json_values,
}
COMPOUND = {
    Union: lambda branches, metadata: st.one_of([values_of(branch, metadata) for branch in branches]),
    types.UnionType: lambda branches, metadata: st.one_of([values_of(branch, metadata) for branch in branches]),
    Literal: lambda words, _: st.sampled_from(words),
    list: lambda of, metadata: st.lists(values_of(of[0]), min_size=bounds(metadata).get("min_length", 0), max_size=3),
    dict: lambda of, _: st.dictionaries(values_of(of[0]), values_of(of[1]), max_size=3),
}


def values_of(annotation, metadata=()) -> st.SearchStrategy:
    """Values that a field with this annotation must take."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values_of(arguments[0], (*arguments[1:], *metadata))
    if any(isinstance(entry, AfterValidator) and entry.func is normal_mac for entry in metadata):
        return macs
    if origin in COMPOUND:
        return COMPOUND[origin](arguments, metadata)
    if issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    if issubclass(annotation, BaseModel):
        return payloads_of(annotation)
    return SIMPLE[annotation](bounds(metadata))


def payloads_of(model: type[BaseModel]) -> st.SearchStrategy:
    fields = {name: values_of(field.annotation, tuple(field.metadata)) for name, field in model.model_fields.items()}
    needed = {name: fields[name] for name, field in model.model_fields.items() if field.is_required()}
    optional = {name: fields[name] for name in fields.keys() - needed.keys()}
    return st.fixed_dictionaries(needed, optional=optional).map(lambda given: model(**given))


slow_ok = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)


def as_json(payload) -> dict[str, Any]:
    return json.loads(encode(payload))


# --- what is written can be read --------------------------------------------------------------------------------


@every_model
@given(data=st.data())
@slow_ok
def test_round_trip(model, data):
    payload = data.draw(payloads_of(model))
    written = encode(payload)
    assert decode(model, written) == payload
    assert None not in json.loads(written).values()


@pytest.mark.parametrize("member", UNION_OF, ids=lambda model: model.__name__)
@given(data=st.data())
@slow_ok
def test_a_work_message_is_recognised_by_its_kind(member, data):
    payload = data.draw(payloads_of(member))
    again = decode(UNION_OF[member], encode(payload))
    assert (type(again), again) == (member, payload)


@every_model
@given(data=st.data(), unknown=st.dictionaries(texts, json_values, min_size=1, max_size=3))
@slow_ok
def test_unknown_keys_are_tolerated(model, data, unknown):
    payload = data.draw(payloads_of(model))
    assume(not unknown.keys() & model.model_fields.keys())
    assert decode(model, json.dumps(unknown | as_json(payload)).encode()) == payload


# --- what is wrong is named -------------------------------------------------------------------------------------

WRONG = ({"x": 1}, ["x"], "\x00", -1.5, True, None)


JSON_TYPE = {dict: "object", list: "array", str: "string", float: "number", bool: "boolean", type(None): "null"}


def json_types(model: type[BaseModel], name: str) -> set[str]:
    """The JSON types that the schema allows for a key; empty when it allows any."""
    whole = model.model_json_schema()
    found = set()
    waiting = [whole["properties"][name]]
    while waiting:
        schema = waiting.pop()
        waiting += schema.get("anyOf", [])
        if "$ref" in schema:
            waiting.append(whole["$defs"][schema["$ref"].rpartition("/")[2]])
        if "type" in schema:
            found.add(schema["type"])
    return found


@every_model
@given(data=st.data())
@settings(slow_ok, max_examples=5)
def test_a_wrong_type_is_an_error_that_names_the_key(model, data):
    good = as_json(data.draw(payloads_of(model)))
    checked = 0
    for name in model.model_fields:
        allowed = json_types(model, name)
        for wrong in WRONG:
            if JSON_TYPE[type(wrong)] in allowed:
                continue
            with pytest.raises(PayloadError) as caught:
                decode(model, json.dumps(good | {name: wrong}).encode())
            assert caught.value.key == name
            assert str(caught.value).startswith(f"{name}: ")
            checked += 1
    assert checked


@every_model
def test_a_missing_key_is_named(model):
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    if needed:
        with pytest.raises(PayloadError) as caught:
            decode(model, b"{}")
        assert caught.value.key == needed[0]
    else:
        assert decode(model, b"{}") == model()


@pytest.mark.parametrize(
    ("model", "payload", "key"),
    [
        (WorkMessage, {"kind": "ack", "job": "j1", "token": "7"}, "token"),
        (WorkMessage, {"kind": "offer", "job": "J 1"}, "job"),
        (WorkReport, {"kind": "outcome", "job": "j1", "token": 1, "outcome": "won"}, "outcome"),
        (WorkReport, {"kind": "dance"}, "kind"),
        (WorkReport, {"job": "j1"}, "kind"),
        (BoardInfo, {"labels": {"soc": ["bcm2711"]}}, "labels.soc"),
        (BoardInfo, {"macs": ["52:54:00:12:34:56", "01:00:5e:00:00:01"]}, "macs.1"),
        (
            WorkOffer,
            {
                "job": "j1",
                "token": 1,
                "expires": "2026-01-01T00:00:00Z",
                "name": "n",
                "steps": [{"name": "a", "run": "b", "timeout_s": 0}],
            },
            "steps.0.timeout_s",
        ),
    ],
)
def test_the_key_is_the_one_that_the_sender_wrote(model, payload, key):
    """Not pydantic's path, which has the tag of a union and the branch that was tried in it."""
    with pytest.raises(PayloadError) as caught:
        decode(model, json.dumps(payload).encode())
    assert caught.value.key == key


# --- what is hostile raises PayloadError and nothing else -------------------------------------------------------


def refusal(model, payload: bytes) -> PayloadError | None:
    """The error with which `payload` is refused, after a look at whether it can be told over MQTT; None if taken."""
    try:
        decode(model, payload)
    except PayloadError as error:
        told = ErrorInfo(kind=ErrorKind.BAD_REQUEST, message=str(error), key=error.key or None)
        assert decode(ErrorInfo, encode(told)) == told
        return error
    return None


@pytest.mark.parametrize("model", [*MODELS, *UNIONS], ids=str)
@given(payload=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
@example(payload=b"")
@example(payload=b"null")
@example(payload=b"[]")
@example(payload=b"{}")
@example(payload=b"\xef\xbb\xbf{}")
@example(payload=b"\xff\xfe{\x00}\x00")
@example(payload=b'{"\\ud800": 1}')
@example(payload=b'{"kind": {"a": []}}')
@slow_ok
def test_any_bytes_are_taken_or_refused(model, payload):
    refusal(model, payload)


@pytest.mark.parametrize("model", [*MODELS, *UNIONS], ids=str)
def test_huge_and_deep_payloads_are_refused(model):
    assert refusal(model, b" " * (MAX_PAYLOAD_BYTES + 1)).key == ""
    assert refusal(model, b'{"a":' * 40_000) is not None
    assert refusal(model, b"[" * MAX_PAYLOAD_BYTES) is not None
    assert refusal(model, b'{"details":' + b"[" * 120_000 + b"]" * 120_000 + b"}") is not None


EVENT = b'{"type":"power","at":"2026-01-01T00:00:00Z","board":"a","agent":"b","session":1,"seq":1,"details":%s}'


@pytest.mark.parametrize(
    ("model", "payload"),
    [
        (Registration, b'{"mac":"%s","boot_id":"b"}' % (b"a" * 200_000)),
        (BoardInfo, b'{"labels":{"%s":1}}' % (b"k" * 200_000)),
        (BoardInfo, b'{"labels":{"%s":[]}}' % (b"k" * 250)),
        (WorkMessage, b'{"kind":"%s"}' % (b"k" * 200_000)),
        (BoardInfo, b'{"macs":[%s1]}' % (b"1," * 120_000)),
        (Event, EVENT % (b'{"n":%s}' % (b"9" * 100_000))),
        (BoardState, b'{"session":%s}' % (b"9" * 100_000)),
        (PowerCommand, b'{"power":"on","expires":"%s"}' % (b"2" * 100_000)),
        (PowerCommand, b'{"power":"on","expires":"2026-01-01T00:00:00"}'),
        (PowerCommand, b'{"power":"on","expires":1767225600}'),
        (PowerCommand, b'{"power":"on","id":"a\\n"}'),
        (PowerCommand, b'{"power":"on","token":0}'),
        (Registration, b'{"mac":"52:54:00:12:34:56","boot_id":"b\\nboard"}'),
    ],
)
def test_hostile_values_are_refused_with_an_error_that_can_be_told(model, payload):
    assert refusal(model, payload) is not None


def test_numbers_that_json_does_not_know_are_not_passed_on():
    """Python's and pydantic's JSON readers take NaN; nothing of ours may write it."""
    event = decode(Event, EVENT % b'{"load":NaN,"heat":1e999}')
    assert json.loads(encode(event), parse_constant=pytest.fail)["details"] == {"load": None, "heat": None}


def test_payloads_cannot_be_changed():
    error = ErrorInfo(kind=ErrorKind.BUSY, message="x")
    with pytest.raises(ValidationError, match="frozen"):
        error.message = "y"


def test_what_a_proof_signs_has_one_reading():
    """A newline in a part would let one signature stand for two boards."""
    assert (
        payloads.registration_message("b1", "x", "52:54:00:AA:BB:CC") == b"boardhand-register\nb1\nx\n52:54:00:aa:bb:cc"
    )
    for key in ("board", "boot_id", "mac"):
        parts = {"mac": "52:54:00:12:34:56", "boot_id": "b", "board": "b1"}
        error = refusal(Registration, json.dumps(parts | {key: parts[key] + "\nb2"}).encode())
        assert error is not None, key
        assert error.key == key


# --- power commands ---------------------------------------------------------------------------------------------


@given(
    action=st.sampled_from(PowerAction),
    upper=st.lists(st.booleans(), min_size=5, max_size=5),
    before=st.text(" \t\r\n", max_size=3),
    after=st.text(" \t\r\n", max_size=3),
)
def test_bare_words_in_any_case_with_blanks_around(action, upper, before, after):
    word = "".join(c.upper() if up else c for c, up in zip(action.value, upper, strict=False))
    assert parse_power_command(f"{before}{word}{after}".encode()) == PowerCommand(power=action)


@given(payloads_of(PowerCommand))
@slow_ok
def test_json_commands(command):
    assert parse_power_command(b" " + encode(command)) == command


@given(st.binary(max_size=40))
@example(b"")
@example(b"reboot&delay=abc")
@example(b"on on")
@example(b"\x00on")
@example(b'"on"')
@example(b"on" + b" " * 40)
@example(b"1")
def test_other_bytes_are_no_power_command(payload):
    assume(payload.strip().lower() not in {b"on", b"off", b"cycle"} or len(payload) > 16)
    with pytest.raises(PayloadError) as caught:
        parse_power_command(payload)
    assert len(str(caught.value)) < 600
