"""What a boot loader gives away by the names that it asks for."""

import re
from collections.abc import Iterable

_FAMILIES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), family)
    for pattern, family in (
        # First the names that only one family asks for.
        (r"(^|/)(bootcode\.bin|start\w*\.elf|fixup\w*\.dat|config\.txt|autoboot\.txt|recovery\.elf|pieeprom\.\w+)$",
         "a Raspberry Pi's firmware"),
        (r"(^|/)boot\.scr(\.uimg)?$", "U-Boot, looking for a script"),
        (r"(^|/)[0-9a-f]{8}\.img$", "U-Boot that was given no file name"),
        (r"(^|/)extlinux/", "U-Boot, looking for extlinux"),
        (r"(^|/)(grub|grub2)/|(^|/)grub\.cfg", "GRUB"),
        (r"(^|/)(shim|grub|bootx64|bootaa64|bootarm|bootia32|bootriscv64)\w*\.efi$", "UEFI firmware or shim"),
        (r"\.ipxe$|(^|/)(undionly|ipxe|snponly)", "iPXE, or a PXE ROM that was told to load it"),
        (r"(^|/)(l|g)?pxelinux\.0$|\.c32$|(^|/)pxelinux\.bin$", "PXELINUX"),
        (r"(^|/)pxelinux\.cfg/", "PXELINUX, or U-Boot's 'pxe get'"),
        (r"\.(fit|itb)$|(^|/)[uz]?Image(\.\w+)?$|(^|/)vmlinu", "a boot loader that wants its kernel by this name"),
        (r"\.dtb$", "a boot loader that wants its device tree by this name"),
        (r"\.efi$", "UEFI firmware"),
    )
)  # fmt: skip
"""Raspberry Pi: raspberrypi.com documentation, "Raspberry Pi boot modes"; pxelinux.cfg: wiki.syslinux.org/PXELINUX;
U-Boot: doc/usage/pxe.rst and net/net.c (the address in hexadecimal, then `.img`)."""


def family_of(names: Iterable[str]) -> str | None:
    """What asks for such `names`, in words; by the name that says most. None where they say nothing."""
    found = list(names)
    for pattern, family in _FAMILIES:
        if any(pattern.search(name) for name in found):
            return family
    return None
