"""A small SNMPv1 and v2c responder of our own, without I/O: a datagram in, the answer out.

pysnmp takes 0.4 ms of CPU for an answer and this about a tenth of that, so that a benchmark of clients is none of the
device. pysnmp stays the reference (tests compare the two octet by octet) and answers everything of v3.

Sources: RFC 1157 (v1), RFC 1901 and RFC 3416 (v2c), RFC 3584 section 4.3 (what v2c errors are in v1), X.690 (BER).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from virtual_lab.snmp_pdu_model import (
    Counter32,
    Counter64,
    Gauge,
    IpAddress,
    Oid,
    Opaque,
    RefusedSetError,
    TimeTicks,
    Value,
)

V1, V2C = 0, 1
GET, GET_NEXT, RESPONSE, SET, GET_BULK = 0xA0, 0xA1, 0xA2, 0xA3, 0xA5
SEQUENCE, INTEGER, OCTETS, NULL, OBJECT_ID = 0x30, 0x02, 0x04, 0x05, 0x06
NO_SUCH_INSTANCE, END_OF_MIB_VIEW = b"\x81\x00", b"\x82\x00"

STATUS = {
    "noError": 0,
    "tooBig": 1,
    "noSuchName": 2,
    "badValue": 3,
    "genErr": 5,
    "noAccess": 6,
    "wrongType": 7,
    "wrongValue": 10,
    "noCreation": 11,
    "notWritable": 17,
}
V1_STATUS = {
    "noAccess": "noSuchName",
    "noCreation": "noSuchName",
    "notWritable": "noSuchName",
    "wrongType": "badValue",
    "wrongValue": "badValue",
}
MAX_BULK_BINDINGS = 64
"""As pysnmp's BulkCommandResponder: an answer that fits into any datagram."""
MAX_OCTETS = 65_507
"""The most a UDP datagram over IPv4 carries."""

_TAGS: dict[type, int] = {
    int: INTEGER,
    IpAddress: 0x40,
    Counter32: 0x41,
    Gauge: 0x42,
    TimeTicks: 0x43,
    Opaque: 0x44,
    Counter64: 0x46,
}
_NUMBERS: dict[int, Callable[[int], Value]] = {
    INTEGER: int,
    0x41: Counter32,
    0x42: Gauge,
    0x43: TimeTicks,
    0x46: Counter64,
}
_STRINGS: dict[int, Callable[[bytes], Value]] = {OCTETS: bytes, 0x40: IpAddress, 0x44: Opaque}

Binding = tuple[Oid, bytes, int, bytes]
"""A binding of a request: name, the name as it was encoded, tag and content of its value."""


class Tables(Protocol):
    """What is answered from, as in `snmp_pdu_engine`."""

    def answer(self, oid: Oid) -> tuple[Oid, Value | None]: ...
    def next(self, oid: Oid) -> tuple[Oid, Value] | None: ...
    def set_all(self, bindings: Sequence[tuple[Oid, Value]]) -> list[tuple[Oid, Value]]: ...


class _MalformedError(ValueError):
    """Octets that are no SNMP message."""


def _take(data: bytes, at: int) -> tuple[int, int, int]:
    """The tag at `at`, and where its content starts and ends."""
    try:
        tag, length = data[at], data[at + 1]
    except IndexError:
        raise _MalformedError from None
    start = at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[at + 2 : start], "big")
    if start + length > len(data):
        raise _MalformedError
    return tag, start, start + length


def _expect(data: bytes, at: int, wanted: int) -> tuple[int, int]:
    tag, start, end = _take(data, at)
    if tag != wanted:
        raise _MalformedError
    return start, end


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


@lru_cache(maxsize=4096)
def _decoded_oid(content: bytes) -> Oid:
    parts: list[int] = []
    number = 0
    for octet in content:
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            parts.append(number)
            number = 0
    if not parts or content[-1] & 0x80:
        raise _MalformedError
    first = min(parts[0] // 40, 2)
    return (first, parts[0] - 40 * first, *parts[1:])


@lru_cache(maxsize=4096)
def encoded_oid(oid: Oid) -> bytes:
    """An OBJECT IDENTIFIER with its tag and length."""
    content = bytearray()
    for part in (oid[0] * 40 + oid[1], *oid[2:]):
        octets = [part & 0x7F]
        while part := part >> 7:
            octets.append(part & 0x7F | 0x80)
        content += bytes(reversed(octets))
    return _tlv(OBJECT_ID, bytes(content))


def encoded(value: Value) -> bytes:
    """A value with its tag and length."""
    if isinstance(value, int):
        octets = (value if value >= 0 else ~value).bit_length() // 8 + 1
        return _tlv(_TAGS[type(value)], value.to_bytes(octets, "big", signed=True))
    if isinstance(value, tuple):
        return encoded_oid(value)
    if isinstance(value, str):
        return _tlv(OCTETS, value.encode())
    return _tlv(_TAGS.get(type(value), OCTETS), value)


def _decoded(tag: int, content: bytes) -> Value:
    if tag in _NUMBERS:
        return _NUMBERS[tag](int.from_bytes(content, "big", signed=True))
    if tag in _STRINGS:
        return _STRINGS[tag](content)
    if tag == OBJECT_ID:
        return _decoded_oid(content)
    raise RefusedSetError("wrongType")


def _bindings(data: bytes, at: int) -> list[Binding]:
    at, end = _expect(data, at, SEQUENCE)
    found = []
    while at < end:
        inner, after = _expect(data, at, SEQUENCE)
        start, stop = _expect(data, inner, OBJECT_ID)
        tag, value, value_end = _take(data, stop)
        found.append((_decoded_oid(data[start:stop]), data[inner:stop], tag, data[value:value_end]))
        at = after
    return found


class _FailedError(Exception):
    """The request as a whole is answered with an error-status; `at` counts bindings from 0."""

    def __init__(self, status: str, at: int) -> None:
        super().__init__(status)
        self.status, self.at = status, at


class LightResponder:
    """Answers v1 and v2c; anybody with another community meets silence."""

    def __init__(self, tables: Tables, read_community: str, write_community: str) -> None:
        self._tables = tables
        self._may_write = {read_community.encode(): False}
        self._may_write[write_community.encode()] = True

    def answer(self, data: bytes) -> bytes | None:
        """The answer to a datagram, or None where there is none."""
        try:
            at, _ = _expect(data, 0, SEQUENCE)
            start, stop = _expect(data, at, INTEGER)
            version = int.from_bytes(data[start:stop], "big", signed=True)
            head = data[at:stop]
            start, stop_community = _expect(data, stop, OCTETS)
            may_write = self._may_write.get(data[start:stop_community])
            if version not in {V1, V2C} or may_write is None:
                return None
            head += data[stop:stop_community]
            kind, at, _ = _take(data, stop_community)
            start, stop = _expect(data, at, INTEGER)
            request = data[at:stop]
            first, at_second = _expect(data, stop, INTEGER)
            second, at_list = _expect(data, at_second, INTEGER)
            asked = _bindings(data, at_list)
            listed = data[at_list : _expect(data, at_list, SEQUENCE)[1]]
            limits = int.from_bytes(data[first:at_second], "big"), int.from_bytes(data[second:at_list], "big")
        except _MalformedError:
            return None
        if kind not in {GET, GET_NEXT, SET} and (kind, version) != (GET_BULK, V2C):
            return None
        status, index = "noError", 0
        try:
            listed = _tlv(SEQUENCE, self._carry_out(kind, version, asked, limits, may_write=may_write))
        except _FailedError as failure:
            status, index = failure.status, failure.at + 1
            if version == V1:
                status = V1_STATUS.get(status, status)
        if len(listed) + len(head) > MAX_OCTETS - 64:
            status, index, listed = "tooBig", 0, _tlv(SEQUENCE, b"")
        body = request + encoded(STATUS[status]) + encoded(index) + listed
        return _tlv(SEQUENCE, head + _tlv(RESPONSE, body))

    def _carry_out(
        self, kind: int, version: int, asked: list[Binding], limits: tuple[int, int], *, may_write: bool
    ) -> bytes:
        if kind == SET:
            return self._set(asked, may_write=may_write)
        if kind == GET_BULK:
            return self._bulk([binding[0] for binding in asked], *limits)
        one = self._get if kind == GET else self._next
        answered = [one(oid, name, version) for oid, name, *_ in asked]
        if None in answered:
            raise _FailedError("noSuchName", answered.index(None))
        return b"".join(binding for binding in answered if binding is not None)

    def _get(self, oid: Oid, name: bytes, version: int) -> bytes | None:
        found, value = self._tables.answer(oid)
        if value is None or (version == V1 and isinstance(value, Counter64)):
            return _tlv(SEQUENCE, name + NO_SUCH_INSTANCE) if version == V2C else None
        return _tlv(SEQUENCE, encoded_oid(found) + encoded(value))

    def _next(self, oid: Oid, name: bytes, version: int) -> bytes | None:
        following = self._tables.next(oid)
        while version == V1 and following is not None and isinstance(following[1], Counter64):
            following = self._tables.next(following[0])
        if following is None:
            return _tlv(SEQUENCE, name + END_OF_MIB_VIEW) if version == V2C else None
        return _tlv(SEQUENCE, encoded_oid(following[0]) + encoded(following[1]))

    def _bulk(self, asked: list[Oid], non_repeaters: int, repetitions: int) -> bytes:
        singles = asked[:non_repeaters]
        repeated = asked[len(singles) :]
        answered = [self._next(oid, encoded_oid(oid), V2C) for oid in singles]
        if repeated:
            repetitions = min(repetitions, MAX_BULK_BINDINGS // len(repeated))
        for _ in range(repetitions):
            for at, oid in enumerate(repeated):
                following = self._tables.next(oid)
                answered.append(self._next(oid, encoded_oid(oid), V2C))
                repeated[at] = oid if following is None else following[0]
        return b"".join(binding for binding in answered if binding is not None)

    def _set(self, asked: list[Binding], *, may_write: bool) -> bytes:
        if not may_write:
            raise _FailedError("noAccess", 0)
        try:
            written = []
            for at, (oid, _, tag, content) in enumerate(asked):
                try:
                    written.append((oid, _decoded(tag, content)))
                except RefusedSetError as refusal:
                    refusal.at = at
                    raise
            done = self._tables.set_all(written)
        except RefusedSetError as refusal:
            raise _FailedError(refusal.status, refusal.at) from refusal
        return b"".join(_tlv(SEQUENCE, encoded_oid(oid) + encoded(value)) for oid, value in done)


def version_of(data: bytes) -> int | None:
    """The version field of a message, or None where it has none."""
    try:
        at, _ = _expect(data, 0, SEQUENCE)
        start, stop = _expect(data, at, INTEGER)
    except _MalformedError:
        return None
    return int.from_bytes(data[start:stop], "big", signed=True)
