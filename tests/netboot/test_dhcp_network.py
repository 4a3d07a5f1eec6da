"""DHCP on a real segment, beside Debian's dnsmasq: as a proxy, watched, flooded, and over a restart. Needs root."""

import asyncio
import contextlib
import json
import socket
import struct
import sys
import time
from ipaddress import IPv4Address

import pytest

from netboot.dhcp_desk import DhcpMode
from netboot.dhcp_events import AddressConflict, ClientTooFast, DuplicateMac, OtherAddress, RogueDhcpServer
from netboot.dhcp_packet import MessageType, Option
from tests.netboot.dhcp_lab import MAC, OTHERS, OURS, PXE, STRANGER, Lab, ip, message
from virtual_lab.namespace import inside

POOL_OF_THE_OTHER = "--dhcp-range=10.77.0.150,10.77.0.160,1h"
NONE = IPv4Address(0)


@pytest.fixture
async def lab():
    lab = Lab()
    try:
        lab.build()
        await lab.ready()
        yield lab
    finally:
        await lab.close()


async def test_a_proxy_says_what_to_boot_and_the_other_server_where_to_live(lab):
    await lab.dnsmasq(POOL_OF_THE_OTHER, f"--dhcp-host={MAC},10.77.0.11")
    lab.serve(mode=DhcpMode.PROXY, watch_segment=True)
    client = lab.client()
    client.ask(MessageType.DISCOVER, options=((60, PXE),))
    offers = {sender[0]: packet for sender, packet in await client.answers(2)}
    assert offers[str(OTHERS)].yiaddr == IPv4Address("10.77.0.11")
    ours = offers[str(OURS)]
    assert (ours.yiaddr, ours.siaddr, ours.file) == (NONE, OURS, b"b1-uefi-x64.efi")
    assert ours.option(Option.VENDOR_CLASS) == b"PXEClient"
    taken = ((60, PXE), (50, IPv4Address("10.77.0.11").packed), (54, OTHERS.packed))
    client.ask(MessageType.REQUEST, options=taken)
    ((sender, ack),) = await client.answers(1)
    assert (sender[0], ack.message_type, ack.yiaddr) == (str(OTHERS), MessageType.ACK, IPv4Address("10.77.0.11"))
    event = await lab.told(lab.events, lambda event: event.message_type == "REQUEST")
    assert (event.board, event.address, event.answer) == ("b1", "10.77.0.11", "")
    # PXE firmware asks again at port 4011, with its address by now.
    client.ask(MessageType.REQUEST, xid=8, options=((60, PXE),), to=(str(OURS), 4011), ciaddr="10.77.0.250")
    ((sender, boot),) = await client.answers(1, xid=8)
    assert (sender, boot.file, boot.yiaddr) == ((str(OURS), 4011), b"b1-uefi-x64.efi", NONE)
    assert lab.alerts == []


async def test_a_proxy_leaves_all_others_alone(lab):
    await lab.dnsmasq(POOL_OF_THE_OTHER)
    lab.serve(mode=DhcpMode.PROXY)
    client = lab.client()
    for xid, (mac, vendor) in enumerate([(MAC, b"U-Boot.armv8"), (MAC, b"udhcp 1.35"), (STRANGER, PXE)], start=20):
        client.ask(MessageType.DISCOVER, mac, xid=xid, options=((60, vendor),))
        ((sender, offer),) = await client.answers(1, xid=xid)
        assert sender[0] == str(OTHERS)
        assert offer.yiaddr >= IPv4Address("10.77.0.150")
    # After these our own answer to a PXE client is the first of ours.
    client.ask(MessageType.DISCOVER, xid=30, options=((60, PXE),))
    assert {sender[0] for sender, _ in await client.answers(2, xid=30)} == {str(OURS), str(OTHERS)}
    assert [event.answer for event in lab.events] == ["", "", "OFFER"]


async def test_an_address_that_the_settings_do_not_know_is_an_alert(lab):
    await lab.dnsmasq(POOL_OF_THE_OTHER)
    lab.serve(mode=DhcpMode.PROXY, watch_segment=True)
    ack = await lab.client().lease(MAC, options=((60, b"udhcp"),))
    alert = await lab.told(lab.alerts, lambda event: isinstance(event, OtherAddress))
    assert (alert.board, alert.address, alert.expected) == ("b1", str(ack.yiaddr), "10.77.0.11")


async def test_off_is_silent(lab):
    await lab.dnsmasq(POOL_OF_THE_OTHER)
    lab.serve(mode=DhcpMode.OFF, watch_segment=True, router_advertisements=True)
    ((sender, _),) = await ask_and_wait(lab.client())
    assert sender[0] == str(OTHERS)
    assert lab.alerts == lab.events == []


async def ask_and_wait(client):
    client.ask(MessageType.DISCOVER, options=((60, PXE),))
    return await client.answers(1)


async def test_a_foreign_server_is_found_before_it_harms_a_board(lab):
    """Nobody asks for an address here but our own probe."""
    lab.serve(watch_segment=True)
    await lab.dnsmasq(POOL_OF_THE_OTHER)
    alert = await lab.told(lab.alerts, lambda event: isinstance(event, RogueDhcpServer))
    assert alert == RogueDhcpServer("br0", str(OTHERS), lab.mac_of("other"))
    assert lab.events == []  # our own server does not take the probe for a client


async def test_two_machines_with_one_mac_and_a_taken_address_are_alerts(lab):
    lab.serve(watch_segment=True)
    client = lab.client()
    for xid, name in enumerate([b"\xffone", b"\xfftwo", b"\xffone"], start=40):
        await client.lease(MAC, xid=xid, options=((60, b"udhcp"), (61, name)))
    alert = await lab.told(lab.alerts, lambda event: isinstance(event, DuplicateMac))
    assert (alert.mac, alert.board) == (MAC, "b1")
    with inside(lab.open["client"]):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sock.bind(("v0", 0))
    lab.sockets.append(sock)
    thief = bytes.fromhex(STRANGER.replace(":", ""))
    taken = IPv4Address("10.77.0.11").packed
    claim = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, thief, taken, bytes(6), taken)
    sock.send(b"\xff" * 6 + thief + b"\x08\x06" + claim.ljust(46, b"\0"))
    alert = await lab.told(lab.alerts, lambda event: isinstance(event, AddressConflict))
    assert (alert.board, alert.address, alert.mac, alert.owner) == ("b1", "10.77.0.11", STRANGER, MAC)


async def test_an_address_in_use_is_not_given_twice(lab):
    """Somebody sits on the stranger's pool address without asking: it hears a NAK and gets another one."""
    desk = lab.serve(watch_segment=True)
    desk.joining_open = True
    client = lab.client()
    client.ask(MessageType.DISCOVER, STRANGER, xid=1)
    offered = (await client.answer(xid=1)).yiaddr
    client.ask(MessageType.RELEASE, STRANGER, xid=2, ciaddr=str(offered))
    ip("-n", lab.names["other"], "addr", "add", f"{offered}/24", "dev", "v0")
    client.ask(MessageType.DISCOVER, STRANGER, xid=3)  # as it is offered, we ask by ARP who has it
    assert (await client.answer(xid=3)).yiaddr == offered
    await lab.told(lab.alerts, lambda event: isinstance(event, AddressConflict) and event.address == str(offered))
    client.ask(MessageType.REQUEST, STRANGER, xid=3, options=((50, offered.packed), (54, OURS.packed)))
    assert (await client.answer(xid=3)).message_type is MessageType.NAK
    assert (await client.lease(STRANGER, xid=4)).yiaddr != offered


async def test_a_lease_is_confirmed_when_it_is_stored_and_outlives_a_restart(lab):
    stored, go_on = [], asyncio.Event()

    async def save(state):
        await go_on.wait()
        stored.append(json.dumps(state))

    lab.closing.append(go_on.set)
    desk = lab.serve(save=save)
    desk.joining_open = True
    client = lab.client()
    client.ask(MessageType.DISCOVER, STRANGER)
    offer = await client.answer()
    client.ask(MessageType.REQUEST, STRANGER, options=((50, offer.yiaddr.packed), (54, OURS.packed)))
    await lab.told(lab.events, lambda event: event.answer == "ACK")
    board = await client.lease(MAC, xid=9)  # known boards wait for no disk
    assert board.yiaddr == IPv4Address("10.77.0.11")
    assert stored == []
    go_on.set()
    assert (await client.answer()).message_type is MessageType.ACK
    desk._stop_serving()  # and no word to the store, as a kill
    again = lab.serve(leases=json.loads(stored[-1]))
    again.joining_open = True
    assert again.pool_mac(offer.yiaddr) == STRANGER
    # Another client wants that very address.
    client.ask(MessageType.DISCOVER, "52:54:00:99:00:02", xid=11, options=((50, offer.yiaddr.packed),))
    assert (await client.answer(xid=11)).yiaddr != offer.yiaddr
    assert (await client.lease(STRANGER, xid=12)).yiaddr == offer.yiaddr


async def test_leases_that_cannot_be_read_keep_nobody_from_booting(lab, caplog):
    lab.serve(leases={"version": 99})
    assert "cannot be read" in caplog.text
    assert (await lab.client().lease(MAC)).yiaddr == IPv4Address("10.77.0.11")


FLOOD_PER_S, FLOOD_S = 10_000, 2.0
SOON_S = 1.0
"""For DISCOVER to ACK beside a flood, on a busy build server; without one it is 2 ms. What the kernel drops because the
socket is full comes again, as from every boot program."""
FLOOD = """
import socket, sys, time
data, per_s, for_s = bytes.fromhex(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v0\\0")
begun, count = time.monotonic(), 0
while (passed := time.monotonic() - begun) < for_s:
    if count < passed * per_s:
        sock.sendto(data, ("255.255.255.255", 67))
        count += 1
print(count)
"""


async def test_a_client_in_a_loop_keeps_no_other_from_its_address(lab):
    desk = lab.serve(watch_segment=True)
    client = lab.client(place="other")
    data = message(MessageType.DISCOVER, STRANGER, xid=1)
    words = (sys.executable, "-S", "-E", "-c", FLOOD, data.hex(), FLOOD_PER_S, FLOOD_S)
    flooder = await lab.run("client", *words, stdout=asyncio.subprocess.PIPE)
    await lab.told(lab.alerts, lambda event: event == ClientTooFast("br0", STRANGER))
    took = []
    while flooder.returncode is None:
        begun = time.monotonic()
        await client.lease(MAC, xid=len(took) + 100, again_s=0.5)
        took.append(time.monotonic() - begun)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.25):  # as often as a boot program may
                await flooder.wait()
    sent = int(await flooder.stdout.read())
    assert sent > FLOOD_PER_S / 4
    assert min(took) < SOON_S, "of several, as any one may be held up by the machine"
    assert [alert for alert in lab.alerts if isinstance(alert, ClientTooFast)] == [ClientTooFast("br0", STRANGER)]
    assert desk.counters["dhcp_too_fast"] > 100, "a socket that is full drops the others"


async def test_an_answer_that_would_be_too_long_is_counted_and_the_next_is_given(lab):
    """A client id comes back to its client, RFC 6842: one that fills a frame does not fit the answer."""
    desk = lab.serve()
    client = lab.client()
    client.ask(MessageType.DISCOVER, xid=1, options=((61, b"x" * 1230),))
    assert (await client.lease(MAC, xid=2)).yiaddr == IPv4Address("10.77.0.11")
    assert desk.counters["dhcp_unwritable"] == 1


async def test_a_host_hears_that_nobody_routes_here(lab):
    """ndisc6's rdisc6 as the foreign client, and the kernel: no route and no address comes of it."""
    await lab.addresses_confirmed()
    desk = lab.serve(router_advertisements=True)
    process = await lab.run(
        "client", "rdisc6", "-1", "-r", "10", "-w", "1000", "v0", stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(25):
        said = (await process.stdout.read()).decode()
        assert await process.wait() == 0, said
    assert "Stateful address conf.    :           No" in said
    assert "Router lifetime           :            0" in said
    assert "Prefix" not in said
    assert lab.mac_of("server", "br0").upper() in said
    route = await lab.run("client", "ip", "-6", "route", "show", "default", stdout=asyncio.subprocess.PIPE)
    assert (await route.stdout.read()) == b""
    await route.wait()
    assert desk.counters["ra_answered"] >= 1


async def test_without_the_right_to_raw_sockets_the_log_says_so_and_boards_boot(lab, caplog, monkeypatch):
    real = socket.socket

    def refused(family=-1, kind=-1, *more, **named):
        if kind & socket.SOCK_RAW == socket.SOCK_RAW:
            raise PermissionError(1, "Operation not permitted")
        return real(family, kind, *more, **named)

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", refused)
        lab.serve(router_advertisements=True, watch_segment=True)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert all("CAP_NET_RAW" in text and "br0" in text for text in warnings)
    assert (await lab.client().lease(MAC)).yiaddr == IPv4Address("10.77.0.11")
