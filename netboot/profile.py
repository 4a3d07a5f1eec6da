"""What a board boots."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from netboot.boot_templates import MUST_CARRY, BootTemplate
from netboot.tftp_limits import NO_LIMITS, Limits
from wire.names import is_id

Arch: TypeAlias = Literal["arm64", "arm", "x86_64", "riscv64"]
Family: TypeAlias = Literal["auto", "uboot", "ipxe", "grub", "raspberry-pi", "efi-stub", "raw"]
"""Which boot program the files are made for; `auto` makes those of every family that the architecture has."""

MAX_CMDLINE_BYTES = 1536
"""The kernel's limit is 2048 on arm64 and x86, 1024 on arm and riscv; some 200 octets of ours are appended."""
MAX_CMDLINE_SHORT_BYTES = 768
MAX_CONFIG_LINE_CHARACTERS = 98
"""The Raspberry Pi's firmware ignores what stands behind, without a word (documentation "config.txt", File format)."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}")
_OVERLAY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}\.dtbo?")
"""With its folder it stays below the 63 characters that a Raspberry Pi's firmware takes (firmware issue 2004)."""
_MAX_NAME_CHARACTERS = 200
_ADDRESSES = (
    "fdt_addr_r", "kernel_addr_r", "ramdisk_addr_r", "kernel_comp_addr_r", "kernel_comp_size", "fdtoverlay_addr_r"
)  # fmt: skip
_ENV_VALUE_MAX = 2**64 - 1
_OUR_CONFIG_KEYS = frozenset(
    {"kernel", "initramfs", "ramfsfile", "ramfsaddr", "cmdline", "os_prefix", "device_tree", "overlay_prefix"}
)


@dataclass(frozen=True, slots=True)
class BootProfile:
    """Kernel, initrd, device tree and command line, and what the boot programs need beside them.

    Addresses are physical, in octets from 0. A given one is set; None takes what the board's U-Boot has, and for what
    it lacks the address of QEMU's `virt` machine of that architecture (`boot_uboot`). `kernel_comp_size` bounds the
    compressed kernel.

    `cmdline` may hold U-Boot variables as `${serial#}`: U-Boot expands them.

    Raises:
        ValueError: a field cannot be used; the message names profile and field.
    """

    name: str
    arch: Arch
    kernel: Path
    """For `raw`: whatever the board starts; it asks for it by the file's own name, or by `first_file`."""
    initrd: Path | None = None
    dtb: Path | None = None
    cmdline: str = ""
    fdt_addr_r: int | None = None
    kernel_addr_r: int | None = None
    ramdisk_addr_r: int | None = None
    kernel_comp_addr_r: int | None = None
    kernel_comp_size: int | None = None
    uboot_env: tuple[tuple[str, str], ...] = field(default=())
    """Further U-Boot variables, set before the PXE file is fetched."""
    fdtoverlay_addr_r: int | None = None
    family: Family = "auto"
    overlays: tuple[Path, ...] = ()
    """Device-tree overlays, applied in this order."""
    templates: tuple[BootTemplate, ...] = ()
    """In place of generated files, or as further ones."""
    files: tuple[tuple[str, Path], ...] = ()
    """Further files by the path that the board asks for."""
    folder: Path | None = None
    """A folder of files that boards only read: the Raspberry Pi's firmware, or what grub-mknetdir made."""
    loaders: tuple[tuple[str, Path], ...] = ()
    """Boot programs by the name that DHCP gives (`boot_loaders.find`)."""
    first_file: str | None = None
    """What DHCP names, where it is not what the family says."""
    config_txt: tuple[str, ...] = ()
    """Further lines of a Raspberry Pi's config.txt."""
    tftp: Limits | None = None
    """What its TFTP client can take; None: as the family usually can."""

    def __post_init__(self) -> None:
        if not is_id(self.name):
            raise ValueError(f"profile {self.name!r}: the name must match [a-z0-9][a-z0-9-]*, at most 63 characters")
        for what, value, known in (("arch", self.arch, get_args(Arch)), ("family", self.family, get_args(Family))):
            if value not in known:
                raise ValueError(f"profile {self.name}: {what} {value!r} is none of {', '.join(known)}")
        for check in (_check_cmdline, _check_paths, _check_uboot, _check_names, _check_config_txt, _check_templates):
            problem = check(self)
            if problem is not None:
                raise ValueError(f"profile {self.name}: {problem}")

    @property
    def compressed(self) -> bool:
        """Whether the kernel is a compressed image, which `booti` unpacks by the `kernel_comp_*` pair."""
        return self.kernel.suffix in {".gz", ".lz4", ".lzo", ".lzma", ".bz2", ".zst", ".xz"}

    @property
    def tftp_limits(self) -> Limits:
        """What its TFTP client can take. A Raspberry Pi's firmware does not count beyond block 65535."""
        if self.tftp is not None:
            return self.tftp
        return Limits(rollover=None) if self.family == "raspberry-pi" else NO_LIMITS

    @property
    def boot_file(self) -> str:
        """What DHCP names for a client of unknown kind: iPXE's script for x86, U-Boot's for the rest."""
        if self.first_file is not None:
            return self.first_file
        if self.family == "raw":
            return self.kernel.name
        return "boot.ipxe" if self.arch == "x86_64" or self.family == "ipxe" else "boot.scr.uimg"

    def template(self, name: str) -> BootTemplate | None:
        """The template of this name."""
        return next((template for template in self.templates if template.name == name), None)


def _check_cmdline(profile: BootProfile) -> str | None:
    text = profile.cmdline
    limit = MAX_CMDLINE_SHORT_BYTES if profile.arch in {"arm", "riscv64"} else MAX_CMDLINE_BYTES
    if _CONTROL.search(text) or len(text.encode()) > limit:
        return f"cmdline must be one line of at most {limit} octets"
    if profile.family == "efi-stub" and text:
        return (
            "cmdline: a firmware that starts the kernel itself (family efi-stub) gives it no command line; build it"
            " into the kernel (CONFIG_CMDLINE) or a unified kernel image, or take family grub or ipxe"
        )
    if profile.family == "grub" and re.search(r"""["'\\]""", text):
        return "cmdline: GRUB puts a backslash before quotes and backslashes, so the kernel reads something else"
    return None


def _check_paths(profile: BootProfile) -> str | None:
    named = [path for _, path in (*profile.files, *profile.loaders)]
    for path in (profile.kernel, profile.initrd, profile.dtb, profile.folder, *profile.overlays, *named):
        if path is not None and not path.is_absolute():
            return f"{path} must be an absolute path"
    if profile.arch == "arm" and profile.compressed and profile.family != "raw":
        return f"kernel {profile.kernel.name}: a 32-bit arm kernel is a zImage, which unpacks itself"
    return None


def _check_uboot(profile: BootProfile) -> str | None:
    for key in _ADDRESSES:
        value = getattr(profile, key)
        if value is not None and not 0 <= value <= _ENV_VALUE_MAX:
            return f"{key} must be an address, 0 to 2^64 - 1"
    for key, text in profile.uboot_env:
        if re.fullmatch(r"[A-Za-z0-9_]{1,64}", key) is None or _CONTROL.search(text) or "'" in text:
            return f"uboot_env {key!r} must be a name and one line without '"
    return None


def _check_names(profile: BootProfile) -> str | None:
    overlays = [path.name for path in profile.overlays]
    for name in overlays:
        if _OVERLAY_NAME.fullmatch(name) is None:
            return f"overlays: {name!r} must be NAME.dtbo, NAME of at most 40 letters, digits, '-' and '_'"
    if len({name.partition(".")[0] for name in overlays}) < len(overlays):
        return "overlays: two have the same name, and the board asks for them by name"
    if profile.overlays and profile.arch == "x86_64":
        return "overlays: there is no device tree on x86_64"
    for key, name in (*(("files", name) for name, _ in profile.files), ("boot_file", profile.boot_file)):
        if len(name) > _MAX_NAME_CHARACTERS or not all(_FILE_NAME.fullmatch(part) for part in name.split("/")):
            return f"{key}: {name!r} must be a path as the board asks for it, as u-boot.img or dtbs/board.dtb"
    return None


def _check_config_txt(profile: BootProfile) -> str | None:
    for line in profile.config_txt:
        if _CONTROL.search(line) or len(line) > MAX_CONFIG_LINE_CHARACTERS:
            return f"config_txt: {line!r} must be one line of at most {MAX_CONFIG_LINE_CHARACTERS} characters"
        if re.split(r"[=\s]", line.strip(), maxsplit=1)[0] in _OUR_CONFIG_KEYS:
            return f"config_txt: {line!r} is set by boardhand; use the profile's keys, or a template of config.txt"
    return None


def _check_templates(profile: BootProfile) -> str | None:
    names = [template.name for template in profile.templates]
    if len(set(names)) < len(names):
        return "templates: a name stands twice"
    absent = {key for key in ("initrd", "dtb") if getattr(profile, key) is None}
    for template in profile.templates:
        for name, line in template.fields:
            if name in absent:
                return f"{template.path}:{line}: @{{{name}}}: the profile has no {name}"
        if template.name in MUST_CARRY and not template.carries_secret:
            return (
                f"{template.path}: {template.name} misses @{{cmdline}} (or @{{secret}}): a board that boots by it"
                " could not register"
            )
    return None
