"""UEFI of PCs and of arm64 servers (EDK2's, as Debian ships it), by PXE, with GRUB and without."""

import re

import pytest

from firmware_tools.debian_packages import cache_dir, fetch_grub
from virtual_lab.boot_clients import KINDS, Machine

UEFI = [
    pytest.param(Machine.UEFI_X64, "x86_64", "bootx64.efi", 7, id="x64"),
    pytest.param(Machine.UEFI_ARM64, "aarch64", "bootaa64.efi", 11, id="arm64"),
]


def check_dhcp(client, number, boot_file):
    first = client.find("wire", packet="dhcp")[0]
    assert (first["type"], first["arch"], first["broadcast"]) == ("DISCOVER", number, True)
    ack = client.find("wire", type="ACK")[0]
    assert (ack["to"], ack["boot_file"]) == ("255.255.255.255", boot_file)
    assert re.fullmatch(rf"PXEClient:Arch:{number:05}:UNDI:\d{{6}}", first["vendor_class"])


@pytest.mark.parametrize(("machine", "arch", "program", "number"), UEFI)
async def test_grub_to_userspace(power_on, boot_files, userspace, machine, arch, program, number):
    files = boot_files(machine)
    grub = fetch_grub(KINDS[machine].arch, cache_dir())
    client = await power_on(machine, files, profile={"loaders": [(program, grub)]})
    booted = await userspace(client, arch, files.version)
    check_dhcp(client, number, program)
    # The firmware aborts a first request, which only asks for the size; GRUB asks for much that is not there.
    probe, load = client.find("wire", packet="rrq")[:2]
    assert probe["path"] == load["path"] == program
    assert (probe["options"]["tsize"], load["options"]["windowsize"]) == ("0", "4")
    assert booted.sent == [program, "/grub/grub.cfg", "/kernel", "/initrd"]
    assert "BOOT_IMAGE=/kernel" in booted.cmdline
    assert [refused["path"] for refused in client.find("FileRefused", missing=False)] == []


async def test_the_kernel_itself_by_its_efi_stub(power_on, boot_files):
    """Without a boot program, and so without a command line or an initrd: far enough to see that it runs."""
    files = boot_files(Machine.UEFI_ARM64)
    profile = {"family": "efi-stub", "cmdline": "", "initrd": None}
    client = await power_on(Machine.UEFI_ARM64, files, profile=profile)
    await client.event("kernel")
    check_dhcp(client, 11, "kernel")
    assert client.files() == ["kernel"]
    sent = client.find("FileSent")[0]
    assert sent["size_bytes"] == files.kernel.stat().st_size
