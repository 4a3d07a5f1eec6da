"""What gives away a foreign DHCP server and two machines with one MAC address, and what does not."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.dhcp_events import AddressConflict, DuplicateMac, RogueDhcpServer
from netboot.dhcp_packet import DhcpPacket, MessageType, encode, parse
from netboot.segment_frames import ArpClaim, UdpSeen, arp_probe, from_client, read
from netboot.segment_watch import (
    AT_ONCE_S,
    FIRST_PROBE_S,
    GONE_AFTER_PROBES,
    MAX_REMEMBERED,
    PROBE_S,
    REPEAT_S,
    SegmentWatch,
    probe_message,
)

OURS, FOREIGN = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.9")
MAC, FOREIGN_MAC = "52:54:00:77:00:01", "52:54:00:66:00:09"
UUID = b"\0" + bytes(range(16))
OTHER_UUID = b"\0" + bytes(range(16, 32))


@pytest.fixture
def watch():
    return SegmentWatch("br0", OURS, board_of={MAC: "b1"}.get)


def asked(kind=MessageType.DISCOVER, *, xid=1, vendor=b"udhcp 1.35", client_id=None, machine=None, ciaddr="0.0.0.0"):
    options = [(53, bytes((kind,))), (60, vendor)]
    options += [(61, client_id)] if client_id is not None else []
    options += [(97, machine)] if machine is not None else []
    return DhcpPacket(
        op=1, xid=xid, chaddr=bytes.fromhex(MAC.replace(":", "")), ciaddr=IPv4Address(ciaddr), options=tuple(options)
    )


def answered(kind=MessageType.OFFER, server=FOREIGN):
    return DhcpPacket(op=2, xid=1, chaddr=bytes(6), options=((53, bytes((kind,))), (54, server.packed)))


def alerts(watch, *heard):
    """What `(seconds, packet)` raise, one after the other."""
    return [event for now, packet in heard for event in watch.client_message(packet, now)]


# --- one MAC address on two machines ---


def test_one_programs_other_uuid_is_another_machine(watch):
    rom = {"vendor": b"PXEClient:Arch:00007:UNDI:003016"}
    found = alerts(watch, (0.0, asked(machine=UUID, **rom)), (20.0, asked(xid=2, machine=OTHER_UUID, **rom)))
    assert [(event.interface, event.mac, event.board) for event in found] == [("br0", MAC, "b1")]
    assert "UUIDs" in found[0].reason


def test_two_machines_that_take_turns(watch):
    found = alerts(
        watch,
        (0.0, asked(xid=1, client_id=b"one")),
        (1.0, asked(xid=2, client_id=b"two")),
        (2.0, asked(xid=3, client_id=b"one")),
    )
    assert [type(event) for event in found] == [DuplicateMac]
    assert "client ids" in found[0].reason


def test_a_renewal_tells_hours_later(watch):
    """The first has run ever since it got its address, so the second is another machine."""
    renewal = asked(MessageType.REQUEST, xid=9, client_id=b"one", ciaddr="10.77.0.11")
    heard = [(0.0, asked(xid=1, client_id=b"one")), (5000.0, asked(xid=2, client_id=b"two")), (9000.0, renewal)]
    assert len(alerts(watch, *heard)) == 1


def test_two_discovers_at_once(watch):
    heard = [(0.0, asked(xid=1)), (0.5, asked(xid=2)), (1.0, asked(xid=1)), (1.5, asked(xid=2))]
    found = alerts(watch, *heard)
    assert [event.reason for event in found] == ["two transactions at once"]  # once, though it goes on
    assert len(alerts(watch, *[(at + REPEAT_S + 1, packet) for at, packet in heard])) == 1


BOOTS = {
    "a program after the other": [
        (0.0, asked(xid=1, vendor=b"PXEClient:Arch:00007", client_id=b"\0firm", machine=UUID)),
        (9.0, asked(xid=2, vendor=b"U-Boot.armv8", machine=OTHER_UUID)),
        (12.0, asked(xid=3, vendor=b"systemd 252", client_id=b"\xffinitrd")),
        (14.0, asked(xid=4, vendor=b"systemd 252", client_id=b"\xffroot")),
        (15.0, asked(MessageType.REQUEST, xid=4, vendor=b"systemd 252", client_id=b"\xffroot")),
    ],
    "a board that reboots": [
        (start + at, packet)
        for start in (0.0, 40.0, 80.0)
        for at, packet in [
            (0.0, asked(xid=1, client_id=b"one")),
            (AT_ONCE_S + 1, asked(xid=2, client_id=b"two")),
        ]
    ],
    "a Pi's ROM, whose transactions all have one number": [
        (float(at), asked(xid=0x26F30339, vendor=b"PXEClient:Arch:00000:UNDI:002001")) for at in range(30)
    ],
    "U-Boot takes the answer to its first question after it has asked again": [
        (0.0, asked(xid=1, vendor=b"U-Boot")),
        (5.0, asked(xid=2, vendor=b"U-Boot")),
        (5.1, asked(MessageType.REQUEST, xid=1, vendor=b"U-Boot")),
        (5.2, asked(MessageType.REQUEST, xid=1, vendor=b"U-Boot")),
    ],
    "one that nobody answers": [(float(at), asked(xid=7)) for at in range(0, 120, 4)],
    "a lease that is renewed": [
        (300.0 * n, asked(MessageType.REQUEST, xid=n, client_id=b"one", ciaddr="10.77.0.11")) for n in range(10)
    ],
    "both byte orders of one UUID": [
        (0.0, asked(machine=b"\0" + bytes(range(16)))),
        (1.0, asked(machine=b"\0" + bytes((3, 2, 1, 0, 5, 4, 7, 6, *range(8, 16))))),
    ],
}


@pytest.mark.parametrize("name", BOOTS)
def test_one_machine_is_not_taken_for_two(watch, name):
    assert alerts(watch, *BOOTS[name]) == []


def test_relayed_messages_and_other_kinds_say_nothing(watch):
    twice = [(0.0, 1), (0.1, 2), (0.2, 1)]
    relayed = [(at, replace(asked(xid=xid), giaddr=IPv4Address("10.9.0.1"))) for at, xid in twice]
    assert alerts(watch, *relayed, *[(at, asked(MessageType.INFORM, xid=xid)) for at, xid in twice]) == []


def test_memory_is_bounded(watch):
    for number in range(MAX_REMEMBERED + 50):
        packet = replace(asked(xid=number), chaddr=b"\x52\x54" + number.to_bytes(4, "big"))
        watch.client_message(packet, 0.0)
        watch.client_message(replace(asked(xid=number, vendor=b"v%d" % number)), 0.0)
        watch.server_message(answered(server=IPv4Address(number + 1)), FOREIGN, FOREIGN_MAC, 0.0)
    assert len(watch._clients) == MAX_REMEMBERED
    assert len(watch._clients[MAC].programs) == 8
    assert len(watch._rogues) == MAX_REMEMBERED


# --- foreign servers ---


@pytest.mark.parametrize("kind", [MessageType.OFFER, MessageType.ACK, MessageType.NAK])
def test_a_foreign_server_is_told_once_and_again_while_it_goes_on(watch, kind):
    told = RogueDhcpServer("br0", "10.77.0.9", FOREIGN_MAC)
    assert watch.server_message(answered(kind), FOREIGN, FOREIGN_MAC, 0.0) == (told,)
    assert watch.server_message(answered(kind), FOREIGN, FOREIGN_MAC, 1.0) == ()
    assert watch.server_message(answered(kind), FOREIGN, FOREIGN_MAC, REPEAT_S) == (told,)


def test_one_that_has_our_address_is_foreign_too(watch):
    """Our own frames never come back to us."""
    assert watch.server_message(answered(server=OURS), OURS, FOREIGN_MAC, 0.0) != ()


def test_a_foreign_server_that_falls_silent_is_over(watch):
    watch.server_message(answered(), FOREIGN, FOREIGN_MAC, 0.0)
    end = GONE_AFTER_PROBES * PROBE_S
    assert watch.tick(end)[1] == ()
    assert watch.tick(end + 1)[1] == (RogueDhcpServer("br0", "10.77.0.9", FOREIGN_MAC, present=False),)
    assert watch.tick(end + 2)[1] == ()


def test_probes(watch):
    assert not watch.tick(0.0)[0]
    assert watch.tick(FIRST_PROBE_S)[0]
    assert not watch.tick(FIRST_PROBE_S + 1)[0]
    assert watch.tick(FIRST_PROBE_S + PROBE_S)[0]


def test_where_others_give_the_addresses_nobody_is_foreign():
    watch = SegmentWatch("br0", OURS, friends=None)
    assert watch.server_message(answered(), FOREIGN, FOREIGN_MAC, 0.0) == ()
    assert watch.tick(0.0) == watch.tick(1000.0) == (False, ())


def test_a_friend_may_answer():
    watch = SegmentWatch("br0", OURS, friends=[FOREIGN])
    assert watch.server_message(answered(), FOREIGN, FOREIGN_MAC, 0.0) == ()


def test_conflicts_are_told_once_in_a_while(watch):
    conflict = AddressConflict("br0", "10.77.0.11", FOREIGN_MAC, "b1", MAC)
    assert watch.conflicts((conflict,), 0.0) == (conflict,)
    assert watch.conflicts((conflict,), REPEAT_S - 1) == ()
    assert watch.conflicts((conflict,), REPEAT_S) == (conflict,)


# --- frames ---

MAC_BYTES = bytes.fromhex(MAC.replace(":", ""))


def test_a_probe_is_a_client_message_that_servers_can_read():
    frame = from_client(MAC_BYTES, encode(probe_message(MAC, 7)))
    assert read(frame) is None  # to port 67: not what the watch listens to
    assert struct.unpack_from("!H", frame, 36)[0] == 67
    packet = parse(frame[42:])
    assert (packet.mac, packet.message_type, packet.wants_broadcast) == (MAC, MessageType.DISCOVER, True)
    header = struct.unpack("!10H", frame[14:34])
    assert sum(header) % 0xFFFF == 0


def test_an_arp_probe_claims_nothing():
    assert read(arp_probe(MAC_BYTES, FOREIGN)) is None


def arp(operation, mac, address, target="0.0.0.0"):
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, operation, mac, IPv4Address(address).packed, bytes(6),
                       IPv4Address(target).packed)  # fmt: skip
    return b"\xff" * 6 + mac + b"\x08\x06" + body


def test_arp_claims():
    assert read(arp(1, MAC_BYTES, "10.77.0.9")) == read(arp(2, MAC_BYTES, "10.77.0.9")) == ArpClaim(MAC, FOREIGN)
    assert read(arp(3, MAC_BYTES, "10.77.0.9")) is None
    assert read(arp(2, b"\x01" * 6, "10.77.0.9")) is None


def udp(payload, *, port=68, header=20, fragment=0):
    datagram = struct.pack("!HHHH", 67, port, 8 + len(payload), 0) + payload
    first = 0x40 | header // 4
    ip = struct.pack("!BBHHHBBH4s4s", first, 0, header + len(datagram), 1, fragment, 64, 17, 0, FOREIGN.packed,
                     b"\xff" * 4)  # fmt: skip
    return b"\xff" * 6 + MAC_BYTES + b"\x08\x00" + ip + bytes(header - 20) + datagram


def test_datagrams_to_clients():
    seen = UdpSeen(MAC, FOREIGN, b"payload")
    assert read(udp(b"payload")) == read(udp(b"payload", header=24)) == read(udp(b"payload") + bytes(10)) == seen
    assert read(udp(b"payload", port=67)) is None
    assert read(udp(b"payload", fragment=100)) is None


@given(st.binary(max_size=80), st.sampled_from([b"\x08\x00", b"\x08\x06", b"\x86\xdd"]))
def test_any_octets_are_something_or_nothing(data, kind):
    read(data)
    read(bytes(12) + kind + data)


@given(st.data())
def test_damaged_frames_never_raise(data):
    frame = data.draw(st.sampled_from([udp(b"payload"), arp(2, MAC_BYTES, "10.77.0.9")]))
    cut = bytearray(frame[: data.draw(st.integers(0, len(frame)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if cut:
            cut[data.draw(st.integers(0, len(cut) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(cut))
