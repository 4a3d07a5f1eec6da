"""A proxy beside another DHCP server: whom it answers, with what, and whom it leaves alone."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.dhcp_events import OtherAddress
from netboot.dhcp_packet import DhcpPacket, MessageType, Option, encode, parse
from netboot.dhcp_policy import LIMITED_BROADCAST
from netboot.dhcp_settings import DhcpBoard, DhcpSettings, Subnet
from netboot.proxy_dhcp import ProxyPolicy

SERVER, OTHER = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
MAC, STRANGER = "52:54:00:77:00:01", "52:54:00:99:00:01"
ADDRESS = IPv4Address("10.77.0.11")
SETTINGS = DhcpSettings("br0", SERVER, IPv4Network("10.77.0.0/24"), lease_s=600, router=SERVER)
PXE, UBOOT = b"PXEClient:Arch:00007:UNDI:003016", b"U-Boot.armv8"
HTTP = b"HTTPClient:Arch:00016:UNDI:003001"
DISCOVERY_CONTROL = bytes((6, 1, 8))


def boot_file_for(board, kind):
    return None if board is None else f"http://10.77.0.1:8069/{kind}.efi" if kind.by_http else f"{kind}.efi"


@pytest.fixture
def proxy():
    return ProxyPolicy(SETTINGS, [DhcpBoard("b1", (MAC,), ADDRESS, "x")], boot_file_for=boot_file_for)


def message(kind, vendor=PXE, *, mac=MAC, ciaddr="0.0.0.0", extra=()):
    return DhcpPacket(
        op=1, xid=9, chaddr=bytes.fromhex(mac.replace(":", "")), ciaddr=IPv4Address(ciaddr),
        options=((53, bytes((kind,))), (60, vendor), *extra),
    )  # fmt: skip


def only(decision):
    (sent,) = decision.replies
    assert parse(encode(sent.packet)) == sent.packet
    return sent


def test_a_pxe_client_is_offered_a_boot_file_and_no_address(proxy):
    decision = proxy.handle(message(MessageType.DISCOVER), "br0", 0.0)
    sent = only(decision)
    packet = sent.packet
    assert (packet.message_type, packet.yiaddr, packet.siaddr) == (MessageType.OFFER, IPv4Address(0), SERVER)
    assert packet.file == packet.option(Option.BOOT_FILE) == b"uefi-x64.efi"
    assert packet.option(Option.VENDOR_CLASS) == b"PXEClient"
    assert packet.option(Option.VENDOR_SPECIFIC) == DISCOVERY_CONTROL + b"\xff"
    assert packet.address_option(Option.SERVER_ID) == SERVER
    for code in (Option.SUBNET_MASK, Option.ROUTER, Option.LEASE_TIME, Option.HOST_NAME):
        assert packet.option(code) is None
    assert (sent.destination, sent.client_has_address) == (LIMITED_BROADCAST, False)
    assert [(event.board, event.answer) for event in decision.events] == [("b1", "OFFER")]


def test_http_boot_gets_its_url(proxy):
    packet = only(proxy.handle(message(MessageType.DISCOVER, HTTP), "br0", 0.0)).packet
    assert packet.option(Option.BOOT_FILE) == b"http://10.77.0.1:8069/http-x64.efi"
    assert packet.option(Option.VENDOR_CLASS) == b"HTTPClient"


@pytest.mark.parametrize(
    ("packet", "interface"),
    [
        (message(MessageType.DISCOVER, UBOOT), "br0"),  # it would take our offer for the real one
        (message(MessageType.DISCOVER, b""), "br0"),
        (message(MessageType.DISCOVER, mac=STRANGER), "br0"),
        (message(MessageType.DISCOVER), "eth9"),
        (replace(message(MessageType.DISCOVER), op=2), "br0"),
        (replace(message(MessageType.DISCOVER), giaddr=IPv4Address("10.99.0.1")), "br0"),
        (message(MessageType.REQUEST), "br0"),  # to the other server
        (message(MessageType.INFORM), "br0"),
        (message(MessageType.RELEASE), "br0"),
    ],
)
def test_all_others_hear_nothing_on_port_67(proxy, packet, interface):
    assert proxy.handle(packet, interface, 0.0).replies == ()


def test_the_address_that_the_other_server_gave_is_told(proxy):
    request = message(MessageType.REQUEST, extra=((54, OTHER.packed), (50, ADDRESS.packed)))
    decision = proxy.handle(request, "br0", 0.0)
    assert [(event.board, event.address, event.answer) for event in decision.events] == [("b1", "10.77.0.11", "")]
    assert decision.conflicts == ()


@pytest.mark.parametrize("asks", ["request", "renewal"])
def test_an_address_that_we_do_not_know_is_a_conflict(proxy, asks):
    wrong = IPv4Address("10.77.0.150")
    packet = (
        message(MessageType.REQUEST, extra=((54, OTHER.packed), (50, wrong.packed)))
        if asks == "request"
        else message(MessageType.REQUEST, ciaddr=str(wrong))
    )
    decision = proxy.handle(packet, "br0", 0.0)
    assert decision.conflicts == (OtherAddress("br0", "10.77.0.150", MAC, "b1", "10.77.0.11"),)


def test_port_4011_answers_the_client_itself_with_its_boot_item(proxy):
    item = bytes((71, 4, 0, 0, 0, 0))
    asked = message(MessageType.REQUEST, ciaddr="10.77.0.11", extra=((43, b"\x00" + item + b"\xff"),))
    sent = only(proxy.boot_server.handle(asked, "br0", 0.0))
    assert (sent.packet.message_type, sent.packet.ciaddr, sent.packet.yiaddr) == (
        MessageType.ACK, ADDRESS, IPv4Address(0),
    )  # fmt: skip
    assert sent.packet.option(Option.VENDOR_SPECIFIC) == item + DISCOVERY_CONTROL + b"\xff"
    assert (sent.destination, sent.client_has_address) == (ADDRESS, True)


@pytest.mark.parametrize("kind", [MessageType.DISCOVER, MessageType.RELEASE, MessageType.OFFER])
def test_port_4011_answers_only_what_is_asked_there(proxy, kind):
    assert proxy.boot_server.handle(message(kind), "br0", 0.0).replies == ()
    assert proxy.boot_server.handle(message(MessageType.REQUEST, mac=STRANGER), "br0", 0.0).replies == ()


def test_a_raspberry_pi_hears_its_words(proxy):
    pi = "dc:a6:32:00:00:01"
    proxy.set_boards([DhcpBoard("pi", (pi,), ADDRESS, "x")])
    rom = message(MessageType.DISCOVER, b"PXEClient:Arch:00000:UNDI:002001", mac=pi)
    packet = only(proxy.handle(rom, "br0", 0.0)).packet
    assert b"Raspberry Pi Boot" in packet.option(Option.VENDOR_SPECIFIC)
    assert packet.option(Option.TFTP_SERVER) == b"10.77.0.1"


def test_a_kind_without_a_boot_file_hears_nothing():
    silent = ProxyPolicy(SETTINGS, [DhcpBoard("b1", (MAC,), ADDRESS, "x")], boot_file_for=lambda *_: None)
    assert silent.handle(message(MessageType.DISCOVER), "br0", 0.0).replies == ()


def test_a_relays_message_is_answered_to_the_relay(proxy):
    packet = replace(message(MessageType.DISCOVER), giaddr=IPv4Address("10.99.0.1"))
    assert only_relayed(packet).destination == IPv4Address("10.99.0.1")


def only_relayed(packet):
    settings = replace(SETTINGS, relayed=(Subnet(IPv4Network("10.99.0.0/24"), IPv4Address("10.99.0.1")),))
    policy = ProxyPolicy(settings, [DhcpBoard("b1", (MAC,), ADDRESS, "x")], boot_file_for=boot_file_for)
    sent = only(policy.handle(packet, "br0", 0.0))
    assert sent.to_relay
    return sent


@given(area=st.binary(max_size=60), vendor=st.sampled_from([PXE, HTTP, UBOOT, b"PXEClient:Arch:00000"]))
def test_no_vendor_options_break_it(area, vendor):
    policy = ProxyPolicy(SETTINGS, [DhcpBoard("b1", (MAC,), ADDRESS, "x")], boot_file_for=boot_file_for)
    packet = message(MessageType.REQUEST, vendor, ciaddr="10.77.0.11", extra=((43, area),))
    for port in (policy, policy.boot_server):
        for reply in port.handle(packet, "br0", 0.0).replies:
            assert parse(encode(reply.packet)).yiaddr == IPv4Address(0)
