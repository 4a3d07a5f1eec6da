"""The frame filter, run by the kernel: a datagram socket takes the same programs as a tap does."""

import itertools
import socket
import struct

import pytest

from virtual_lab import frame_filter

MAC, OTHER = "52:54:00:77:00:01", "52:54:00:77:00:02"
BROADCAST = "ff:ff:ff:ff:ff:ff"
ADDRESS = "10.77.0.11"


def ethernet(target, kind, payload):
    return bytes.fromhex(target.replace(":", "")) + bytes.fromhex("021122334455") + struct.pack(">H", kind) + payload


def arp(asked):
    return ethernet(BROADCAST, 0x0806, struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + bytes(16) + socket.inet_aton(asked))


def dhcp(mac, port=68, protocol=17, options=b""):
    message = b"\x02\x01\x06\x00" + bytes(24) + bytes.fromhex(mac.replace(":", "")).ljust(208, b"\0")
    udp = struct.pack(">HHHH", 67, port, 8 + len(message), 0) + message
    head = bytes([0x45 + len(options) // 4]) + bytes(8) + bytes([protocol]) + bytes(10) + options
    return ethernet(BROADCAST, 0x0800, head + udp)


@pytest.mark.parametrize(
    ("frame", "passes"),
    [
        (ethernet(MAC, 0x0800, bytes(40)), True),
        (ethernet(MAC, 0x86DD, bytes(40)), True),
        (ethernet(OTHER, 0x0800, bytes(40)), False),
        (ethernet("52:54:00:77:01:01", 0x0800, bytes(40)), False),
        (ethernet("33:33:00:00:00:01", 0x86DD, bytes(40)), False),
        (ethernet("ff:ff:ff:ff:00:01", 0x0806, bytes(40)), False),
        (arp(ADDRESS), True),
        (arp("10.77.0.12"), False),
        (dhcp(MAC), True),
        (dhcp(MAC, options=bytes(8)), True),
        (dhcp(OTHER), False),
        (dhcp("52:54:00:77:00:ff"), False),
        (dhcp(MAC, port=67), False),
        (dhcp(MAC, protocol=6), False),
        (ethernet(BROADCAST, 0x0800, bytes(10)), False),
        (MAC.encode()[:3], False),
    ],
    ids=itertools.count(),
)
def test_only_what_is_for_the_board_passes(frame, passes):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        frame_filter.attach_to_socket(ours, MAC, ADDRESS)
        ours.setblocking(False)
        theirs.setblocking(False)
        theirs.send(frame)
        try:
            got = ours.recv(2000)
        except BlockingIOError:
            got = None
        assert got == (frame if passes else None)


def test_a_board_without_an_address_hears_all_arp():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        frame_filter.attach_to_socket(ours, MAC, None)
        theirs.send(arp("10.77.0.99"))
        assert ours.recv(2000) == arp("10.77.0.99")
