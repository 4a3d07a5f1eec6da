"""What the admin of another DHCP server is told, taken by that very server: Debian's dnsmasq answers our raw clients as
our own server would. The lines for dhcpd are compared as text; they were run once on dhcpd 4.4.3 with these clients."""

import subprocess
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from netboot.dhcp_advice import AdviceSyntax, advice
from netboot.dhcp_options import ClientKind
from netboot.dhcp_packet import MessageType, Option
from netboot.dhcp_settings import DhcpBoard
from tests.netboot.dhcp_lab import BOARD, MAC, OURS, Lab

SECOND = "52:54:00:77:00:02"
BOARDS = [replace(BOARD, macs=(MAC, SECOND)), DhcpBoard("nomac", (), IPv4Address("10.77.0.12"), "x")]
PI = DhcpBoard("pi", ("dc:a6:32:00:00:01",), IPv4Address("10.77.0.13"), "x")
NAMES = {
    ClientKind.UBOOT: "boot.scr.uimg",
    ClientKind.IPXE: "boot.ipxe",
    ClientKind.PXE_BIOS: "undionly.kpxe",
    ClientKind.UEFI_X64: "ipxe.efi",
    ClientKind.UEFI_ARM64: "grubaa64.efi",
    ClientKind.HTTP_X64: "http://10.77.0.1:8069/ipxe.efi",
    ClientKind.OTHER: "other.img",
}


def boot_file_for(board, kind):
    if board == "pi":
        return "bootcode.bin" if kind is ClientKind.RASPBERRY_PI else None
    return NAMES.get(kind)


CLIENTS = {
    "U-Boot": (((60, b"U-Boot.armv8"), (93, b"\0\x0b")), "boot.scr.uimg"),
    "iPXE on a BIOS": (
        ((60, b"PXEClient:Arch:00000:UNDI:002001"), (93, b"\0\0"), (77, b"iPXE"), (175, b"\xb1\x01\x01")),
        "boot.ipxe",
    ),
    "iPXE on UEFI": (
        ((60, b"PXEClient:Arch:00007:UNDI:003010"), (93, b"\0\7"), (77, b"iPXE"), (175, b"\xb1\x01\x01")),
        "boot.ipxe",
    ),
    "a BIOS": (((60, b"PXEClient:Arch:00000:UNDI:002001"), (93, b"\0\0")), "undionly.kpxe"),
    "UEFI x64": (((60, b"PXEClient:Arch:00007:UNDI:003016"), (93, b"\0\7")), "ipxe.efi"),
    "UEFI x64, the other number": (((60, b"PXEClient:Arch:00009:UNDI:003016"), (93, b"\0\x09")), "ipxe.efi"),
    "UEFI arm64": (((60, b"PXEClient:Arch:00011:UNDI:003016"), (93, b"\0\x0b")), "grubaa64.efi"),
    "HTTP": (((60, b"HTTPClient:Arch:00016:UNDI:003001"), (93, b"\0\x10")), "http://10.77.0.1:8069/ipxe.efi"),
    "an operating system": (((60, b"udhcp 1.35"),), "other.img"),
}


@pytest.fixture
async def lab():
    lab = Lab()
    try:
        lab.build()
        await lab.ready()
        yield lab
    finally:
        await lab.close()


def written(tmp_path, syntax, boards=BOARDS):
    file = tmp_path / "advice.conf"
    file.write_text("\n".join(advice(syntax, boards, boot_file_for, OURS)) + "\n")
    return file


async def ask_as_each(lab):
    """What each kind of client hears: boot file, address of the file server, vendor class."""
    client, heard = lab.client(), {}
    for xid, (name, (options, _)) in enumerate(CLIENTS.items(), start=100):
        client.ask(MessageType.DISCOVER, xid=xid, options=(*options, (55, bytes((1, 3, 43, 60, 66, 67)))))
        offer = await client.answer(xid=xid)
        assert offer.yiaddr == BOARD.address
        assert offer.text_option(Option.HOST_NAME) in {"b1", ""}
        by_option = (offer.option(Option.BOOT_FILE) or b"").rstrip(b"\0").decode()
        heard[name] = by_option or offer.file.decode()
        if "http" not in heard[name]:
            assert offer.siaddr == OURS
        else:
            assert offer.option(Option.VENDOR_CLASS) == b"HTTPClient"
    return heard


async def test_dnsmasq_says_what_we_would(lab, tmp_path):
    file = written(tmp_path, AdviceSyntax.DNSMASQ, [*BOARDS, PI])
    checked = subprocess.run(["dnsmasq", "--test", "-C", file], capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr
    await lab.dnsmasq("--dhcp-range=10.77.0.150,10.77.0.160,1h", f"--conf-file={file}")
    assert await ask_as_each(lab) == {name: wanted for name, (_, wanted) in CLIENTS.items()}
    client = lab.client()
    rom = ((60, b"PXEClient:Arch:00000:UNDI:002001"), (93, b"\0\0"), (55, bytes((1, 3, 43, 60, 66, 67))))
    client.ask(MessageType.DISCOVER, PI.macs[0], xid=7, options=rom)
    offer = await client.answer()
    assert offer.yiaddr == PI.address
    assert offer.option(Option.VENDOR_SPECIFIC) == b"Raspberry Pi Boot"
    assert (offer.option(60), offer.text_option(66)) == (b"PXEClient", "10.77.0.1")


def test_isc_text():
    lines = advice(AdviceSyntax.ISC, [*BOARDS, PI], boot_file_for, OURS)
    text = "\n".join(lines)
    assert text.count("{") == text.count("}")
    assert lines[1] == "option bh-arch code 93 = unsigned integer 16;"
    assert [line for line in lines if line.startswith("host ")] == ["host b1 {", "host b1-mac2 {", "host pi {"]
    assert text.count("fixed-address 10.77.0.11;") == 2
    assert '  elsif option bh-arch = 00:07 or option bh-arch = 00:09 { filename "ipxe.efi"; }' in lines
    assert '  else { filename "other.img"; }' in lines
    assert 'option vendor-encapsulated-options "Raspberry Pi Boot";' in text
    assert "# nomac: its MAC address is not known, so no other server can know it" in lines
