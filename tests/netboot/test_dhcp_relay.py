"""Relay agents, boards known by UUID or client id, conflicts, and the boot file that the owner chooses."""

import uuid
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from netboot.dhcp_options import ClientKind
from netboot.dhcp_packet import DhcpPacket, MessageType, Option, encode, parse
from netboot.dhcp_policy import LIMITED_BROADCAST, DhcpBoard, DhcpPolicy, DhcpSettings
from netboot.dhcp_settings import Subnet

SERVER = IPv4Address("10.77.0.1")
FAR = Subnet(IPv4Network("10.88.0.0/25"), IPv4Address("10.88.0.1"))
RELAY = IPv4Address("10.88.0.2")
UUID = "00112233-4455-6677-8899-aabbccddeeff"
CLIENT_ID = b"\xff\x00\x01board"
NEAR_MAC, FAR_MAC, STRANGER = "52:54:00:77:00:01", "52:54:00:77:00:02", "52:54:00:99:00:01"
SETTINGS = DhcpSettings(
    interface="br0",
    server_address=SERVER,
    network=IPv4Network("10.77.0.0/24"),
    lease_s=600,
    router=SERVER,
    pool=(IPv4Address("10.77.0.100"), IPv4Address("10.77.0.103")),
    joining_boot_file="join",
    relayed=(FAR,),
)
NEAR_BOARD = DhcpBoard("near", (NEAR_MAC,), IPv4Address("10.77.0.11"), "near.scr", UUID, (CLIENT_ID,))
FAR_BOARD = DhcpBoard("far", (FAR_MAC,), IPv4Address("10.88.0.11"), "far.scr")


@pytest.fixture
def policy():
    return DhcpPolicy(SETTINGS, [NEAR_BOARD, FAR_BOARD])


def message(kind, mac, *, giaddr="0.0.0.0", ciaddr="0.0.0.0", requested=None, server=None, extra=(), flags=0):
    options = [(53, bytes((kind,)))]
    if requested is not None:
        options.append((50, IPv4Address(requested).packed))
    if server is not None:
        options.append((54, IPv4Address(server).packed))
    return DhcpPacket(
        op=1, xid=9, chaddr=bytes.fromhex(mac.replace(":", "")), flags=flags, giaddr=IPv4Address(giaddr),
        ciaddr=IPv4Address(ciaddr), options=(*options, *extra),
    )  # fmt: skip


def ask(policy, packet, now=0.0):
    replies = policy.handle(packet, "br0", now).replies
    if not replies:
        return None
    assert parse(encode(replies[0].packet)) == replies[0].packet
    return replies[0]


def test_a_relayed_board_gets_its_own_networks_numbers(policy):
    information = b"\x01\x04port\x02\x03sw1"
    packet = message(MessageType.DISCOVER, FAR_MAC, giaddr=RELAY, extra=((82, information),))
    reply = ask(policy, packet)
    assert (reply.destination, reply.to_relay) == (RELAY, True)
    answer = reply.packet
    assert (answer.giaddr, answer.yiaddr, answer.siaddr) == (RELAY, FAR_BOARD.address, SERVER)
    assert answer.option(Option.SUBNET_MASK) == bytes((255, 255, 255, 128))
    assert answer.option(Option.ROUTER) == FAR.router.packed
    assert answer.options[-1] == (82, information)


@pytest.mark.parametrize(
    ("mac", "giaddr", "ciaddr", "answer"),
    [
        (FAR_MAC, "10.99.0.1", "0.0.0.0", None),  # nobody's relay
        (FAR_MAC, "10.77.0.5", "0.0.0.0", None),  # our own network has none
        (NEAR_MAC, str(RELAY), "0.0.0.0", MessageType.NAK),  # the board was carried away
        (FAR_MAC, "0.0.0.0", "0.0.0.0", MessageType.NAK),
        (FAR_MAC, "0.0.0.0", "10.88.0.11", MessageType.ACK),  # renewing, as unicast
        (STRANGER, str(RELAY), "0.0.0.0", None),
    ],
)
def test_requests_from_afar(policy, mac, giaddr, ciaddr, answer):
    policy.joining_open = True
    board = NEAR_BOARD if mac == NEAR_MAC else FAR_BOARD
    wanted = None if ciaddr != "0.0.0.0" else board.address
    reply = ask(policy, message(MessageType.REQUEST, mac, giaddr=giaddr, ciaddr=ciaddr, requested=wanted))
    assert (reply.packet.message_type if reply is not None else None) is answer
    if answer is MessageType.NAK:
        assert reply.destination == (RELAY if giaddr == str(RELAY) else LIMITED_BROADCAST)
        assert reply.packet.wants_broadcast == (giaddr == str(RELAY))  # so that the relay broadcasts it


def test_option_82_without_a_relay_does_not_come_back(policy):
    reply = ask(policy, message(MessageType.DISCOVER, NEAR_MAC, extra=((82, b"\x01\x01x"),)))
    assert reply.packet.option(82) is None


@pytest.mark.parametrize(
    "extra",
    [
        ((97, b"\0" + uuid.UUID(UUID).bytes_le),),
        ((97, b"\0" + uuid.UUID(UUID).bytes),),
        ((61, CLIENT_ID),),
    ],
)
def test_a_board_behind_another_adapter_is_known_again(policy, extra):
    decision = policy.handle(message(MessageType.DISCOVER, STRANGER, extra=extra), "br0", 0)
    assert decision.replies[0].packet.yiaddr == NEAR_BOARD.address
    assert (decision.events[0].board, decision.events[0].mac) == ("near", STRANGER)
    assert policy.occupied(NEAR_BOARD.address, STRANGER, 1) == ()  # it is at home there
    infiniband = replace(message(MessageType.DISCOVER, STRANGER, extra=extra), htype=32, chaddr=b"")
    assert ask(policy, infiniband).packet.htype == 32


def test_a_known_mac_counts_more_than_a_uuid(policy):
    packet = message(MessageType.DISCOVER, FAR_MAC, giaddr=RELAY, extra=((97, b"\0" + uuid.UUID(UUID).bytes),))
    assert ask(policy, packet).packet.yiaddr == FAR_BOARD.address


def test_the_owner_chooses_the_boot_file():
    asked = []

    def boot_file_for(board, kind):
        asked.append((board, kind))
        return None if kind is ClientKind.OTHER else f"{kind}.img"

    policy = DhcpPolicy(SETTINGS, [NEAR_BOARD], boot_file_for=boot_file_for)
    policy.joining_open = True
    uefi = message(MessageType.DISCOVER, NEAR_MAC, extra=((60, b"PXEClient:Arch:00011:UNDI:003000"), (93, b"\0\x0b")))
    assert ask(policy, uefi).packet.file == b"uefi-arm64.img"
    system = ask(policy, message(MessageType.DISCOVER, STRANGER, extra=((60, b"udhcp 1.36.1"),))).packet
    assert (system.file, system.option(66), system.option(67)) == (b"", None, None)
    assert system.yiaddr in {IPv4Address(f"10.77.0.{n}") for n in range(100, 104)}
    assert asked == [("near", ClientKind.UEFI_ARM64), (None, ClientKind.OTHER)]


def test_declined_addresses_are_conflicts(policy):
    decline = message(MessageType.DECLINE, NEAR_MAC, requested=NEAR_BOARD.address, server=SERVER)
    (conflict,) = policy.handle(decline, "br0", 0).conflicts
    assert (conflict.board, conflict.address, conflict.mac, conflict.owner) == ("near", "10.77.0.11", "", NEAR_MAC)
    anothers = message(MessageType.DECLINE, NEAR_MAC, requested=FAR_BOARD.address, server=SERVER)
    assert policy.handle(anothers, "br0", 0).conflicts == ()


def test_a_squatter_on_a_pool_address_costs_nobody_time(policy):
    policy.joining_open = True
    address = ask(policy, message(MessageType.DISCOVER, STRANGER)).packet.yiaddr
    (conflict,) = policy.occupied(address, "02:00:00:00:00:01", 0.1)  # the answer to the ARP that went with the offer
    assert (conflict.owner, conflict.mac) == (STRANGER, "02:00:00:00:00:01")
    request = message(MessageType.REQUEST, STRANGER, requested=address, server=SERVER)
    assert ask(policy, request, 0.2).packet.message_type is MessageType.NAK
    assert ask(policy, message(MessageType.DISCOVER, STRANGER, requested=address), 0.3).packet.yiaddr != address


def test_who_may_use_an_address(policy):
    policy.joining_open = True
    assert policy.occupied(NEAR_BOARD.address, NEAR_MAC, 0) == ()
    (conflict,) = policy.occupied(NEAR_BOARD.address, STRANGER, 0)
    assert (conflict.board, conflict.owner) == ("near", NEAR_MAC)
    (conflict,) = policy.occupied(SERVER, STRANGER, 0)
    assert (conflict.address, conflict.board) == (str(SERVER), None)
    assert policy.occupied(IPv4Address("10.77.0.200"), STRANGER, 0) == ()
    address = ask(policy, message(MessageType.DISCOVER, STRANGER)).packet.yiaddr
    ask(policy, message(MessageType.REQUEST, STRANGER, requested=address, server=SERVER))
    assert policy.occupied(address, STRANGER, 1) == ()


@pytest.mark.parametrize(
    ("board", "words"),
    [
        (replace(FAR_BOARD, uuid=UUID.upper()), "far.*UUID.*near"),
        (replace(FAR_BOARD, uuid="no"), "far.*no UUID"),
        (replace(FAR_BOARD, client_ids=(CLIENT_ID,)), "far.*client id.*near"),
    ],
)
def test_identities_stand_once(board, words):
    with pytest.raises(ValueError, match=words):
        DhcpPolicy(SETTINGS, [NEAR_BOARD, board])


def test_leases_survive_a_restart(policy):
    policy.joining_open = True
    address = ask(policy, message(MessageType.DISCOVER, STRANGER)).packet.yiaddr
    ask(policy, message(MessageType.REQUEST, STRANGER, requested=address, server=SERVER))
    state = policy.leases.state(0, 1000)
    again = DhcpPolicy(SETTINGS, [NEAR_BOARD], leases=state, now=50, wall_s=1100)
    assert again.pool_mac(address, 51) == STRANGER
    assert again.pool_mac(address, 50 + 501) is None
