"""A PC: iPXE from the ROM of its network card, as the BIOS starts it."""

import asyncio
import re
import socket

import pytest

from netboot.dhcp_desk import DhcpMode
from netboot.dhcp_options import ClientKind
from tests.netboot.dhcp_lab import MAC, OURS, Lab, ip
from virtual_lab.boot_clients import Machine
from virtual_lab.namespace import inside

BOOT_DEADLINE_S = 150.0

IPV6_WAIT_S = 11.0
"""From the first DISCOVER to the first file; it is 0.1 s with an advertisement and 16 s without."""


async def test_ipxe_from_the_rom_to_userspace(power_on, boot_files, userspace):
    files = boot_files(Machine.IPXE_X86)
    client = await power_on(Machine.IPXE_X86, files)
    booted = await userspace(client, "x86_64", files.version)
    first = client.find("wire", packet="dhcp")[0]
    assert (first["type"], first["arch"], first["user_class"]) == ("DISCOVER", 0, "iPXE")
    assert client.find("wire", type="ACK")[0]["boot_file"] == "boot.ipxe"
    assert re.fullmatch(r"PXEClient:Arch:00000:UNDI:00\d{4}", first["vendor_class"])
    assert booted.sent == ["boot.ipxe", "kernel", "initrd"]
    assert "initrd=initrd" in booted.cmdline
    assert client.find("FileRefused") == []


async def test_a_router_advertisement_spares_ipxe_its_wait(power_on, boot_files, userspace):
    """iPXE sets up IPv6 beside IPv4, and waits 13 s for an advertisement before it goes on without."""
    files = boot_files(Machine.IPXE_X86)
    client = await power_on(Machine.IPXE_X86, files, server={"router_advertisements": True})
    booted = await userspace(client, "x86_64", files.version)
    assert booted.sent == ["boot.ipxe", "kernel", "initrd"]
    stats = await client.stats()
    assert stats["ra_answered"] >= 1
    asked = client.find("DhcpSeen", message_type="DISCOVER")[0]["at"]
    first = client.find("FileRequested", path="boot.ipxe")[0]["at"]
    assert first - asked < IPV6_WAIT_S, f"DHCP at {asked} s, its script at {first} s"


@pytest.fixture
async def lab():
    lab = Lab()
    try:
        lab.build()
        await lab.ready()
        yield lab
    finally:
        await lab.close()


async def test_ipxe_beside_another_dhcp_server(lab, tmp_path):
    """Its address from dnsmasq, its boot file from us. Needs root."""
    await lab.dnsmasq("--dhcp-range=10.77.0.150,10.77.0.160,1h", f"--dhcp-host={MAC},10.77.0.11")
    await lab.addresses_confirmed()
    names = {ClientKind.IPXE: "boot.ipxe"}
    lab.serve(mode=DhcpMode.PROXY, router_advertisements=True, boot_file_for=lambda _, kind: names.get(kind, "other"))
    with inside(lab.open["server"]):
        tftp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tftp.bind((str(OURS), 69))
    tftp.setblocking(False)
    lab.sockets.append(tftp)
    server = lab.names["server"]
    ip("-n", server, "tuntap", "add", "dev", "tap0", "mode", "tap")
    ip("-n", server, "link", "set", "tap0", "master", "br0", "up")
    await lab.run(
        "server", "qemu-system-x86_64", "-M", "pc", "-m", 128, "-display", "none", "-monitor", "none",
        "-serial", f"file:{tmp_path}/console", "-boot", "n",
        "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", f"virtio-net-pci,netdev=n0,mac={MAC}",
        stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(BOOT_DEADLINE_S):
        asked, client = await asyncio.get_running_loop().sock_recvfrom(tftp, 2048)
    assert asked.startswith(b"\0\1boot.ipxe\0")
    assert client[0] == "10.77.0.11"
    assert [(event.message_type, event.answer) for event in lab.events][:2] == [("DISCOVER", "OFFER"), ("REQUEST", "")]
