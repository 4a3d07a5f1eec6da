"""UEFI and iPXE that boot by HTTP: DHCP gives them a URL."""

import subprocess

import pytest

from firmware_tools.debian_packages import AptView, cache_dir
from netboot import boot_loaders
from virtual_lab.boot_clients import Machine

PORT = 8069
GRUB_MODULES = "normal configfile linux echo test net efinet tftp http minicmd"
"""What docs/netboot.md says that GRUB has to be made of for UEFI's HTTP boot."""


def check_dhcp(client, number, boot_file):
    first = client.find("wire", packet="dhcp")[0]
    assert (first["type"], first["arch"]) == ("DISCOVER", number)
    assert first["vendor_class"].startswith(f"HTTPClient:Arch:{number:05}:")
    ack = client.find("wire", type="ACK")[0]
    assert (ack["vendor_class"], ack["boot_file"]) == ("HTTPClient", f"http://10.77.0.1:{PORT}/{boot_file}")


@pytest.fixture
def grub_with_http(tmp_path):
    """GRUB for UEFI x64 with HTTP, which Debian's signed one lacks; made once for ever of Debian's modules."""
    kept = cache_dir() / "grub-http-amd64.efi"
    if not kept.is_file():
        apt = AptView("amd64", cache_dir() / "apt-amd64")
        apt.update()
        (deb,) = apt.download(["grub-efi-amd64-bin"], tmp_path / "deb")
        subprocess.run(["dpkg-deb", "-x", deb, tmp_path / "root"], check=True, timeout=60)
        modules, made = tmp_path / "root/usr/lib/grub/x86_64-efi", kept.with_suffix(".part")
        subprocess.run(
            ["grub-mkimage", "-d", modules, "-O", "x86_64-efi", "-p", "/grub", "-o", made, *GRUB_MODULES.split()],
            check=True,
            timeout=60,
        )
        made.rename(kept)
    return kept


async def test_grub_to_userspace(power_on, boot_files, userspace, grub_with_http):
    files = boot_files(Machine.UEFI_X64)
    profile = {"family": "grub", "loaders": [("bootx64.efi", grub_with_http)]}
    client = await power_on(Machine.UEFI_X64, files, profile=profile, uefi_http=True, server={"http_port": PORT})
    booted = await userspace(client, "x86_64", files.version)
    check_dhcp(client, 16, "bootx64.efi")
    assert booted.sent == ["/bootx64.efi", "/grub/grub.cfg", "/kernel", "/initrd"]
    assert {event["via"] for event in client.find("FileSent")} == {"http"}
    assert client.find("FileRefused", missing=False) == []


async def test_ipxe_to_userspace(power_on, boot_files, userspace):
    files = boot_files(Machine.UEFI_X64)
    found = dict(boot_loaders.find("x86_64"))  # Debian's package ipxe
    profile = {"loaders": [("ipxe.efi", found["ipxe.efi"])]}
    client = await power_on(Machine.UEFI_X64, files, profile=profile, uefi_http=True, server={"http_port": PORT})
    booted = await userspace(client, "x86_64", files.version)
    check_dhcp(client, 16, "ipxe.efi")
    assert booted.sent[0] == "/ipxe.efi"
    assert [name.lstrip("/") for name in booted.sent[1:]] == ["boot.ipxe", "kernel", "initrd"]
    assert client.find("FileRefused", missing=False) == []


async def test_the_kernel_itself_by_its_efi_stub(power_on, boot_files):
    files = boot_files(Machine.UEFI_ARM64)
    profile = {"family": "efi-stub", "cmdline": "", "initrd": None}
    client = await power_on(Machine.UEFI_ARM64, files, profile=profile, uefi_http=True, server={"http_port": PORT})
    await client.event("kernel")
    check_dhcp(client, 19, "kernel")
    assert client.files() == ["/kernel"]
    assert client.find("FileSent")[0]["via"] == "http"
    assert client.find("FileSent")[0]["size_bytes"] == files.kernel.stat().st_size
    assert client.find("wire", packet="rrq") == []


async def test_ipxe_from_its_rom_to_userspace(power_on, boot_files, userspace):
    """DHCP names iPXE a URL where HTTP is on, and so everything that the script names comes by HTTP too."""
    files = boot_files(Machine.IPXE_X86)
    client = await power_on(Machine.IPXE_X86, files, server={"http_port": PORT})
    booted = await userspace(client, "x86_64", files.version)
    assert client.find("wire", type="ACK")[0]["boot_file"] == f"http://10.77.0.1:{PORT}/boot.ipxe"
    assert booted.sent == ["/boot.ipxe", "/kernel", "/initrd"]
    assert {event["via"] for event in client.find("FileSent")} == {"http"}
    assert client.find("wire", packet="rrq") == []
    assert client.find("FileRefused") == []
