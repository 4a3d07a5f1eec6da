"""The script that iPXE fetches."""

from netboot.boot_words import INITRD, BootIdentity, command_line, kernel_name
from netboot.profile import BootProfile


def ipxe_script(profile: BootProfile, identity: BootIdentity) -> str:
    """`boot.ipxe`. The kernel's EFI stub wants the initrd named on the command line."""
    initrd = f"initrd={INITRD} " if profile.initrd is not None else ""
    lines = ["#!ipxe", f"kernel {kernel_name(profile)} {initrd}{command_line(profile, identity)}"]
    if profile.initrd is not None:
        lines.append(f"initrd {INITRD}")
    lines.append("boot")
    return "\n".join(lines) + "\n"
