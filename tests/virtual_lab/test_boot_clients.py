"""Machines that boot from the network: what QEMU is told, and the cable that loses frames. The boots themselves are in
tests/netboot_clients."""

import json
import socket
import struct

import pytest

from firmware_tools.debian_packages import PackageError
from virtual_lab import (
    boot_client_files,
    boot_clients,
    boot_clients_inside,
    boot_witness,
    frame_pump,
    tiny_kernel,
    uboot_environment,
)
from virtual_lab.boot_clients import KINDS, ClientSpec, Machine
from virtual_lab.lab_tools import MissingToolError
from virtual_lab.network import Cable, CableKind

MAC = "52:54:00:77:00:01"
UUID = "6c8f6a0e-6d2b-4a53-9d3f-2b1f4a1f0b77"
CABLE = Cable(CableKind.TAP, "tap0", 7)


@pytest.mark.parametrize("machine", Machine)
def test_every_machine_has_a_card_a_console_and_one_processor(machine, tmp_path):
    command = boot_clients.command(ClientSpec(machine, MAC, UUID, tmp_path), CABLE)
    text = " ".join(command)
    assert command[0] == KINDS[machine].qemu
    assert "-smp 1" in text and "-serial stdio" in text and "-no-reboot" in text
    assert f"tap,id=n0,fd=7 -device virtio-net-pci,netdev=n0,mac={MAC}" in text
    # Only iPXE lives in the card's ROM, and only it finds a card of before virtio 1.0.
    assert ("romfile=" in text) is (machine is not Machine.IPXE_X86)
    assert ("variables.fd" in text) is machine.startswith("uefi")


def test_http_is_what_uefi_has_left_without_pxe(tmp_path):
    command = boot_clients.command(ClientSpec(Machine.UEFI_X64, MAC, UUID, tmp_path, uefi_http=True), CABLE)
    assert "name=opt/org.tianocore/IPv4PXESupport,string=n" in command


def test_a_folder_with_a_comma_is_one_folder(tmp_path):
    spec = ClientSpec(Machine.UBOOT_ARM64, MAC, UUID, tmp_path / "a,b", {"bootcmd": "dhcp"})
    assert f"file={tmp_path}/a,,b/environment.img" in " ".join(boot_clients.command(spec, CABLE))


def test_a_firmware_that_is_not_there_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert boot_clients.missing_packages((Machine.IPXE_X86,)) == "qemu-system-x86 ipxe-qemu"
    with pytest.raises(MissingToolError, match=r"apt-get install .* qemu-system-arm u-boot-qemu"):
        boot_clients.prepare(ClientSpec(Machine.UBOOT_ARM, MAC, UUID, tmp_path))


def test_the_environment_is_in_flash(monkeypatch, tmp_path):
    monkeypatch.setattr(boot_clients, "missing_packages", lambda _: "")
    boot_clients.prepare(ClientSpec(Machine.UBOOT_ARM64, MAC, UUID, tmp_path, {"bootcmd": "dhcp"}))
    flash = tmp_path / "environment.img"
    assert flash.stat().st_size == uboot_environment.FLASH_BYTES
    assert flash.read_bytes()[4:].startswith(b"bootcmd=dhcp\0\0")


def test_the_plan_becomes_a_profile(tmp_path):
    plan = {"machine": "uboot-arm", "folder": str(tmp_path), "profile": {"name": "x", "arch": "arm"}}
    plan["profile"] |= {"kernel": "/k", "initrd": "/i", "dtb": None, "uboot_env": [["tftptimeout", "1000"]]}
    read = boot_clients_inside.read_plan(json.dumps(plan))
    profile = read.boot_profile()
    assert (str(profile.kernel), str(profile.initrd), profile.dtb) == ("/k", "/i", None)
    assert profile.uboot_env == (("tftptimeout", "1000"),)
    with pytest.raises(ValueError, match="toaster"):
        boot_clients_inside.read_plan(json.dumps({**plan, "machine": "toaster"}))


def test_the_tiny_kernel_has_the_header_that_booti_looks_for():
    image = tiny_kernel.image(8192)
    branch, text_offset, size = struct.unpack_from("<I4xQQ", image)
    assert len(image) == size == 8192
    assert (branch & 0xFC000000, text_offset, image[56:60]) == (0x14000000, 0, b"ARM\x64")
    assert tiny_kernel.MARKER.encode() in image
    with pytest.raises(ValueError, match="needs"):
        tiny_kernel.image(64)


def frames_through(losses):
    """How many of as many frames as there are `losses` pass."""
    left, left_far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    right, right_far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, left_far, right, right_far:
        passed = 0
        coming = iter(losses)
        for _ in losses:
            left.send(b"frame")
            left_far.setblocking(False)
            assert frame_pump.carry(left_far, right_far, lambda: next(coming)) == 1
            right.setblocking(False)
            try:
                passed += len(right.recv(64)) == 5
            except BlockingIOError:
                continue
        return passed


def test_a_bad_cable_loses_just_the_frames_that_it_is_told_to():
    assert frames_through([True, False, True, True, False]) == 2
    assert frames_through([False] * 5) == 5


def frame(port, payload, source="10.77.0.11", target="10.77.0.1"):
    udp = struct.pack("!HHHH", 2000, port, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    return bytes(12) + b"\x08\x00" + ip + socket.inet_aton(source) + socket.inet_aton(target) + udp + bytes(6)


def test_the_witness_reads_requests_and_what_was_granted():
    asked = boot_witness.understand(frame(69, b"\0\1boot.scr\0octet\0blksize\x001468\0windowsize\x004\0"))
    assert (asked["packet"], asked["path"], asked["from"]) == ("rrq", "boot.scr", "10.77.0.11")
    assert asked["options"] == {"blksize": "1468", "windowsize": "4"}
    granted = boot_witness.understand(frame(2000, b"\0\6blksize\x001468\0"))
    assert (granted["packet"], granted["options"]) == ("oack", {"blksize": "1468"})
    assert boot_witness.understand(frame(2000, b"\0\3\0\1data")) is None
    assert boot_witness.understand(b"short") is None


def test_the_witness_reads_dhcp():
    options = b"\x35\1\1" + b"\0" + b"\x5d\2\0\7" + b"\x3c\x09PXEClient" + b"\x43\4f.e\0" + b"\xff"
    message = bytes(10) + b"\x80\0" + bytes(96) + b"file".ljust(128, b"\0") + b"\x63\x82\x53\x63" + options
    seen = boot_witness.understand(frame(67, message))
    told = {key: seen[key] for key in ("packet", "type", "arch", "vendor_class", "broadcast", "file", "boot_file")}
    assert told == {
        "packet": "dhcp",
        "type": "DISCOVER",
        "arch": 7,
        "vendor_class": "PXEClient",
        "broadcast": True,
        "file": "file",
        "boot_file": "f.e",
    }


def test_fetching_asks_for_each_architecture_once_and_says_what_it_does(monkeypatch, capsys):
    asked = []

    def take(what):
        def fetch(arch, _cache, progress):
            progress(f"download {what} for {arch}", 0, 50_000_000)
            progress(f"download {what} for {arch}", 50_000_000, 50_000_000)
            asked.append((what, arch))

        return fetch

    for what in ("kernel", "busybox", "grub"):
        monkeypatch.setattr(boot_client_files.debian_packages, f"fetch_{what}", take(what))
    assert boot_client_files.main() == 0
    assert sorted(arch for what, arch in asked if what == "kernel") == ["amd64", "arm64", "armhf"]
    assert sorted(arch for what, arch in asked if what == "grub") == ["amd64", "arm64"]
    assert capsys.readouterr().out.splitlines().count(
        "boot files of the clients: download kernel for armhf (50 MB)"
    ) == 1  # fmt: skip


def test_fetching_that_fails_is_one_line(monkeypatch, capsys):
    def fail(*_):
        raise PackageError("no source has it")

    monkeypatch.setattr(boot_client_files.debian_packages, "fetch_kernel", fail)
    assert boot_client_files.main() == 1
    assert capsys.readouterr().err == "the boot files of the clients cannot be had: no source has it\n"
