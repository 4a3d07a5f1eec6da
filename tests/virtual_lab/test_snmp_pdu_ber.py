"""Our own BER responder answers as pysnmp's does, octet by octet, and survives what is no SNMP."""

import asyncio
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtual_lab.snmp_pdu import PduSettings, VirtualPdu
from virtual_lab.snmp_pdu_ber import (
    GET,
    GET_BULK,
    GET_NEXT,
    NULL,
    OCTETS,
    SEQUENCE,
    SET,
    LightResponder,
    _decoded,
    _take,
    _tlv,
    encoded,
    encoded_oid,
)
from virtual_lab.snmp_pdu_model import Counter32, Counter64, Gauge, IpAddress, TimeTicks
from virtual_lab.snmp_pdu_tables import PduTables
from virtual_lab.snmp_recording import RecordedTables

PDU = PduSettings(model="apc-rpdu2", outlets=3)
ORDER = PduTables(VirtualPdu(PDU), ("apc-rpdu2",))._order
CONTROLS = [oid for oid in ORDER if oid[-6:-1] == (9, 2, 4, 1, 5)]
EMPTY = _tlv(NULL, b"")

oids = st.one_of(
    st.sampled_from(ORDER),
    st.sampled_from(ORDER).map(lambda oid: oid[:-1]),
    st.lists(st.integers(0, 2**32 - 1), max_size=6).map(
        lambda tail: (1, 3, 6, 1, *tail)
    ),  # what pysnmp is told to show
)
written = st.one_of(
    st.sampled_from([1, 2, 4, 9, -1]).map(encoded),
    st.binary(max_size=3).map(encoded),
    st.sampled_from([encoded(Gauge(1)), encoded((1, 3, 6)), EMPTY]),
)


def message(version, community, kind, request_id, first, second, bindings):
    listed = b"".join(_tlv(SEQUENCE, encoded_oid(oid) + value) for oid, value in bindings)
    body = encoded(request_id) + encoded(first) + encoded(second) + _tlv(SEQUENCE, listed)
    return _tlv(SEQUENCE, encoded(version) + _tlv(OCTETS, community) + _tlv(kind, body))


@st.composite
def requests(draw):
    version = draw(st.sampled_from([0, 1]))
    kind = draw(st.sampled_from([GET, GET_NEXT, SET, GET_BULK] if version else [GET, GET_NEXT, SET]))
    community = draw(st.sampled_from([b"public", b"private"]))
    first = second = 0
    if kind == SET:
        # One binding: pysnmp counts the failed one of several wrongly.
        bindings = [(draw(st.one_of(st.sampled_from(CONTROLS), oids)), draw(written))]
    else:
        bindings = [(oid, EMPTY) for oid in draw(st.lists(oids, min_size=1, max_size=4))]
    if kind == GET_BULK:
        first, second = draw(st.integers(0, 3)), draw(st.integers(0, 70))
        first = min(first, len(bindings) - 1)
        second = max(second, 1)
    return message(version, community, kind, draw(st.integers(0, 2**31 - 1)), first, second, bindings)


@pytest.fixture(scope="module")
def both():
    """A function that asks a pysnmp device and a light one the same; returns both answers."""
    with asyncio.Runner() as runner:
        reference, light = VirtualPdu(PDU), VirtualPdu(PduSettings(model="apc-rpdu2", outlets=3, light=True))

        async def begin():
            await reference.__aenter__()
            await light.__aenter__()

        async def end():
            await reference.__aexit__()
            await light.__aexit__()

        async def ask(data):
            loop, answers = asyncio.get_running_loop(), []
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                for pdu in (reference, light):
                    await loop.sock_sendto(sock, data, ("127.0.0.1", pdu.port))
                    async with asyncio.timeout(60):
                        answers.append(await loop.sock_recv(sock, 65535))
            return answers

        runner.run(begin())
        yield lambda data: runner.run(ask(data))
        runner.run(end())


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=requests())
def test_both_answer_the_same_octets(both, data):
    reference, light = both(data)
    assert light == reference


def light_of(values):
    return LightResponder(RecordedTables(values), "public", "private")


@given(st.binary(max_size=80))
def test_noise_is_no_request(noise):
    assert light_of({}).answer(noise) is None


@given(data=requests(), cut=st.integers(0, 400), at=st.integers(0, 400), octet=st.integers(0, 255))
def test_a_damaged_request_raises_nothing(data, cut, at, octet):
    responder = light_of({(1, 3, 6, 1): 1})
    damaged = bytearray(data)
    damaged[at % len(damaged)] = octet
    for one in (data[: cut % len(data)], bytes(damaged)):
        answer = responder.answer(one)
        assert answer is None or answer[0] == SEQUENCE


values = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**32 - 1).map(Gauge),
    st.integers(0, 2**32 - 1).map(Counter32),
    st.integers(0, 2**32 - 1).map(TimeTicks),
    st.integers(0, 2**64 - 1).map(Counter64),
    st.binary(max_size=300),
    st.binary(min_size=4, max_size=4).map(IpAddress),
    oids,
)


@given(values)
def test_values_survive_encoding(value):
    data = encoded(value)
    tag, start, end = _take(data, 0)
    assert end == len(data)
    back = _decoded(tag, data[start:end])
    assert back == value
    assert type(back) is type(value)


def answered(values, version, kind, oid):
    reply = light_of(values).answer(message(version, b"public", kind, 7, 0, 0, [(oid, EMPTY)]))
    return reply, message(version, b"public", 0xA2, 7, 0, 0, [(oid, encoded(values[oid]))] if oid in values else [])


def test_version_1_passes_counter64_by():
    values = {(1, 3, 1): Counter64(1), (1, 3, 2): Counter64(2), (1, 3, 3): 5}
    reply = light_of(values).answer(message(0, b"public", GET_NEXT, 7, 0, 0, [((1, 3), EMPTY)]))
    assert reply == message(0, b"public", 0xA2, 7, 0, 0, [((1, 3, 3), encoded(5))])
    reply = light_of(values).answer(message(0, b"public", GET, 7, 0, 0, [((1, 3, 1), EMPTY)]))
    assert reply == message(0, b"public", 0xA2, 7, 2, 1, [((1, 3, 1), EMPTY)])
    reply, expected = answered(values, 1, GET, (1, 3, 1))
    assert reply == expected


def test_an_answer_that_fits_no_datagram_is_too_big():
    values = {(1, 3, number): bytes(40_000) for number in (1, 2)}
    asked = [(oid, EMPTY) for oid in values]
    reply = light_of(values).answer(message(1, b"public", GET, 7, 0, 0, asked))
    assert reply == message(1, b"public", 0xA2, 7, 1, 0, [])
