"""Debian's U-Boot for riscv64, started by OpenSBI, up to a kernel that runs; Debian 12 has no Linux for it."""

import re

from virtual_lab import tiny_kernel, tiny_kernel_riscv64
from virtual_lab.boot_client_files import ClientFiles
from virtual_lab.boot_clients import Machine


async def test_uboot_starts_a_kernel(power_on, tmp_path):
    kernel, initrd = tmp_path / "Image", tmp_path / "initrd"
    kernel.write_bytes(tiny_kernel_riscv64.image())
    initrd.write_bytes(b"\0" * 5000)
    client = await power_on(Machine.UBOOT_RISCV64, ClientFiles(kernel, initrd, None, "tiny"))
    await client.says(tiny_kernel.MARKER)
    await client.event("off", code=0)
    assert client.find("wire", packet="dhcp")[0]["vendor_class"] == "U-Boot"
    names = ["boot.scr.uimg", "pxelinux.cfg/01-52-54-00-77-00-01", "initrd", "kernel"]
    assert client.files("FileRequested") == names
    assert re.search(r"boardhand\.secret=\S{16,}", client.text)
    assert client.find("FileRefused", missing=False) == []
