"""The DHCP codec: round trip, hostile octets, and a frame as U-Boot sends it."""

import contextlib
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.dhcp_packet import (
    MAX_PACKET_BYTES,
    MIN_PACKET_BYTES,
    DhcpPacket,
    DhcpPacketError,
    MessageType,
    Option,
    encode,
    parse,
)

addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
field_texts = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"x"))
option_codes = st.integers(1, 254).filter(lambda code: code != Option.OVERLOAD)
packets = st.builds(
    DhcpPacket,
    op=st.integers(0, 255),
    xid=st.integers(0, 2**32 - 1),
    chaddr=st.binary(max_size=16),
    htype=st.integers(0, 255),
    hops=st.integers(0, 255),
    secs=st.integers(0, 65535),
    flags=st.integers(0, 65535),
    ciaddr=addresses,
    yiaddr=addresses,
    siaddr=addresses,
    giaddr=addresses,
    sname=field_texts,
    file=field_texts,
    options=st.dictionaries(option_codes, st.binary(max_size=300), max_size=3).map(lambda d: tuple(d.items())),
)


@settings(deadline=None)
@given(packets)
def test_round_trip(packet):
    data = encode(packet)
    assert MIN_PACKET_BYTES <= len(data) <= MAX_PACKET_BYTES
    assert parse(data) == packet


@settings(deadline=None)
@given(st.binary(max_size=MAX_PACKET_BYTES + 50))
def test_hostile_octets_are_a_typed_error_or_a_packet(data):
    with contextlib.suppress(DhcpPacketError):
        parse(data)


@settings(deadline=None)
@given(packets, st.data())
def test_damaged_packets_never_raise_anything_else(packet, data):
    raw = bytearray(encode(packet))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    try:
        read = parse(bytes(raw[:cut]))
    except DhcpPacketError:
        return
    assert read.mac is None or len(read.mac) == 17
    assert read.text_option(Option.VENDOR_CLASS).isprintable()


def uboot_discover() -> bytes:
    """As facts/virtual-lab.md section 2 describes the first DHCP of Debian's qemu_arm64 U-Boot."""
    fixed = bytes.fromhex("01010600") + (0x1234).to_bytes(4, "big") + bytes(20) + bytes.fromhex("525400770001")
    file = b"boot.scr.uimg".ljust(128, b"\0")
    options = bytes.fromhex("350101 39020240 5d020016 5e03010000") + b"\x3c\x0cU-Boot.armv8"
    options += bytes.fromhex("3705010306 0c11 ff")
    return fixed + bytes(10 + 64) + file + b"\x63\x82\x53\x63" + options


def test_uboot_discover():
    packet = parse(uboot_discover())
    assert packet.message_type is MessageType.DISCOVER
    assert packet.mac == "52:54:00:77:00:01"
    assert packet.file == b"boot.scr.uimg"
    assert packet.text_option(Option.VENDOR_CLASS) == "U-Boot.armv8"
    assert not packet.wants_broadcast


def test_every_truncation_of_a_real_packet_is_an_error_until_the_end_option():
    whole = uboot_discover()
    start = whole.index(b"\x63\x82\x53\x63") + 4
    for length in range(start):
        with pytest.raises(DhcpPacketError):
            parse(whole[:length])
    for length in range(start, len(whole)):  # between two options a cut is tolerated, within one it is not
        try:
            packet = parse(whole[:length])
        except DhcpPacketError:
            continue
        assert all(whole.find(bytes((code, len(value))) + value) > 0 for code, value in packet.options)


def test_option_overload_is_read_from_file_and_sname():
    base = bytearray(uboot_discover())
    base[108:236] = (b"\x43\x04boot\xff").ljust(128, b"\0")
    base[44:108] = (b"\x42\x03srv\xff").ljust(64, b"\0")
    packet = parse(bytes(base[:-1]) + b"\x34\x01\x03\xff")
    assert packet.option(Option.BOOT_FILE) == b"boot"
    assert packet.option(Option.TFTP_SERVER) == b"srv"
    assert packet.file == b""
    assert packet.option(Option.OVERLOAD) is None


@pytest.mark.parametrize(
    "packet",
    [
        DhcpPacket(op=1, xid=2**32, chaddr=b""),
        DhcpPacket(op=1, xid=0, chaddr=bytes(17)),
        DhcpPacket(op=1, xid=0, chaddr=b"", file=bytes(129)),
        DhcpPacket(op=1, xid=0, chaddr=b"", options=((0, b""),)),
        DhcpPacket(op=1, xid=0, chaddr=b"", options=((255, b""),)),
        DhcpPacket(op=1, xid=0, chaddr=b"", options=((12, bytes(1400)),)),
    ],
)
def test_what_does_not_fit_is_not_written(packet):
    with pytest.raises(DhcpPacketError):
        encode(packet)


@pytest.mark.parametrize(
    ("chaddr", "htype", "mac"),
    [
        ("525400770001", 1, "52:54:00:77:00:01"),
        ("535400770001", 1, None),  # multicast
        ("000000000000", 1, None),
        ("5254007700", 1, None),
        ("525400770001", 6, None),
    ],
)
def test_mac(chaddr, htype, mac):
    assert DhcpPacket(op=1, xid=0, chaddr=bytes.fromhex(chaddr), htype=htype).mac == mac
