"""Generated files: their text, and their images as mkimage reads them."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from netboot.boot_files import BootIdentity, command_line, ipxe_script, pxe_file, script_image, uboot_script
from netboot.profile import BootProfile

PROFILE = BootProfile(
    "debian",
    "arm64",
    Path("/img/vmlinuz.gz"),
    Path("/img/initrd"),
    Path("/img/virt.dtb"),
    "console=ttyAMA0 quiet",
)
IDENTITY = BootIdentity("desk", "10.77.0.1:1883", "boardhand", "board1", "ab" * 32)


def test_command_line():
    assert command_line(PROFILE, IDENTITY) == (
        "console=ttyAMA0 quiet boardhand.board=board1 boardhand.agent=desk boardhand.mqtt=10.77.0.1:1883 "
        "boardhand.prefix=boardhand boardhand.secret=" + "ab" * 32
    )
    joining = replace(IDENTITY, board=None, secret=None)
    assert command_line(replace(PROFILE, cmdline=""), joining) == (
        "boardhand.agent=desk boardhand.mqtt=10.77.0.1:1883 boardhand.prefix=boardhand"
    )


def test_pxe_file():
    assert pxe_file(PROFILE, IDENTITY).splitlines() == [
        "default boardhand",
        "prompt 0",
        "label boardhand",
        "  kernel kernel.gz",
        "  initrd initrd",
        "  fdt dtb",
        "  append " + command_line(PROFILE, IDENTITY),
    ]
    bare = replace(PROFILE, kernel=Path("/img/Image"), initrd=None, dtb=None)
    assert "  kernel kernel\n  append" in pxe_file(bare, IDENTITY)


def test_script():
    text = uboot_script(PROFILE)
    assert "setenv fdt_addr_r '0x4a000000'\n" in text
    assert "setenv kernel_comp_addr_r '0x4b000000'\nsetenv kernel_comp_size '0x2000000'\n" in text
    plain = uboot_script(replace(PROFILE, kernel=Path("/img/Image"), fdt_addr_r=None, uboot_env=(("a", "b c"),)))
    assert "kernel_comp" not in plain
    assert "fdt_addr_r" not in plain
    assert "setenv a 'b c'\n" in plain
    assert "boardhand.secret" not in text


def test_ipxe_script():
    text = ipxe_script(replace(PROFILE, arch="x86_64", kernel=Path("/img/vmlinuz")), IDENTITY)
    assert text.splitlines()[:2] == ["#!ipxe", "kernel kernel initrd=initrd " + command_line(PROFILE, IDENTITY)]
    assert text.splitlines()[2:] == ["initrd initrd", "boot"]


@pytest.mark.parametrize(("arch", "shown"), [("arm64", "AArch64"), ("arm", "ARM"), ("x86_64", "x86_64")])
def test_mkimage_reads_the_image(tmp_path, arch, shown):
    text = uboot_script(replace(PROFILE, arch=arch))
    image = tmp_path / "boot.scr.uimg"
    image.write_bytes(script_image(text, arch, "boardhand board1"))
    listed = subprocess.run(["mkimage", "-l", image], capture_output=True, text=True, check=True, timeout=30).stdout
    assert "Image Name:   boardhand board1" in listed
    assert f"{shown} Linux Script (uncompressed)" in listed
    assert f"Image 0: {len(text)} Bytes" in listed


def test_the_image_is_mkimages_own(tmp_path):
    """Octet for octet, apart from the time and the two checksums that depend on it."""
    (tmp_path / "cmd").write_text(uboot_script(PROFILE))
    command = ["mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-n", "boardhand", "-d", "cmd", "out"]
    environment = {"SOURCE_DATE_EPOCH": "0", "PATH": "/usr/bin:/bin", "TZ": "UTC"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=30)
    ours = script_image(uboot_script(PROFILE), "arm64", "boardhand")
    assert ours == (tmp_path / "out").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Bad Name"}, "name"),
        ({"arch": "mips"}, "arch"),
        ({"cmdline": "a\nb"}, "cmdline"),
        ({"cmdline": "x" * 1600}, "cmdline"),
        ({"arch": "arm", "cmdline": "x" * 800}, "cmdline"),
        ({"kernel": Path("vmlinuz")}, "absolute"),
        ({"initrd": Path("initrd")}, "absolute"),
        ({"fdt_addr_r": -1}, "fdt_addr_r"),
        ({"uboot_env": (("a b", "c"),)}, "uboot_env"),
        ({"uboot_env": (("a", "c'; reset"),)}, "uboot_env"),
    ],
)
def test_profiles_that_cannot_be_used(change, words):
    with pytest.raises(ValueError, match=words):
        replace(PROFILE, **change)
