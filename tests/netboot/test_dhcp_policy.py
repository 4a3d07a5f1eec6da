"""DHCP decisions: who gets what, who hears no, and who hears nothing."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.dhcp_packet import DhcpPacket, MessageType, Option, encode, parse
from netboot.dhcp_policy import (
    DECLINED_HOLD_S,
    LIMITED_BROADCAST,
    OFFER_HOLD_S,
    DhcpBoard,
    DhcpPolicy,
    DhcpSettings,
)

SERVER = IPv4Address("10.77.0.1")
BOARD_ADDRESS = IPv4Address("10.77.0.11")
KNOWN = "52:54:00:77:00:01"
STRANGER = "52:54:00:99:00:01"
SETTINGS = DhcpSettings(
    interface="br0",
    server_address=SERVER,
    network=IPv4Network("10.77.0.0/24"),
    lease_s=600,
    router=SERVER,
    pool=(IPv4Address("10.77.0.100"), IPv4Address("10.77.0.103")),
    joining_boot_file="boot.scr.uimg",
)
BOARD = DhcpBoard("board1", (KNOWN,), BOARD_ADDRESS, "boot.scr.uimg")


@pytest.fixture
def policy():
    return DhcpPolicy(SETTINGS, [BOARD])


def message(kind, mac=KNOWN, *, requested=None, server=None, ciaddr="0.0.0.0", flags=0, extra=()):
    options = [(int(Option.MESSAGE_TYPE), bytes((kind,)))]
    if requested is not None:
        options.append((int(Option.REQUESTED_ADDRESS), IPv4Address(requested).packed))
    if server is not None:
        options.append((int(Option.SERVER_ID), IPv4Address(server).packed))
    return DhcpPacket(
        op=1,
        xid=7,
        chaddr=bytes.fromhex(mac.replace(":", "")),
        flags=flags,
        ciaddr=IPv4Address(ciaddr),
        options=(*options, *extra),
    )


def ask(policy, packet, now=0.0, interface="br0"):
    decision = policy.handle(packet, interface, now)
    assert len(decision.replies) <= 1
    for reply in decision.replies:
        assert parse(encode(reply.packet)) == reply.packet  # what we say can be read
        assert reply.packet.xid == packet.xid
        assert reply.packet.chaddr == packet.chaddr
    return decision.replies[0] if decision.replies else None


def test_known_board_gets_its_all(policy):
    offer = ask(policy, message(MessageType.DISCOVER)).packet
    assert offer.message_type is MessageType.OFFER
    assert (offer.yiaddr, offer.siaddr, offer.file) == (BOARD_ADDRESS, SERVER, b"boot.scr.uimg")
    assert {code: offer.option(code) for code in (1, 3, 12, 51, 54, 66, 67)} == {
        1: bytes((255, 255, 255, 0)),
        3: SERVER.packed,
        12: b"board1",
        51: (600).to_bytes(4, "big"),
        54: SERVER.packed,
        66: b"10.77.0.1",
        67: b"boot.scr.uimg",
    }
    ack = ask(policy, message(MessageType.REQUEST, requested=BOARD_ADDRESS, server=SERVER)).packet
    assert ack.message_type is MessageType.ACK
    assert replace(ack, options=()) == replace(offer, options=())


def test_dns_only_when_there_is_one():
    servers = (IPv4Address("9.9.9.9"), IPv4Address("1.1.1.1"))
    with_dns = DhcpPolicy(replace(SETTINGS, dns=servers), [BOARD])
    assert ask(with_dns, message(MessageType.DISCOVER)).packet.option(6) == servers[0].packed + servers[1].packed
    assert ask(DhcpPolicy(SETTINGS, [BOARD]), message(MessageType.DISCOVER)).packet.option(6) is None


@pytest.mark.parametrize(
    ("packet", "interface"),
    [
        (message(MessageType.DISCOVER), "eth0"),
        (replace(message(MessageType.DISCOVER), giaddr=IPv4Address("10.9.9.9")), "br0"),
        (replace(message(MessageType.DISCOVER), op=2), "br0"),
        (replace(message(MessageType.DISCOVER), htype=6), "br0"),
        (replace(message(MessageType.DISCOVER), options=()), "br0"),
        (message(MessageType.OFFER), "br0"),
        (message(MessageType.ACK), "br0"),
        (message(MessageType.NAK), "br0"),
    ],
)
def test_what_is_not_ours_gets_silence(policy, packet, interface):
    policy.joining_open = True
    decision = policy.handle(packet, interface, 0.0)
    assert decision.replies == ()
    assert decision.events == ()


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (message(MessageType.REQUEST, requested="10.77.0.12", server=SERVER), MessageType.NAK),
        (message(MessageType.REQUEST, requested="192.168.1.5"), MessageType.NAK),  # INIT-REBOOT from another network
        (message(MessageType.REQUEST, requested=BOARD_ADDRESS), MessageType.ACK),  # INIT-REBOOT
        (message(MessageType.REQUEST, ciaddr="10.77.0.11"), MessageType.ACK),  # RENEWING
        (message(MessageType.REQUEST, ciaddr="10.77.0.12"), MessageType.NAK),
        (message(MessageType.REQUEST), MessageType.NAK),
        (message(MessageType.REQUEST, requested=BOARD_ADDRESS, server="10.77.0.2"), None),  # another server's offer
        (message(MessageType.REQUEST, STRANGER, requested="10.77.0.100"), None),
        (message(MessageType.DISCOVER, STRANGER), None),
        (message(MessageType.INFORM, STRANGER, ciaddr="10.77.0.50"), None),
        (message(MessageType.INFORM, ciaddr="10.77.0.50"), None),
    ],
)
def test_answers(policy, packet, answer):
    reply = ask(policy, packet)
    assert (reply.packet.message_type if reply is not None else None) is answer
    if answer is MessageType.NAK:
        assert reply.destination == LIMITED_BROADCAST
        assert reply.packet.yiaddr == IPv4Address(0)


def test_destinations(policy):
    assert ask(policy, message(MessageType.DISCOVER, flags=0x8000)).destination == LIMITED_BROADCAST
    plain = ask(policy, message(MessageType.DISCOVER))
    assert (plain.destination, plain.client_has_address) == (BOARD_ADDRESS, False)
    renewing = ask(policy, message(MessageType.REQUEST, ciaddr=str(BOARD_ADDRESS)))
    assert (renewing.destination, renewing.client_has_address) == (BOARD_ADDRESS, True)
    lying = ask(policy, message(MessageType.DISCOVER, ciaddr="8.8.8.8"))
    assert lying.destination == BOARD_ADDRESS


def test_inform_gets_no_address_and_no_lease_time(policy):
    reply = ask(policy, message(MessageType.INFORM, ciaddr=str(BOARD_ADDRESS)))
    assert reply.packet.message_type is MessageType.ACK
    assert reply.packet.yiaddr == IPv4Address(0)
    assert reply.packet.option(Option.LEASE_TIME) is None
    assert reply.destination == BOARD_ADDRESS


def test_client_id_and_uuid_come_back(policy):
    extra = ((61, b"\x01abc"), (97, b"\0" + bytes(16)))
    reply = ask(policy, message(MessageType.DISCOVER, extra=extra)).packet
    assert reply.option(61) == b"\x01abc"
    assert reply.option(97) == b"\0" + bytes(16)


def test_ipxe_gets_its_script(policy):
    reply = ask(policy, message(MessageType.DISCOVER, extra=((77, b"iPXE"),))).packet
    assert reply.file == reply.option(67) == b"boot.ipxe"


def test_stranger_joins_only_while_joining_is_open(policy):
    policy.joining_open = True
    offer = ask(policy, message(MessageType.DISCOVER, STRANGER)).packet
    assert policy.in_pool(offer.yiaddr)
    assert offer.option(Option.HOST_NAME) is None
    request = message(MessageType.REQUEST, STRANGER, requested=offer.yiaddr, server=SERVER)
    assert ask(policy, request).packet.message_type is MessageType.ACK
    assert policy.pool_mac(offer.yiaddr, 599) == STRANGER
    assert policy.pool_mac(offer.yiaddr, 601) is None
    policy.joining_open = False
    renewing = message(MessageType.REQUEST, STRANGER, ciaddr=str(offer.yiaddr))
    assert ask(policy, renewing, now=300).packet.message_type is MessageType.NAK
    assert ask(policy, message(MessageType.DISCOVER, STRANGER), now=300) is None


def test_a_restart_gives_strangers_the_same_addresses():
    first, second = DhcpPolicy(SETTINGS, [BOARD]), DhcpPolicy(SETTINGS, [BOARD])
    first.joining_open = second.joining_open = True
    got = ask(first, message(MessageType.DISCOVER, STRANGER)).packet.yiaddr
    assert ask(second, message(MessageType.DISCOVER, STRANGER)).packet.yiaddr == got
    other = next(a for a in (IPv4Address("10.77.0.100"), IPv4Address("10.77.0.101")) if a != got)
    third = DhcpPolicy(SETTINGS, [BOARD])
    third.joining_open = True
    renewing = message(MessageType.REQUEST, STRANGER, ciaddr=str(other))  # rebuilt from the request
    assert ask(third, renewing).packet.yiaddr == other


def stranger(number):
    return f"52:54:00:99:01:{number:02x}"


def test_pool_runs_out_and_offers_expire(policy):
    policy.joining_open = True
    given_out = {ask(policy, message(MessageType.DISCOVER, stranger(n))).packet.yiaddr for n in range(4)}
    assert len(given_out) == 4
    assert ask(policy, message(MessageType.DISCOVER, stranger(9))) is None
    assert ask(policy, message(MessageType.DISCOVER, stranger(9)), now=OFFER_HOLD_S + 1) is not None


def test_decline_and_release(policy):
    policy.joining_open = True
    address = ask(policy, message(MessageType.DISCOVER, STRANGER)).packet.yiaddr
    ask(policy, message(MessageType.REQUEST, STRANGER, requested=address, server=SERVER))
    assert ask(policy, message(MessageType.DECLINE, STRANGER, requested=address, server=SERVER)) is None
    assert policy.pool_mac(address, 1) is None
    for second in (1.0, DECLINED_HOLD_S - 1):
        wanting = message(MessageType.DISCOVER, STRANGER, requested=address)
        assert ask(policy, wanting, now=second).packet.yiaddr != address
    ask(policy, message(MessageType.RELEASE, STRANGER, ciaddr="10.77.0.100", server=SERVER))
    ask(policy, message(MessageType.RELEASE, KNOWN, ciaddr=str(BOARD_ADDRESS), server=SERVER))
    assert ask(policy, message(MessageType.DISCOVER)).packet.yiaddr == BOARD_ADDRESS


def test_nobody_releases_anothers_lease(policy):
    policy.joining_open = True
    address = ask(policy, message(MessageType.DISCOVER, STRANGER)).packet.yiaddr
    for kind in (MessageType.RELEASE, MessageType.DECLINE):
        ask(policy, message(kind, stranger(1), ciaddr=str(address), requested=address, server=SERVER))
    assert policy.pool_mac(address, 1) == STRANGER


def test_events_name_the_board(policy):
    decision = policy.handle(message(MessageType.DISCOVER, extra=((60, b"U-Boot.armv8"),)), "br0", 0)
    (event,) = decision.events
    assert (event.board, event.address, event.vendor_class) == ("board1", "10.77.0.11", "U-Boot.armv8")
    assert (event.message_type, event.answer) == ("DISCOVER", "OFFER")
    (event,) = policy.handle(message(MessageType.DISCOVER, STRANGER), "br0", 0).events
    assert (event.mac, event.board, event.address, event.answer) == (STRANGER, None, None, "")


@pytest.mark.parametrize(
    ("board", "words"),
    [
        (replace(BOARD, board="b2", address=IPv4Address("10.78.0.1")), "b2.*outside"),
        (replace(BOARD, board="b2", address=SERVER), "b2.*the server"),
        (replace(BOARD, board="b2"), "b2.*board1"),
        (replace(BOARD, board="b2", address=IPv4Address("10.77.0.101")), "b2.*pool"),
        (replace(BOARD, board="b2", address=IPv4Address("10.77.0.12")), "b2.*already belongs to board1"),
    ],
)
def test_contradicting_boards_are_refused(policy, board, words):
    with pytest.raises(ValueError, match=words):
        DhcpPolicy(SETTINGS, [BOARD, board])
    with pytest.raises(ValueError, match=words):
        policy.set_boards([BOARD, board])
    assert ask(policy, message(MessageType.DISCOVER)) is not None


def test_pool_outside_of_the_network_is_refused():
    with pytest.raises(ValueError, match="pool"):
        DhcpPolicy(replace(SETTINGS, pool=(IPv4Address("10.77.0.9"), IPv4Address("10.78.0.9"))), [])


steps = st.tuples(
    st.sampled_from([MessageType.DISCOVER, MessageType.REQUEST, MessageType.RELEASE, MessageType.DECLINE]),
    st.integers(0, 7),
    st.one_of(st.none(), st.integers(98, 105)),
    st.booleans(),
    st.floats(0, 300),
)


@settings(deadline=None)
@given(st.lists(steps, max_size=40))
def test_two_clients_never_hold_one_address(walk):
    policy = DhcpPolicy(SETTINGS, [BOARD])
    policy.joining_open = True
    held: dict[IPv4Address, tuple[str, float]] = {}
    now = 0.0
    for kind, who, last, named, wait in walk:
        now += wait
        mac = stranger(who)
        wanted = IPv4Address(f"10.77.0.{last}") if last is not None else None
        ciaddr = str(wanted) if wanted is not None and kind is MessageType.RELEASE else "0.0.0.0"
        reply = ask(policy, message(kind, mac, requested=wanted, server=SERVER if named else None, ciaddr=ciaddr), now)
        if kind is MessageType.RELEASE and held.get(wanted, ("",))[0] == mac:
            del held[wanted]
        if kind is MessageType.DECLINE and held.get(wanted, ("",))[0] == mac:
            del held[wanted]
        if reply is not None and reply.packet.message_type is MessageType.ACK:
            address = reply.packet.yiaddr
            owner, until = held.get(address, (mac, 0.0))
            assert owner == mac or until <= now
            assert policy.in_pool(address)
            held[address] = (mac, now + 600)
