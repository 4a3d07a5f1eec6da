"""Router advertisements that promise nothing: whom they answer, and what a real IPv6 host makes of them."""

import struct
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.router_advert import (
    ALL_NODES,
    MAX_ANSWERS_PER_S,
    MIN_BETWEEN_MULTICASTS_S,
    Answers,
    advertisement,
    is_solicitation,
)

HOST, NOBODY, GLOBAL = IPv6Address("fe80::1"), IPv6Address("::"), IPv6Address("2001:db8::1")
PLAIN = bytes((133, 0, 0, 0, 0, 0, 0, 0))
WITH_MAC = PLAIN + bytes((1, 1, 0x52, 0x54, 0, 0x77, 0, 1))


def test_the_message_promises_nothing():
    message = advertisement(b"\x52\x54\x00\x77\x00\x01")
    kind, code, _, hop_limit, flags, lifetime_s, reachable, retransmit = struct.unpack_from("!BBHBBHII", message)
    assert (kind, code) == (134, 0)
    assert (hop_limit, flags, lifetime_s, reachable, retransmit) == (0, 0, 0, 0, 0)
    assert message[16:] == b"\x01\x01\x52\x54\x00\x77\x00\x01"


@pytest.mark.parametrize(
    ("data", "source", "hop_limit", "valid"),
    [
        (PLAIN, HOST, 255, True),
        (PLAIN, NOBODY, 255, True),
        (WITH_MAC, HOST, 255, True),
        (WITH_MAC, NOBODY, 255, False),  # RFC 4861 section 6.1.1
        (PLAIN, HOST, 254, False),  # came through a router
        (PLAIN[:7], HOST, 255, False),
        (PLAIN + b"\x01", HOST, 255, False),
        (PLAIN + b"\x05\x00", HOST, 255, False),  # an option of length 0
        (PLAIN + b"\x01\x02" + bytes(8), HOST, 255, False),
        (b"\x86" + PLAIN[1:], HOST, 255, False),
        (b"\x85\x01" + PLAIN[2:], HOST, 255, False),
    ],
)
def test_solicitations(data, source, hop_limit, valid):
    assert is_solicitation(data, source, hop_limit) is valid


@given(st.binary(max_size=64))
def test_any_octets_end(data):
    assert is_solicitation(PLAIN + data, HOST, 255) in {True, False}


def test_who_has_an_address_is_answered_alone():
    assert Answers().destination(PLAIN, HOST, 255, 0.0) == HOST


@pytest.mark.parametrize("source", [NOBODY, GLOBAL])
def test_the_others_by_multicast_and_not_too_often(source):
    answers = Answers()
    assert answers.destination(PLAIN, source, 255, 0.0) == ALL_NODES
    assert answers.destination(PLAIN, source, 255, MIN_BETWEEN_MULTICASTS_S - 0.1) is None
    assert answers.destination(PLAIN, source, 255, MIN_BETWEEN_MULTICASTS_S) == ALL_NODES


def test_a_flood_is_bounded():
    answers = Answers()
    found = [answers.destination(PLAIN, HOST, 255, 5.0) for _ in range(1000)]
    assert sum(one is not None for one in found) == MAX_ANSWERS_PER_S
    assert answers.destination(PLAIN, HOST, 255, 6.0) == HOST
