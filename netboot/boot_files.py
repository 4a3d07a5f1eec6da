"""Generates what a board fetches before its kernel: U-Boot's script image, the PXE file, iPXE's script, and the command
line in them. Pure functions: the same input gives the same octets.

The script makes U-Boot fetch the PXE file (`pxe get`), which carries the command line; the script itself is the same
for every boot.
"""

import struct
import zlib
from dataclasses import dataclass

from netboot.profile import Arch, BootProfile

KERNEL, INITRD, DTB = "kernel", "initrd", "dtb"
"""The names under which a profile's files are fetched."""

_IMAGE_HEADER = struct.Struct("!IIIIIIIBBBB32s")  # U-Boot include/image.h, struct legacy_img_hdr
_IMAGE_MAGIC = 0x27051956
_OS_LINUX = 5
_TYPE_SCRIPT = 6
_COMPRESSION_NONE = 0
_IMAGE_ARCH: dict[Arch, int] = {"arm64": 22, "arm": 2, "x86_64": 24}
_PXE_TRIES = 3  # a worker that restarts or a switch port that learns costs one


@dataclass(frozen=True, slots=True)
class BootIdentity:
    """What the command line says of this boot. `board` and `secret` are None for a board that may join."""

    agent: str
    mqtt: str
    prefix: str
    board: str | None = None
    secret: str | None = None


def command_line(profile: BootProfile, identity: BootIdentity) -> str:
    """The kernel's command line: the profile's, and what the board's client needs to register."""
    words = [profile.cmdline] if profile.cmdline else []
    if identity.board is not None:
        words.append(f"boardhand.board={identity.board}")
    words += [
        f"boardhand.agent={identity.agent}",
        f"boardhand.mqtt={identity.mqtt}",
        f"boardhand.prefix={identity.prefix}",
    ]
    if identity.secret is not None:
        words.append(f"boardhand.secret={identity.secret}")
    return " ".join(words)


def kernel_name(profile: BootProfile) -> str:
    """`kernel`, with the ending of a compressed one, for the people who read captures."""
    return KERNEL + profile.kernel.suffix if profile.compressed else KERNEL


def uboot_script(profile: BootProfile) -> str:
    """The text of the script: sets addresses, fetches the PXE file and boots from it, three times at most."""
    variables: list[tuple[str, str]] = []
    for key in ("fdt_addr_r", "kernel_addr_r", "ramdisk_addr_r"):
        value = getattr(profile, key)
        if value is not None:
            variables.append((key, hex(value)))
    if profile.compressed:
        variables.append(("kernel_comp_addr_r", hex(profile.kernel_comp_addr_r)))
        variables.append(("kernel_comp_size", hex(profile.kernel_comp_size)))
    variables += profile.uboot_env
    variables.append(("bootfile", profile.boot_file))  # its folder is where the PXE file is looked for
    lines = [f"# boardhand: profile {profile.name}"]
    lines += [f"setenv {key} '{value}'" for key, value in variables]
    tries = " ".join(str(number + 1) for number in range(_PXE_TRIES))
    lines.append(f"for try in {tries}; do if pxe get; then pxe boot; fi; sleep 2; done")
    return "\n".join(lines) + "\n"


def script_image(text: str, arch: Arch, name: str) -> bytes:
    """A script as U-Boot's legacy image, as `mkimage -T script -C none` makes it, with time 0."""
    script = text.encode()
    body = struct.pack("!II", len(script), 0) + script  # a list of one size, ended by 0
    fields = (len(body), 0, 0, zlib.crc32(body), _OS_LINUX, _IMAGE_ARCH[arch], _TYPE_SCRIPT, _COMPRESSION_NONE)
    label = name.encode("ascii", "replace")[:31]
    header = _IMAGE_HEADER.pack(_IMAGE_MAGIC, 0, 0, *fields, label)
    checksum = zlib.crc32(header)
    return _IMAGE_HEADER.pack(_IMAGE_MAGIC, checksum, 0, *fields, label) + body


def pxe_file(profile: BootProfile, identity: BootIdentity) -> str:
    """`pxelinux.cfg/...` as U-Boot and PXELINUX read it."""
    lines = ["default boardhand", "prompt 0", "label boardhand", f"  kernel {kernel_name(profile)}"]
    if profile.initrd is not None:
        lines.append(f"  initrd {INITRD}")
    if profile.dtb is not None:
        lines.append(f"  fdt {DTB}")
    lines.append(f"  append {command_line(profile, identity)}")
    return "\n".join(lines) + "\n"


def ipxe_script(profile: BootProfile, identity: BootIdentity) -> str:
    """`boot.ipxe`. The kernel's EFI stub wants the initrd named on the command line."""
    initrd = f"initrd={INITRD} " if profile.initrd is not None else ""
    lines = ["#!ipxe", f"kernel {kernel_name(profile)} {initrd}{command_line(profile, identity)}"]
    if profile.initrd is not None:
        lines.append(f"initrd {INITRD}")
    lines.append("boot")
    return "\n".join(lines) + "\n"
