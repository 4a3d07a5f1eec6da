"""What U-Boot fetches before its kernel: its script image, and the PXE file with the command line.

The script makes U-Boot fetch the PXE file (`pxe get`), which carries the command line; the script itself is the same
for every boot. U-Boot's `pxe boot` tries `bootm`, `booti` (arm64, riscv64) and `bootz` (arm), so one form serves all.
"""

import struct
import zlib

from netboot.boot_words import DTB, INITRD, OVERLAYS, BootIdentity, command_line, kernel_name, overlay_names
from netboot.profile import Arch, BootProfile

_IMAGE_HEADER = struct.Struct("!IIIIIIIBBBB32s")  # U-Boot include/image.h, struct legacy_img_hdr
_IMAGE_MAGIC = 0x27051956
_OS_LINUX = 5
_TYPE_SCRIPT = 6
_COMPRESSION_NONE = 0
_IMAGE_ARCH: dict[Arch, int] = {"arm64": 22, "arm": 2, "x86_64": 24, "riscv64": 26}
_PXE_TRIES = 5  # a worker that restarts or a switch port that learns costs one
_PATIENCE = {"tftptimeout": "1000", "tftptimeoutcountmax": "3"}
"""Milliseconds of silence before it asks again, and how often. With U-Boot's own 5 s and 10 times
a board lost 58 s where our server was restarted in the middle of its kernel; with these 7 s (U-Boot 2023.01)."""
_OVERLAY_ROOM_BYTES = 64 * 1024
"""By how much the device tree grows at most by its overlays; `fdt apply` needs the room beforehand."""

_Addresses = dict[str, int]
_VIRT_ARM: _Addresses = {
    "fdt_addr_r": 0x4A00_0000,
    "kernel_comp_addr_r": 0x4B00_0000,
    "kernel_comp_size": 0x0200_0000,
    "fdtoverlay_addr_r": 0x49F0_0000,  # U-Boot itself may lie as low as 0x4D.. with 256 MB
}
_FALLBACK: dict[Arch, _Addresses] = {
    # QEMU's virt machine with 256 MB or more: Debian's U-Boot for it lacks `fdt_addr_r`, without which the `fdt` line
    # of a PXE file does nothing, and the `kernel_comp_*` pair, without which a compressed kernel does not start.
    "arm64": _VIRT_ARM,
    "arm": _VIRT_ARM,
    "riscv64": {  # as U-Boot's include/configs/qemu-riscv.h
        "fdt_addr_r": 0x8C00_0000,
        "kernel_comp_addr_r": 0x8800_0000,
        "kernel_comp_size": 0x0400_0000,
        "fdtoverlay_addr_r": 0x8BF0_0000,
    },
    "x86_64": {},
}


def uboot_script(profile: BootProfile) -> str:
    """The text of the script: sets addresses, applies overlays, fetches the PXE file and boots from it, a few times at
    most."""
    lines = [f"# boardhand: profile {profile.name}", *_addresses(profile)]
    lines += [_unless_set(key, value) for key, value in _PATIENCE.items()]
    lines += [f"setenv {key} '{value}'" for key, value in profile.uboot_env]
    # Its folder is where the PXE file is looked for.
    lines.append(f"setenv bootfile '{_script_name(profile)}'")
    boot = "if pxe get; then pxe boot; fi"
    if profile.overlays:
        lines += _merge(profile)
        # `pxe boot` takes `fdt_addr` where `fdt_addr_r` is not set: what we merged, and not the file without overlays.
        boot = (
            'run boardhand_fdt; if test -n "${boardhand_merged}"; then setenv fdt_addr ${boardhand_merged}; '
            "setenv fdt_addr_r; if pxe get; then pxe boot; fi; setenv fdt_addr_r ${boardhand_merged}; "
            "else echo boardhand: the overlays were not applied, see above; fi"
        )
    tries = " ".join(str(number + 1) for number in range(_PXE_TRIES))
    lines.append(f"for try in {tries}; do {boot}; sleep 2; done")
    return "\n".join(lines) + "\n"


def _script_name(profile: BootProfile) -> str:
    name = profile.boot_file
    return name if name.endswith((".scr", ".uimg")) else "boot.scr.uimg"


def _addresses(profile: BootProfile) -> list[str]:
    """A given address is set; one of ours only where the board's U-Boot has none."""
    lines = []
    wanted = ["fdt_addr_r", "kernel_addr_r", "ramdisk_addr_r"]
    if profile.compressed:
        wanted += ["kernel_comp_addr_r", "kernel_comp_size"]
    if profile.overlays:
        wanted.append("fdtoverlay_addr_r")
    fallback = _FALLBACK[profile.arch]
    for key in wanted:
        value = getattr(profile, key)
        if value is not None:
            lines.append(f"setenv {key} '{value:#x}'")
        elif key in fallback:
            lines.append(_unless_set(key, f"{fallback[key]:#x}"))
    return lines


def _unless_set(key: str, value: str) -> str:
    return f"test -n \"${{{key}}}\" || setenv {key} '{value}'"


def _merge(profile: BootProfile) -> list[str]:
    """The variable `boardhand_fdt`: fetches the device tree, or takes U-Boot's own, and applies the overlays to it."""
    base = [f"tftpboot ${{fdt_addr_r}} {DTB}"]
    if profile.dtb is None:  # `fdt move` wants to have heard of a device tree before
        base = ["fdt addr ${fdtcontroladdr}", "fdt move ${fdtcontroladdr} ${fdt_addr_r}"]
    steps = [*base, "fdt addr ${fdt_addr_r}", f"fdt resize {_OVERLAY_ROOM_BYTES:#x}"]
    for name in overlay_names(profile):
        steps += [f"tftpboot ${{fdtoverlay_addr_r}} {OVERLAYS}/{name}.dtbo", "fdt apply ${fdtoverlay_addr_r}"]
    done = "setenv boardhand_merged ${fdt_addr_r}"
    return [f"setenv boardhand_fdt 'setenv boardhand_merged; {' && '.join([*steps, done])}'"]


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
    """`pxelinux.cfg/...` as U-Boot and PXELINUX read it. `fdtoverlays` serves boards that come without the script;
    behind it U-Boot has no `fdt_addr_r` any more and passes both lines over."""
    lines = ["default boardhand", "prompt 0", "label boardhand", f"  kernel {kernel_name(profile)}"]
    if profile.initrd is not None:
        lines.append(f"  initrd {INITRD}")
    if profile.dtb is not None:
        lines.append(f"  fdt {DTB}")
        if profile.overlays:
            names = " ".join(f"{OVERLAYS}/{name}.dtbo" for name in overlay_names(profile))
            lines.append(f"  fdtoverlays {names}")
    lines.append(f"  append {command_line(profile, identity)}")
    return "\n".join(lines) + "\n"
