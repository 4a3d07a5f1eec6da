"""The TFTP codec and the answers to options."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.tftp_packet import (
    READ,
    PacketError,
    Request,
    encode_error,
    encode_oack,
    encode_request,
    head,
    negotiate,
    netascii,
    parse_request,
)

texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=30)
names = texts.map(str.lower).filter(lambda text: text.lower() == text)
requests = st.builds(
    Request,
    opcode=st.sampled_from([1, 2]),
    path=texts,
    mode=names,
    options=st.dictionaries(names, texts, max_size=5).map(lambda d: tuple(d.items())),
)


@settings(deadline=None)
@given(requests)
def test_round_trip(request):
    assert parse_request(encode_request(request)) == request


@settings(deadline=None)
@given(st.binary(max_size=1100))
def test_hostile_octets(data):
    for raw in (data, b"\0\1" + data):
        with contextlib.suppress(PacketError):
            parse_request(raw)
    head(data)


@pytest.mark.parametrize(
    ("data", "request_or_none"),
    [
        (b"\0\1name\0OCTET\0", Request(READ, "name", "octet")),
        (b"\0\1name\0octet", Request(READ, "name", "octet")),  # the last NUL is missing
        (b"\0\1name\0octet\0TSize\x000\0", Request(READ, "name", "octet", (("tsize", "0"),))),
        (b"\0\1name\0octet\0blksize\0", Request(READ, "name", "octet")),  # an option without a value
        (b"\0\1n\0octet\0blksize\x008\0BLKSIZE\x009\0", Request(READ, "n", "octet", (("blksize", "8"),))),
        (b"\0\1name\0", None),
        (b"\0\1\0octet\0", None),
        (b"\0\3name\0octet\0", None),
        (b"\0\5\0\0no\0", None),
        (b"", None),
        (b"\0\1" + b"n" * 1100 + b"\0octet\0", None),
    ],
)
def test_requests(data, request_or_none):
    if request_or_none is None:
        with pytest.raises(PacketError):
            parse_request(data)
    else:
        assert parse_request(data) == request_or_none


@pytest.mark.parametrize(
    ("asked", "accepted"),
    [
        ((("blksize", "1468"),), (("blksize", "1468"),)),
        ((("blksize", "8192"),), (("blksize", "1468"),)),  # clamped to the MTU
        ((("blksize", "65465"),), (("blksize", "1468"),)),
        ((("blksize", "8"),), (("blksize", "8"),)),
        ((("blksize", "7"),), ()),
        ((("blksize", "0"),), ()),
        ((("blksize", "-1"),), ()),
        ((("blksize", "1468x"),), ()),
        ((("blksize", "٣٤"),), ()),
        ((("windowsize", "64"),), (("windowsize", "16"),)),
        ((("windowsize", "1"),), (("windowsize", "1"),)),
        ((("windowsize", "0"),), ()),
        ((("windowsize", "65536"),), ()),
        ((("timeout", "5"),), (("timeout", "5"),)),
        ((("timeout", "0"),), ()),
        ((("timeout", "256"),), ()),
        ((("tsize", "0"),), (("tsize", "1000"),)),
        ((("multicast", "1"),), ()),
        (
            (("tsize", "0"), ("x", "1"), ("timeout", "5"), ("blksize", "512")),
            (("tsize", "1000"), ("timeout", "5"), ("blksize", "512")),
        ),
    ],
)
def test_options(asked, accepted):
    request = Request(READ, "f", "octet", asked)
    assert negotiate(request, size=1000, mtu_bytes=1500, max_window=16).accepted == accepted


def test_without_options_the_old_rules_hold():
    assert negotiate(Request(READ, "f", "octet"), size=1, mtu_bytes=1500, max_window=16)[:3] == (512, 1, None)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_netascii_can_be_undone(data):
    sent = netascii(data)
    back = bytearray()
    position = 0
    while position < len(sent):
        pair = sent[position : position + 2]
        if pair == b"\r\n":
            back += b"\n"
            position += 2
        elif pair == b"\r\0":
            back += b"\r"
            position += 2
        else:
            assert pair[:1] not in {b"\r", b"\n"}
            back += pair[:1]
            position += 1
    assert bytes(back) == data


def test_packets_are_as_in_the_rfcs():
    assert encode_oack((("blksize", "1468"), ("tsize", "9"))) == b"\0\6blksize\x001468\0tsize\x009\0"
    assert encode_error(1, "no\0é") == b"\0\5\0\1no??\0"
