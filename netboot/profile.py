"""What a board boots."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from wire.names import is_id

Arch: TypeAlias = Literal["arm64", "arm", "x86_64"]
MAX_CMDLINE_BYTES = 1536
"""The kernel's limit is 2048 on arm64 and x86, 1024 on arm; some 200 octets of ours are appended."""
MAX_CMDLINE_ARM_BYTES = 768
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENV_VALUE_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class BootProfile:
    """Kernel, initrd, device tree and command line, and where U-Boot puts them.

    Addresses are physical, in octets from 0; None leaves the variable as the board's U-Boot has it. The defaults are
    for QEMU's `virt` machine with Debian's qemu_arm64 U-Boot and at least 256 MB of memory: that build lacks
    `fdt_addr_r`, without which the `fdt` line of a PXE file does nothing, and the `kernel_comp_*` pair, without
    which a compressed kernel does not start. `kernel_comp_size` bounds the compressed kernel.

    `cmdline` may hold U-Boot variables as `${serial#}`: U-Boot expands them.

    Raises:
        ValueError: a field cannot be used; the message names profile and field.
    """

    name: str
    arch: Arch
    kernel: Path
    initrd: Path | None = None
    dtb: Path | None = None
    cmdline: str = ""
    fdt_addr_r: int | None = 0x4A00_0000
    kernel_addr_r: int | None = None
    ramdisk_addr_r: int | None = None
    kernel_comp_addr_r: int = 0x4B00_0000
    kernel_comp_size: int = 0x0200_0000
    uboot_env: tuple[tuple[str, str], ...] = field(default=())
    """Further U-Boot variables, set before the PXE file is fetched."""

    def __post_init__(self) -> None:
        if not is_id(self.name):
            raise ValueError(f"profile {self.name!r}: the name must match [a-z0-9][a-z0-9-]*, at most 63 characters")
        if self.arch not in {"arm64", "arm", "x86_64"}:
            raise ValueError(f"profile {self.name}: arch {self.arch!r} is none of arm64, arm, x86_64")
        limit = MAX_CMDLINE_ARM_BYTES if self.arch == "arm" else MAX_CMDLINE_BYTES
        if _CONTROL.search(self.cmdline) or len(self.cmdline.encode()) > limit:
            raise ValueError(f"profile {self.name}: cmdline must be one line of at most {limit} octets")
        for path in (self.kernel, self.initrd, self.dtb):
            if path is not None and not path.is_absolute():
                raise ValueError(f"profile {self.name}: {path} must be an absolute path")
        for key in ("fdt_addr_r", "kernel_addr_r", "ramdisk_addr_r", "kernel_comp_addr_r", "kernel_comp_size"):
            value = getattr(self, key)
            if value is not None and not 0 <= value <= _ENV_VALUE_MAX:
                raise ValueError(f"profile {self.name}: {key} must be an address, 0 to 2^64 - 1")
        for key, text in self.uboot_env:
            if re.fullmatch(r"[A-Za-z0-9_]{1,64}", key) is None or _CONTROL.search(text) or "'" in text:
                raise ValueError(f"profile {self.name}: uboot_env {key!r} must be a name and one line without '")

    @property
    def compressed(self) -> bool:
        """Whether the kernel is a compressed image, which `booti` unpacks by the `kernel_comp_*` pair."""
        return self.kernel.suffix in {".gz", ".lz4", ".lzo", ".lzma", ".bz2", ".zst", ".xz"}

    @property
    def boot_file(self) -> str:
        """What DHCP names: iPXE's script for x86, U-Boot's for the rest."""
        return "boot.ipxe" if self.arch == "x86_64" else "boot.scr.uimg"
