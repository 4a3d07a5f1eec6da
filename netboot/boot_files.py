"""What a board fetches before its kernel, generated from its profile. Pure functions: the same input gives the same
octets."""

from collections.abc import Callable

from netboot.boot_grub import grub_config, grub_words
from netboot.boot_ipxe import ipxe_script
from netboot.boot_loaders import IPXE_BIOS, IPXE_EFI, SHIM_NAMES
from netboot.boot_raspberry import cmdline_txt, config_txt
from netboot.boot_templates import BootTemplate
from netboot.boot_tree import GeneratedFile, TreeClient
from netboot.boot_uboot import pxe_file, script_image, uboot_script
from netboot.boot_words import DTB, INITRD, KERNEL, BootIdentity, command_line, kernel_name
from netboot.dhcp_options import IPXE_BOOT_FILE, ClientKind
from netboot.profile import Arch, BootProfile, Family

__all__ = [
    "DTB",
    "INITRD",
    "KERNEL",
    "BootIdentity",
    "boot_file_for",
    "command_line",
    "content",
    "grub_config",
    "ipxe_script",
    "kernel_name",
    "pxe_file",
    "script_image",
    "uboot_script",
]

_Make = Callable[[BootProfile, BootIdentity], str]
_MAKERS: dict[str, _Make] = {
    "script": lambda profile, _: uboot_script(profile),
    "pxe": pxe_file,
    "ipxe": ipxe_script,
    "grub": grub_config,
    "config": lambda profile, _: config_txt(profile),
    "cmdline": cmdline_txt,
}


def content(wanted: GeneratedFile, identity: BootIdentity) -> bytes:
    """The octets of `wanted`. `identity` has the secret only where `wanted.carries_secret`."""
    client = wanted.client
    template = client.profile.template(wanted.template_name)
    text = _MAKERS[wanted.kind](client.profile, identity) if template is None else _filled(template, client, identity)
    if wanted.kind == "script":
        return script_image(text, client.profile.arch, f"boardhand {client.board or 'joining'}")
    return text.encode()


def _filled(template: BootTemplate, client: TreeClient, identity: BootIdentity) -> str:
    profile = client.profile
    words = command_line(profile, identity)
    return template.render({
        "address": str(client.address),
        "agent": identity.agent,
        "arch": profile.arch,
        "board": identity.board or "",
        "cmdline": grub_words(words) if template.name == "grub.cfg" else words,
        "dtb": DTB,
        "initrd": INITRD,
        "kernel": kernel_name(profile),
        "mac": client.macs[0] if client.macs else "",
        "mqtt": identity.mqtt,
        "prefix": identity.prefix,
        "profile": profile.name,
        "secret": identity.secret or "",
        "serial": client.serial or "",
        "server": identity.server,
        "uuid": client.uuid or "",
    })  # fmt: skip


# --- what DHCP names ---

_FIRMWARE_ARCH: dict[ClientKind, Arch] = {
    ClientKind.PXE_BIOS: "x86_64",
    ClientKind.UEFI_X64: "x86_64",
    ClientKind.UEFI_ARM64: "arm64",
    ClientKind.UEFI_ARM: "arm",
    ClientKind.UEFI_RISCV64: "riscv64",
    ClientKind.HTTP_X64: "x86_64",
    ClientKind.HTTP_ARM64: "arm64",
}
_SCRIPT = "boot.scr.uimg"


def boot_file_for(profile: BootProfile, kind: ClientKind) -> str | None:
    """The boot file that DHCP names to a client of this kind, or None where the profile has nothing for it.

    A path below the server's root; where `kind.by_http`, the caller makes it a URL. A file that the profile itself
    names (`boot_file`) goes to every kind, except to iPXE once it runs: it would load itself for ever.
    """
    kind = ClientKind.IPXE if kind is ClientKind.IPXE_TFTP else kind
    if kind is ClientKind.IPXE and profile.family in {"auto", "ipxe"}:
        return IPXE_BOOT_FILE
    if profile.first_file is not None:
        return profile.first_file
    arch = _FIRMWARE_ARCH.get(kind)
    if arch is not None and arch != profile.arch and profile.family != "raw":
        return None
    return _CHOICES[profile.family](profile, kind)


def _for_auto(profile: BootProfile, kind: ClientKind) -> str | None:
    if kind is ClientKind.RASPBERRY_PI:
        return _for_raspberry(profile, kind) if profile.folder is not None else None
    if kind is ClientKind.OTHER:
        return profile.boot_file
    return _for_grub(profile, kind) or _for_ipxe(profile, kind) or _for_uboot(profile, kind)


def _for_uboot(profile: BootProfile, kind: ClientKind) -> str | None:
    # In its second round U-Boot calls itself a UEFI.
    unfit = {ClientKind.IPXE, ClientKind.RASPBERRY_PI}
    return None if profile.arch == "x86_64" or kind in unfit else _SCRIPT


def _for_ipxe(profile: BootProfile, kind: ClientKind) -> str | None:
    if kind is ClientKind.OTHER:
        return profile.boot_file
    if kind not in _FIRMWARE_ARCH:
        return None
    name = IPXE_BIOS if kind is ClientKind.PXE_BIOS else IPXE_EFI
    return name if name in dict(profile.loaders) else None


def _for_grub(profile: BootProfile, kind: ClientKind) -> str | None:
    name = SHIM_NAMES.get(profile.arch)
    starts = kind is ClientKind.IPXE or (kind in _FIRMWARE_ARCH and kind is not ClientKind.PXE_BIOS)
    return name if starts and name in dict(profile.loaders) else None


def _for_raspberry(_: BootProfile, kind: ClientKind) -> str | None:
    # It passes the name over; this is what a Pi 3 asks for first.
    return "bootcode.bin" if kind is ClientKind.RASPBERRY_PI else None


def _for_efi_stub(profile: BootProfile, kind: ClientKind) -> str | None:
    starts = kind is ClientKind.IPXE or (kind in _FIRMWARE_ARCH and kind is not ClientKind.PXE_BIOS)
    return kernel_name(profile) if starts else None


_CHOICES: dict[Family, Callable[[BootProfile, ClientKind], str | None]] = {
    "auto": _for_auto,
    "uboot": _for_uboot,
    "ipxe": _for_ipxe,
    "grub": _for_grub,
    "raspberry-pi": _for_raspberry,
    "efi-stub": _for_efi_stub,
    "raw": lambda profile, _: profile.boot_file,
}
