"""Which kind of boot program asks by DHCP, and the options that this kind wants to hear.

Sources: RFC 4578 (options 93 and 97) with IANA's list "Processor Architecture Types" that continues it; Intel's PXE 2.1
(options 43 and 60); UEFI 2.10 section 24.7 (HTTP boot); ipxe.org/howto/dhcpd (options 77 and 175); Raspberry Pi's
documentation "Network booting".
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address

from netboot.dhcp_packet import DhcpPacket, Option

RASPBERRY_PI_OUIS = frozenset(
    {"28:cd:c1", "2c:cf:67", "88:a2:9e", "b8:27:eb", "d8:3a:dd", "dc:a6:32", "e4:5f:01"}
)  # IEEE's registry, "Raspberry Pi (Trading) Ltd" and "Raspberry Pi Foundation"
MAX_BOOT_FILE_FIELD_BYTES = 127
"""What fits the `file` field with its NUL; a longer name (a URL) stands in option 67 alone."""

_PXE_CLIENT = b"PXEClient"
_HTTP_CLIENT = b"HTTPClient"
_ARCH_IN_CLASS = re.compile(rb"^(?:PXE|HTTP)Client:Arch:(\d{5})")
_PXE_DISCOVERY_CONTROL = 6
_PXE_BOOT_MENU = 9
_PXE_MENU_PROMPT = 10
_PXE_END = 255
_PXE_USE_BOOT_FILE = 8  # bit 3: fetch the boot file of this answer, ask no boot server and show no menu
_PI_PXE_ROM_ARCH = 0
IPXE_BOOT_FILE = "boot.ipxe"
"""iPXE's script."""
_IPXE_HTTP = 0x13  # src/include/ipxe/dhcp.h, DHCP_EB_FEATURE_HTTP
_IPXE_NO_PROXY = 0xB0  # ipxe.no-pxedhcp: do not wait for a proxy's offer


class ClientKind(StrEnum):
    """What runs on the board while it asks; each kind may want another boot file."""

    UBOOT = "uboot"
    IPXE = "ipxe"
    """iPXE on whatever firmware; it takes a script."""
    IPXE_TFTP = "ipxe-tftp"
    """The same, built without HTTP, as it says itself."""
    PXE_BIOS = "pxe-bios"
    UEFI_X64 = "uefi-x64"
    UEFI_ARM64 = "uefi-arm64"
    UEFI_ARM = "uefi-arm"
    UEFI_RISCV64 = "uefi-riscv64"
    HTTP_X64 = "http-x64"
    """UEFI HTTP boot: the boot file is a URL."""
    HTTP_ARM64 = "http-arm64"
    RASPBERRY_PI = "raspberry-pi"
    """The boot ROM or the EEPROM boot loader of a Raspberry Pi; it names its files itself."""
    OTHER = "other"
    """An operating system, or an architecture that we have no files for."""

    @property
    def by_http(self) -> bool:
        """Whether the boot file has to be a URL."""
        return self in {ClientKind.HTTP_X64, ClientKind.HTTP_ARM64}


BootFileFor = Callable[[str | None, ClientKind], str | None]
"""The boot file of a board for a kind of client, None where it has none: then the client gets an address only. The
board is None for an unknown one that may join."""

_PXE_KINDS: dict[int, ClientKind] = {
    0: ClientKind.PXE_BIOS,
    7: ClientKind.UEFI_X64,
    9: ClientKind.UEFI_X64,  # EFI byte code by the list; x64 firmware of before its erratum 4625 says 9
    10: ClientKind.UEFI_ARM,
    11: ClientKind.UEFI_ARM64,
    27: ClientKind.UEFI_RISCV64,
    # U-Boot's own numbers: 0x15 and 0x16, with 0x17 and 0x18 for the same by HTTP.
    21: ClientKind.UBOOT,
    22: ClientKind.UBOOT,
}
_HTTP_KINDS: dict[int, ClientKind] = {
    7: ClientKind.HTTP_X64,  # U-Boot and some firmware name the machine and not the way
    11: ClientKind.HTTP_ARM64,
    16: ClientKind.HTTP_X64,
    19: ClientKind.HTTP_ARM64,
    22: ClientKind.HTTP_ARM64,
    24: ClientKind.HTTP_ARM64,
}


def client_arch(packet: DhcpPacket) -> int | None:
    """The first architecture of option 93, else the one in the vendor class; None where neither says one."""
    value = packet.option(Option.CLIENT_ARCH)
    if value is not None and len(value) >= 2:
        return int.from_bytes(value[:2], "big")
    named = _ARCH_IN_CLASS.match(packet.option(Option.VENDOR_CLASS) or b"")
    return int(named.group(1)) if named is not None else None


def client_kind(packet: DhcpPacket) -> ClientKind:
    """What kind of boot program sent `packet`."""
    vendor = packet.option(Option.VENDOR_CLASS) or b""
    if is_ipxe(packet):
        return ClientKind.IPXE_TFTP if _lacks_http(packet) else ClientKind.IPXE
    if vendor.startswith(b"U-Boot"):
        return ClientKind.UBOOT
    arch = client_arch(packet)
    if vendor.startswith(_HTTP_CLIENT):
        return _HTTP_KINDS.get(arch, ClientKind.OTHER) if arch is not None else ClientKind.OTHER
    if not vendor.startswith(_PXE_CLIENT):
        return ClientKind.OTHER
    if arch in {None, _PI_PXE_ROM_ARCH} and _is_raspberry_pi(packet):
        return ClientKind.RASPBERRY_PI
    return _PXE_KINDS.get(arch, ClientKind.OTHER) if arch is not None else ClientKind.PXE_BIOS


def is_ipxe(packet: DhcpPacket) -> bool:
    """Whether iPXE asks: it names itself in the user class, as a bare word or with RFC 3004's length before it."""
    return b"iPXE" in (packet.option(Option.USER_CLASS) or b"")


def _lacks_http(packet: DhcpPacket) -> bool:
    """Whether iPXE lists in option 175 what it can, and HTTP is not there."""
    value = packet.option(Option.IPXE)
    if not value:
        return False
    while len(value) >= 2 and value[0] != _IPXE_HTTP:
        value = value[2 + value[1] :]
    return len(value) < 2


def _is_raspberry_pi(packet: DhcpPacket) -> bool:
    # A Pi 4 or 5 begins its UUID with "RPi4"; a Pi 3 repeats its serial number, so its MAC has to tell.
    machine = packet.option(Option.CLIENT_UUID) or b""
    return machine[1:4] == b"RPi" or (packet.mac or "")[:8] in RASPBERRY_PI_OUIS


def client_uuids(packet: DhcpPacket) -> tuple[str, ...]:
    """Option 97 as UUID text, most likely first; `()` where it is absent or says nothing.

    Firmware sends the octets as SMBIOS stores them, whose first three fields are little-endian (DSP0134 section 7.2.1);
    others send them in the order of the text. Nothing tells the two apart, so both are given.
    """
    value = packet.option(Option.CLIENT_UUID) or b""
    if len(value) != 17 or value[0] != 0 or value[1:] in {bytes(16), b"\xff" * 16}:
        return ()
    stored, written = uuid.UUID(bytes_le=value[1:]), uuid.UUID(bytes=value[1:])
    return (str(stored), str(written)) if stored != written else (str(stored),)


@dataclass(frozen=True, slots=True)
class BootAnswer:
    """What an answer says of booting: the `file` field, and options."""

    file: bytes
    options: tuple[tuple[int, bytes], ...]


NO_BOOT = BootAnswer(b"", ())


def boot_answer(kind: ClientKind, boot_file: str | None, server: IPv4Address) -> BootAnswer:
    """The boot part of an answer to a client of `kind`. `server` has the files; `boot_file` None: there are none.

    A Raspberry Pi hears where the server is even without a boot file, as it names its files itself.
    """
    name = (boot_file or "").encode()
    if not name and kind is not ClientKind.RASPBERRY_PI:
        return NO_BOOT
    options: list[tuple[Option, bytes]] = []
    if kind.by_http:
        # UEFI 2.10 section 24.7.3.1: without this class firmware takes the answer for an ordinary one.
        options.append((Option.VENDOR_CLASS, _HTTP_CLIENT))
    elif kind is ClientKind.RASPBERRY_PI:
        options += [(Option.VENDOR_SPECIFIC, _pi_menu()), (Option.VENDOR_CLASS, _PXE_CLIENT)]
    elif kind in {ClientKind.IPXE, ClientKind.IPXE_TFTP}:
        options.append((Option.IPXE, bytes((_IPXE_NO_PROXY, 1, 1))))
    if not kind.by_http:
        options.append((Option.TFTP_SERVER, str(server).encode()))
    if name:
        options.append((Option.BOOT_FILE, name))
    short = name if len(name) <= MAX_BOOT_FILE_FIELD_BYTES else b""
    return BootAnswer(short, tuple((int(code), value) for code, value in options))


def named_to(kind: ClientKind, name: str | None, server: IPv4Address, http_port: int | None) -> str | None:
    """What DHCP calls the boot file `name` to a client of `kind`: the name, or its URL for a client that boots by HTTP.
    iPXE fetches all that its script names from where it had the script. None: it has none, or nothing is served by
    HTTP."""
    if name is None or not (kind.by_http or (kind is ClientKind.IPXE and name == IPXE_BOOT_FILE)):
        return name
    if not http_port:
        return None if kind.by_http else name
    return f"http://{server}:{http_port}/{name}"


def proxy_answer(kind: ClientKind, boot_file: str | None, server: IPv4Address) -> BootAnswer:
    """The boot part of a proxy's answer: as `boot_answer`, marked as a proxy's by option 60 (PXE 2.1 section 2.2.3)."""
    answer = boot_answer(kind, boot_file, server)
    if answer is NO_BOOT or kind.by_http:
        return answer
    said = {code for code, _ in answer.options}
    more: list[tuple[int, bytes]] = []
    if Option.VENDOR_CLASS not in said:
        more.append((int(Option.VENDOR_CLASS), _PXE_CLIENT))
    if Option.VENDOR_SPECIFIC not in said:
        more.append((int(Option.VENDOR_SPECIFIC), bytes((_PXE_DISCOVERY_CONTROL, 1, _PXE_USE_BOOT_FILE, _PXE_END))))
    # `ipxe.no-pxedhcp` would make iPXE drop the very answer that says it.
    kept = tuple((code, value) for code, value in answer.options if code != Option.IPXE)
    return BootAnswer(answer.file, tuple(more) + kept)


def _pi_menu() -> bytes:
    """Option 43 for a Pi, as dnsmasq's `pxe-service=0,"Raspberry Pi Boot"` says it: the Pi looks for these words."""
    title, prompt = b"Raspberry Pi Boot", b"\0PXE"
    entry = bytes((0, 0, len(title))) + title
    menu = bytes((_PXE_DISCOVERY_CONTROL, 1, 3))
    menu += bytes((_PXE_MENU_PROMPT, len(prompt))) + prompt
    menu += bytes((_PXE_BOOT_MENU, len(entry))) + entry
    return menu + bytes((_PXE_END,))


def is_pxe_or_http(packet: DhcpPacket) -> bool:
    """Whether the client understands a proxy's answer. U-Boot and operating systems do not: they would take an offer
    without an address for the real one."""
    vendor = packet.option(Option.VENDOR_CLASS) or b""
    return vendor.startswith((_PXE_CLIENT, _HTTP_CLIENT))
