"""Debian's U-Boot, 64 and 32 bits, from power on to userspace."""

import pytest

from virtual_lab.boot_clients import Machine
from virtual_lab.uboot_environment import netboot_environment

MAC_NAME = "01-52-54-00-77-00-01"


@pytest.mark.parametrize(
    ("machine", "arch", "vendor_class", "number"),
    [(Machine.UBOOT_ARM64, "aarch64", "U-Boot.armv8", 22), (Machine.UBOOT_ARM, "armv7l", "U-Boot.armv7", 21)],
)
async def test_the_built_in_environment_boots_by_our_script(
    power_on, boot_files, userspace, machine, arch, vendor_class, number
):
    files = boot_files(machine)
    client = await power_on(machine, files)
    booted = await userspace(client, arch, files.version)
    first = client.find("wire", packet="dhcp")[0]
    assert (first["type"], first["vendor_class"], first["arch"]) == ("DISCOVER", vendor_class, number)
    assert client.find("wire", type="ACK")[0]["boot_file"] == "boot.scr.uimg"
    # Asked for in this order; the UEFI names that Debian's environment tries as well never come up.
    assert [request["path"] for request in client.find("wire", packet="rrq")] == booted.sent
    kernel = "kernel.gz" if machine is Machine.UBOOT_ARM64 else "kernel"
    assert booted.sent == ["boot.scr.uimg", f"pxelinux.cfg/{MAC_NAME}", "initrd", kernel, "dtb"]
    sizes = {sent["path"]: sent["size_bytes"] for sent in client.find("FileSent")}
    assert (sizes[kernel], sizes["initrd"]) == (files.kernel.stat().st_size, files.initrd.stat().st_size)
    assert client.find("FileFailed") == []
    assert client.find("FileRefused", missing=False) == []


@pytest.mark.parametrize("folder", ["", "board1/"])
async def test_an_environment_of_its_own_boots_by_pxelinux(power_on, boot_files, userspace, folder):
    """The way without a script: U-Boot looks for PXELINUX's names, first of all for the machine's UUID."""
    files = boot_files(Machine.UBOOT_ARM64)
    uuid = "6c8f6a0e-6d2b-4a53-9d3f-2b1f4a1f0b77"
    environment = netboot_environment(uuid)
    if folder:
        environment["bootcmd_pxe"] = f"pci enum; dhcp; setenv bootfile {folder}pxelinux.0; pxe get && pxe boot"
    client = await power_on(Machine.UBOOT_ARM64, files, environment=environment)
    booted = await userspace(client, "aarch64", files.version)
    own = [f"{folder}{name}" for name in (f"pxelinux.cfg/{uuid}", "initrd", "kernel.gz", "dtb")]
    assert booted.sent == own
    # U-Boot sends the UUID's octets in the order of its text.
    assert client.find("wire", packet="dhcp")[0]["uuid"] == "00" + uuid.replace("-", "")
    assert client.find("FileRefused", missing=False) == []


async def test_windows_are_used_where_the_profile_asks_for_them(power_on, boot_files, userspace):
    files = boot_files(Machine.UBOOT_ARM64)
    profile = {"kernel": files.kernel.with_name("Image"), "uboot_env": [("tftpwindowsize", "8")]}
    client = await power_on(Machine.UBOOT_ARM64, files, profile=profile)
    booted = await userspace(client, "aarch64", files.version)
    assert "kernel" in booted.sent
    sent = client.find("FileSent", path="kernel")[0]
    assert sent["size_bytes"] > 30_000_000
    asked = client.find("wire", packet="rrq", path="kernel")[0]["options"]
    assert asked["windowsize"] == "8"
    granted = client.find("wire", packet="oack")[-2]["options"]  # the last one is the device tree's
    assert granted["windowsize"] == "8"
    assert granted["blksize"] == asked["blksize"] == "1468"
