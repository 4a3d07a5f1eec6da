"""iPXE is named a URL where HTTP is on, unless it says that it cannot fetch by it."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from netboot.boot_files import boot_file_for
from netboot.dhcp_options import ClientKind, boot_answer, client_kind, named_to
from netboot.dhcp_packet import DhcpPacket, MessageType, Op, Option
from netboot.profile import BootProfile

SERVER = IPv4Address("10.77.0.1")
ROM = bytes.fromhex("b105018086100e eb03010000 170101 220101 130101 110101 270101 190101 100102 210101 150101 120101")
"""As a ROM says it: card, version, and what it can."""
WITHOUT = ROM.replace(bytes.fromhex("130101"), b"")


def packet(features):
    options = {Option.MESSAGE_TYPE: bytes((MessageType.DISCOVER,)), Option.USER_CLASS: b"iPXE"}
    options[Option.VENDOR_CLASS] = b"PXEClient:Arch:00000:UNDI:002001"
    if features is not None:
        options[Option.IPXE] = features
    return DhcpPacket(
        op=Op.REQUEST, xid=1, chaddr=bytes.fromhex("525400770001"),
        options=tuple((int(code), value) for code, value in options.items()),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        (ROM, ClientKind.IPXE),
        (WITHOUT, ClientKind.IPXE_TFTP),
        (None, ClientKind.IPXE),
        (b"", ClientKind.IPXE),
        (b"\x13", ClientKind.IPXE_TFTP),  # cut short
        (b"\x17\x02\x13\x01", ClientKind.IPXE_TFTP),  # a value, and no tag
        (b"\x17\xff\x13\x01\x01", ClientKind.IPXE_TFTP),
        (b"\x13\x01\x01", ClientKind.IPXE),
    ],
)
def test_what_it_says_of_itself(features, kind):
    assert client_kind(packet(features)) is kind


@pytest.mark.parametrize(
    ("kind", "name", "port", "named"),
    [
        (ClientKind.IPXE, "boot.ipxe", 8069, "http://10.77.0.1:8069/boot.ipxe"),
        (ClientKind.IPXE, "boot.ipxe", None, "boot.ipxe"),
        (ClientKind.IPXE, "bootx64.efi", 8069, "bootx64.efi"),  # GRUB would look for the rest by TFTP
        (ClientKind.IPXE_TFTP, "boot.ipxe", 8069, "boot.ipxe"),
        (ClientKind.UEFI_X64, "ipxe.efi", 8069, "ipxe.efi"),
        (ClientKind.HTTP_X64, "ipxe.efi", 8069, "http://10.77.0.1:8069/ipxe.efi"),
        (ClientKind.HTTP_X64, "ipxe.efi", None, None),
        (ClientKind.IPXE, None, 8069, None),
    ],
)
def test_what_it_is_named(kind, name, port, named):
    assert named_to(kind, name, SERVER, port) == named


@pytest.mark.parametrize("family", ["auto", "ipxe"])
def test_both_kinds_get_the_script(family):
    profile = BootProfile("p", "x86_64", Path("/k"), None, None, "", family=family)
    for kind in (ClientKind.IPXE, ClientKind.IPXE_TFTP):
        assert boot_file_for(profile, kind) == "boot.ipxe"
        assert any(code == Option.IPXE for code, _ in boot_answer(kind, "boot.ipxe", SERVER).options)
