"""`grub.cfg` for GRUB on UEFI."""

import re

from netboot.boot_words import DTB, INITRD, BootIdentity, command_line, kernel_name
from netboot.profile import BootProfile

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:=,@%+^~-]+")


def grub_words(line: str) -> str:
    """`line` as words of a GRUB command: what GRUB's shell would read as its own stands in single quotes."""
    return " ".join(word if _PLAIN_WORD.fullmatch(word) else _quoted(word) for word in line.split())


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def grub_config(profile: BootProfile, identity: BootIdentity) -> str:
    """`grub.cfg`: boots at once. Paths begin at the server's root, wherever GRUB's own folder is."""
    lines = [
        f"# boardhand: profile {profile.name}",
        "set default=0",
        "set timeout=0",
        "menuentry 'boardhand' {",
        f"  linux /{kernel_name(profile)} {grub_words(command_line(profile, identity))}",
    ]
    if profile.initrd is not None:
        lines.append(f"  initrd /{INITRD}")
    if profile.dtb is not None and profile.arch != "x86_64":
        lines.append(f"  devicetree /{DTB}")
    lines.append("}")
    return "\n".join(lines) + "\n"
