"""A PC: iPXE from the ROM of its network card, as the BIOS starts it."""

import re

from virtual_lab.boot_clients import Machine


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
