"""UEFI that boots by HTTP: DHCP gives it a URL."""

from netboot import boot_loaders
from virtual_lab.boot_clients import Machine

PORT = 8069


def check_dhcp(client, number, boot_file):
    first = client.find("wire", packet="dhcp")[0]
    assert (first["type"], first["arch"]) == ("DISCOVER", number)
    assert first["vendor_class"].startswith(f"HTTPClient:Arch:{number:05}:")
    ack = client.find("wire", type="ACK")[0]
    assert (ack["vendor_class"], ack["boot_file"]) == ("HTTPClient", f"http://10.77.0.1:{PORT}/{boot_file}")


async def test_ipxe_to_userspace(power_on, boot_files, userspace):
    """Not GRUB: Debian's (2.06) does not find the network again that it was loaded over, and stops at its prompt."""
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
