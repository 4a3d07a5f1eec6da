"""Generated files: their text, and their images as mkimage reads them."""

import shlex
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.boot_files import (
    BootIdentity,
    boot_file_for,
    command_line,
    content,
    grub_config,
    ipxe_script,
    pxe_file,
    script_image,
    uboot_script,
)
from netboot.boot_raspberry import config_txt
from netboot.boot_templates import parse
from netboot.boot_tree import GeneratedFile, TreeClient
from netboot.dhcp_options import ClientKind
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
    for line in (
        "test -n \"${fdt_addr_r}\" || setenv fdt_addr_r '0x4a000000'",  # the board's own wins
        "test -n \"${kernel_comp_addr_r}\" || setenv kernel_comp_addr_r '0x4b000000'",
        "test -n \"${kernel_comp_size}\" || setenv kernel_comp_size '0x2000000'",
        "setenv bootfile 'boot.scr.uimg'",
        "test -n \"${tftptimeout}\" || setenv tftptimeout '1000'",
        "for try in 1 2 3 4 5; do if pxe get; then pxe boot; fi; sleep 2; done",
    ):
        assert line in text.splitlines()
    plain = uboot_script(replace(PROFILE, kernel=Path("/img/Image"), fdt_addr_r=0x88000000, uboot_env=(("a", "b c"),)))
    assert "kernel_comp" not in plain
    assert "setenv fdt_addr_r '0x88000000'\n" in plain
    assert "fdtoverlay" not in plain
    assert "setenv a 'b c'\n" in plain
    assert "boardhand.secret" not in text
    riscv = uboot_script(replace(PROFILE, arch="riscv64"))
    assert "|| setenv kernel_comp_addr_r '0x88000000'" in riscv


def test_script_merges_overlays():
    lines = uboot_script(replace(PROFILE, overlays=(Path("/img/can.dtbo"), Path("/img/spi.dtb")))).splitlines()
    merge = next(line for line in lines if line.startswith("setenv boardhand_fdt "))
    assert merge == (
        "setenv boardhand_fdt 'setenv boardhand_merged; tftpboot ${fdt_addr_r} dtb && fdt addr ${fdt_addr_r} && "
        "fdt resize 0x10000 && tftpboot ${fdtoverlay_addr_r} overlays/can.dtbo && fdt apply ${fdtoverlay_addr_r} && "
        "tftpboot ${fdtoverlay_addr_r} overlays/spi.dtbo && fdt apply ${fdtoverlay_addr_r} && "
        "setenv boardhand_merged ${fdt_addr_r}'"
    )
    assert any(line.startswith('test -n "${fdtoverlay_addr_r}" || ') for line in lines)
    assert lines[-1].index("run boardhand_fdt") < lines[-1].index("setenv fdt_addr ") < lines[-1].index("pxe boot")
    own = uboot_script(replace(PROFILE, dtb=None, overlays=(Path("/img/can.dtbo"),)))
    assert "fdt addr ${fdtcontroladdr} && fdt move ${fdtcontroladdr} ${fdt_addr_r} && fdt addr" in own
    pxe = pxe_file(replace(PROFILE, overlays=(Path("/img/can.dtbo"), Path("/img/spi.dtb"))), IDENTITY)
    assert "  fdt dtb\n  fdtoverlays overlays/can.dtbo overlays/spi.dtbo\n" in pxe


def test_ipxe_script():
    text = ipxe_script(replace(PROFILE, arch="x86_64", kernel=Path("/img/vmlinuz")), IDENTITY)
    assert text.splitlines()[:2] == ["#!ipxe", "kernel kernel initrd=initrd " + command_line(PROFILE, IDENTITY)]
    assert text.splitlines()[2:] == ["initrd initrd", "boot"]


@pytest.mark.parametrize(
    ("arch", "shown"), [("arm64", "AArch64"), ("arm", "ARM"), ("x86_64", "x86_64"), ("riscv64", "RISC-V")]
)
def test_mkimage_reads_the_image(tmp_path, arch, shown):
    text = uboot_script(replace(PROFILE, arch=arch, kernel=Path("/img/zImage")))
    image = tmp_path / "boot.scr.uimg"
    image.write_bytes(script_image(text, arch, "boardhand board1"))
    listed = subprocess.run(["mkimage", "-l", image], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Image Name:   boardhand board1" in listed
    assert f"{shown} Linux Script (uncompressed)" in listed
    assert f"Image 0: {len(text)} Bytes" in listed


def test_the_image_is_mkimages_own(tmp_path):
    """Octet for octet, apart from the time and the two checksums that depend on it."""
    (tmp_path / "cmd").write_text(uboot_script(PROFILE))
    command = ["mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-n", "boardhand", "-d", "cmd", "out"]
    environment = {"SOURCE_DATE_EPOCH": "0", "PATH": "/usr/bin:/bin", "TZ": "UTC"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)
    ours = script_image(uboot_script(PROFILE), "arm64", "boardhand")
    assert ours == (tmp_path / "out").read_bytes()


GRUB = replace(PROFILE, family="grub")


def test_grub_config(tmp_path):
    text = grub_config(replace(GRUB, cmdline="console=ttyAMA0 init=/bin/sh;x a$b c&d {e} f>g"), IDENTITY)
    assert "  linux /kernel.gz console=ttyAMA0 'init=/bin/sh;x' 'a$b' 'c&d' '{e}' 'f>g' boardhand.board=board1" in text
    assert text.endswith("  initrd /initrd\n  devicetree /dtb\n}\n")
    assert "devicetree" not in grub_config(replace(GRUB, arch="x86_64"), IDENTITY)
    bare = grub_config(replace(GRUB, initrd=None, dtb=None), IDENTITY)
    assert "initrd" not in bare
    for number, config in enumerate((text, bare)):
        path = tmp_path / f"{number}.cfg"
        path.write_text(config)
        subprocess.run(["grub-script-check", path], check=True, capture_output=True, timeout=60)


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=60).map(lambda t: t.replace("\n", " "))
)
def test_grubs_words_are_the_kernels(cmdline):
    """GRUB reads words as a shell does; joined by blanks again they are the command line."""
    quoting = any(mark in cmdline for mark in "\"'\\")
    if quoting:
        with pytest.raises(ValueError, match="GRUB"):
            replace(GRUB, cmdline=cmdline)
        return
    text = grub_config(replace(GRUB, cmdline=cmdline), IDENTITY)
    linux = next(line for line in text.splitlines() if line.startswith("  linux "))
    assert shlex.split(linux)[2:] == command_line(replace(GRUB, cmdline=cmdline), IDENTITY).split()


def test_grub_reads_any_command_line(tmp_path):
    every = " ".join(chr(code) for code in range(33, 127) if chr(code) not in "\"'\\")
    path = tmp_path / "grub.cfg"
    path.write_text(grub_config(replace(GRUB, cmdline=every + " " + every.replace(" ", "")), IDENTITY))
    subprocess.run(["grub-script-check", path], check=True, capture_output=True, timeout=60)


PI = replace(
    PROFILE,
    family="raspberry-pi",
    folder=Path("/img/firmware"),
    overlays=(Path("/img/can.dtbo"),),
    config_txt=("enable_uart=1", "[pi5]", "os_check=0"),
)


def test_raspberry_pi_files():
    assert config_txt(PI).splitlines() == [
        "# boardhand: profile debian",
        "[all]",
        "arm_64bit=1",
        "kernel=kernel.gz",
        "initramfs initrd followkernel",
        "device_tree=dtb",
        "dtoverlay=can",
        "enable_uart=1",
        "[pi5]",
        "os_check=0",
    ]
    assert "arm_64bit=0\nkernel=kernel\ndtoverlay" in config_txt(
        replace(PI, arch="arm", kernel=Path("/img/zImage"), initrd=None, dtb=None)
    )
    client = TreeClient("board1", (), IPv4Address("10.77.0.11"), PI)
    assert content(GeneratedFile(client, "cmdline"), IDENTITY).decode() == command_line(PI, IDENTITY) + "\n"
    assert content(GeneratedFile(client, "config"), IDENTITY).decode() == config_txt(PI)


def test_a_template_in_place_of_a_file():
    name = Path("/t")
    mine = parse("boot.ipxe", name, "#!ipxe\necho ${net0/mac} @{mac} @{server}\nkernel @{kernel} @{cmdline}\nboot\n")
    script = parse("boot.scr.uimg", name, "echo @{board} @{serial}\n")
    grub = parse("grub.cfg", name, "linux /@{kernel} @{cmdline}\n")
    extra = parse("user-data", name, "hostname: @{board}@{uuid}\n")
    profile = replace(PROFILE, cmdline="a;b", templates=(mine, script, grub, extra))
    client = TreeClient("b1", ("52:54:00:77:00:01",), IPv4Address("10.77.0.11"), profile, "u-1", "12345678")
    identity = replace(IDENTITY, server="10.77.0.1")
    words = command_line(profile, identity)
    assert content(GeneratedFile(client, "ipxe"), identity).decode().splitlines()[1:3] == [
        "echo ${net0/mac} 52:54:00:77:00:01 10.77.0.1",
        f"kernel kernel.gz {words}",
    ]
    assert content(GeneratedFile(client, "script"), identity).endswith(b"echo board1 12345678\n")
    assert (
        content(GeneratedFile(client, "grub"), identity).decode()
        == f"linux /kernel.gz {words.replace('a;b', chr(39) + 'a;b' + chr(39))}\n"
    )
    assert content(GeneratedFile(client, "text", "user-data"), identity) == b"hostname: board1u-1\n"
    assert GeneratedFile(client, "ipxe").carries_secret
    assert not GeneratedFile(client, "script").carries_secret
    assert not GeneratedFile(client, "text", "user-data").carries_secret


LOADERS = (("bootaa64.efi", Path("/l/shim")), ("ipxe.efi", Path("/l/ipxe")), ("undionly.kpxe", Path("/l/u")))
X86 = replace(PROFILE, arch="x86_64", dtb=None, loaders=(("bootx64.efi", Path("/l/x")), *LOADERS[1:]))
IN = ClientKind


@pytest.mark.parametrize(
    ("profile", "names"),
    [
        (PROFILE, {IN.UBOOT: "boot.scr.uimg", IN.IPXE: "boot.ipxe", IN.UEFI_ARM64: "boot.scr.uimg", IN.UEFI_X64: None,
                   IN.PXE_BIOS: None, IN.RASPBERRY_PI: None, IN.OTHER: "boot.scr.uimg"}),
        (replace(PROFILE, loaders=LOADERS), {IN.UBOOT: "boot.scr.uimg", IN.UEFI_ARM64: "bootaa64.efi",
                                             IN.HTTP_ARM64: "bootaa64.efi", IN.UEFI_RISCV64: None}),
        (replace(PROFILE, folder=Path("/fw")), {IN.RASPBERRY_PI: "bootcode.bin"}),
        (X86, {IN.UEFI_X64: "bootx64.efi", IN.HTTP_X64: "bootx64.efi", IN.PXE_BIOS: "undionly.kpxe",
               IN.IPXE: "boot.ipxe", IN.UBOOT: None, IN.OTHER: "boot.ipxe"}),
        (replace(X86, loaders=()), {IN.UEFI_X64: None, IN.PXE_BIOS: None, IN.IPXE: "boot.ipxe"}),
        (replace(X86, family="ipxe"), {IN.UEFI_X64: "ipxe.efi", IN.PXE_BIOS: "undionly.kpxe", IN.IPXE: "boot.ipxe"}),
        (replace(X86, family="grub"), {IN.UEFI_X64: "bootx64.efi", IN.PXE_BIOS: None, IN.IPXE: "bootx64.efi"}),
        (replace(PROFILE, family="grub", loaders=LOADERS), {IN.UBOOT: None, IN.UEFI_ARM64: "bootaa64.efi"}),
        (PI, {IN.RASPBERRY_PI: "bootcode.bin", IN.UBOOT: None, IN.OTHER: None}),
        (replace(PROFILE, family="efi-stub", cmdline=""),
         {IN.UEFI_ARM64: "kernel.gz", IN.HTTP_ARM64: "kernel.gz", IN.IPXE: "kernel.gz", IN.UEFI_X64: None,
          IN.UBOOT: None}),
        (replace(PROFILE, family="raw", kernel=Path("/img/rtos.bin")), dict.fromkeys(IN, "rtos.bin")),
        (replace(PROFILE, arch="riscv64", loaders=(("bootriscv64.efi", Path("/l/r")),)),
         {IN.UEFI_RISCV64: "bootriscv64.efi", IN.UBOOT: "boot.scr.uimg"}),
        (replace(PROFILE, arch="arm", kernel=Path("/img/zImage")), {IN.UEFI_ARM: "boot.scr.uimg"}),
        (replace(PROFILE, first_file="snp.efi"), {IN.UEFI_X64: "snp.efi", IN.IPXE: "boot.ipxe", IN.OTHER: "snp.efi"}),
    ],
)  # fmt: skip
def test_what_dhcp_names(profile, names):
    assert {kind: boot_file_for(profile, kind) for kind in names} == names


@pytest.mark.parametrize("family", ["auto", "uboot", "ipxe", "grub", "raspberry-pi", "efi-stub", "raw"])
def test_every_kind_is_answered(family):
    profile = replace(PROFILE, family=family, cmdline="")
    named = {boot_file_for(profile, kind) for kind in ClientKind}
    assert (named == {None}) is (family == "grub")  # whose program is not there: the settings say so


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Bad Name"}, "name"),
        ({"arch": "mips"}, "arch"),
        ({"cmdline": "a\nb"}, "cmdline"),
        ({"cmdline": "x" * 1600}, "cmdline"),
        ({"arch": "arm", "kernel": Path("/img/zImage"), "cmdline": "x" * 800}, "cmdline"),
        ({"kernel": Path("vmlinuz")}, "absolute"),
        ({"initrd": Path("initrd")}, "absolute"),
        ({"fdt_addr_r": -1}, "fdt_addr_r"),
        ({"uboot_env": (("a b", "c"),)}, "uboot_env"),
        ({"arch": "arm"}, "zImage"),
        ({"family": "bios"}, "family"),
        ({"family": "efi-stub"}, "no command line"),
        ({"family": "grub", "cmdline": 'a="b c"'}, "GRUB"),
        ({"overlays": (Path("/img/can.dts"),)}, "overlays"),
        ({"overlays": (Path("/img/can.dtbo"), Path("/other/can.dtb"))}, "same name"),
        ({"overlays": (Path("can.dtbo"),)}, "absolute"),
        ({"overlays": (Path("/img/can.dtbo"),), "arch": "x86_64"}, "device tree"),
        ({"files": (("../x", Path("/img/x")),)}, "files"),
        ({"files": (("/x", Path("/img/x")),)}, "files"),
        ({"files": (("x", Path("img/x")),)}, "absolute"),
        ({"first_file": "a b"}, "boot_file"),
        ({"family": "raw", "kernel": Path("/img/a b")}, "boot_file"),
        ({"config_txt": ("kernel=mine.img",)}, "set by boardhand"),
        ({"config_txt": ("initramfs x followkernel",)}, "set by boardhand"),
        ({"config_txt": ("dtparam=" + "x" * 98,)}, "98"),
        ({"config_txt": ("a\nb",)}, "one line"),
        ({"templates": (parse("x", Path("/t"), ""), parse("x", Path("/u"), ""))}, "twice"),
        ({"templates": (parse("grub.cfg", Path("/t"), "linux /kernel"),)}, "/t: grub.cfg misses @{cmdline}"),
        ({"templates": (parse("x", Path("/t"), "\n@{initrd}"),), "initrd": None}, "/t:2: .*no initrd"),
        ({"uboot_env": (("a", "c'; reset"),)}, "uboot_env"),
    ],
)
def test_profiles_that_cannot_be_used(change, words):
    with pytest.raises(ValueError, match=words):
        replace(PROFILE, **change)
