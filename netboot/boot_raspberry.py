"""The Raspberry Pi's text files, and what must not reach one by the net.

Sources: Raspberry Pi documentation, "config.txt", "Network booting", "Raspberry Pi bootloader configuration".
"""

from netboot.boot_words import DTB, INITRD, BootIdentity, command_line, kernel_name, overlay_names
from netboot.profile import BootProfile

MAX_FILE_BYTES = 65_535 * 1468
"""The largest file: the boot loader's block number does not roll over (rpi-eeprom issue 720)."""

NEVER_SENT = frozenset({
    # These write the boot loader's flash: one file in the folder would do it to every board, at every boot.
    "pieeprom.bin", "pieeprom.sig", "pieeprom.upd", "recovery.bin", "recovery.000", "vl805.bin", "vl805.sig",
    # These choose another partition or another system than the profile's.
    "autoboot.txt", "tryboot.txt", "tryboot.img", "bootcfg.txt",
    # These are asked for before the real ones, and start an installer where they are found.
    "recover4.elf", "recovery.elf", "recovery.img", "recovery7.img", "recovery7l.img", "recovery8.img",
    "recovery8-32.img", "fixup4rc.dat", "fixup_rc.dat",
})  # fmt: skip
"""Names that are never taken from a profile's folder, though an SD card's copy holds them. `files` may still name
them."""


def config_txt(profile: BootProfile) -> str:
    """`config.txt`. `[all]` ends whatever filter a firmware may be in; the profile's own lines come last and win."""
    lines = [f"# boardhand: profile {profile.name}", "[all]", f"arm_64bit={int(profile.arch == 'arm64')}"]
    lines.append(f"kernel={kernel_name(profile)}")
    if profile.initrd is not None:
        lines.append(f"initramfs {INITRD} followkernel")  # without "=": this key alone is written so
    if profile.dtb is not None:
        lines.append(f"device_tree={DTB}")
    lines += [f"dtoverlay={name}" for name in overlay_names(profile)]
    lines += profile.config_txt
    return "\n".join(lines) + "\n"


def cmdline_txt(profile: BootProfile, identity: BootIdentity) -> str:
    """`cmdline.txt`: one line; the firmware puts its own words before it."""
    return command_line(profile, identity) + "\n"
