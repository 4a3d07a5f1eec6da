"""What a light board's boot ROM does, as codecs and decisions without I/O: DHCP, TFTP, the PXE configuration.

It asks as U-Boot on arm64 asks, so that it is served by the same rules.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

# RFC 2131 section 2, RFC 2132
_COOKIE = b"\x63\x82\x53\x63"
_BOOTP = struct.Struct(">BBBBIHH4s4s4s4s16s64s128s")
_BROADCAST = 0x8000
# What U-Boot 2023.01 for QEMU arm64 sends: class, processor architecture 0x16, parameter list.
VENDOR_CLASS = b"U-Boot.armv8"
_ARCHITECTURE = b"\x00\x16"
_PARAMETERS = bytes([1, 3, 6, 12, 17])

BLOCK_BYTES = 1468
"""What U-Boot asks for: the largest that needs no fragments on Ethernet."""
MAX_FILE_BYTES = 64 * 1024 * 1024


class BootError(Exception):
    """The board cannot boot from what it was given; it starts over."""


class DhcpKind(IntEnum):
    """DHCP message types, RFC 2132 section 9.6."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6


@dataclass(frozen=True, slots=True)
class DhcpReply:
    """What a server answered. `next_server` is where the boot file is."""

    kind: DhcpKind
    transaction: int
    address: str
    server: str
    next_server: str
    boot_file: str
    netmask: str


def dhcp_message(kind: DhcpKind, mac: str, transaction: int, offer: DhcpReply | None = None) -> bytes:
    """A DISCOVER, or a REQUEST for `offer`. The answer is asked for by broadcast: we have no address yet."""
    hardware = bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0")
    none = bytes(4)
    head = _BOOTP.pack(1, 1, 6, 0, transaction, 0, _BROADCAST, none, none, none, none, hardware, b"", b"")
    options = [(53, bytes([kind])), (57, struct.pack(">H", 576))]
    if offer is not None:
        options += [(50, _four(offer.address)), (54, _four(offer.server))]
    options += [(93, _ARCHITECTURE), (94, b"\x01\x00\x00"), (60, VENDOR_CLASS), (55, _PARAMETERS)]
    packed = b"".join(bytes([code, len(value)]) + value for code, value in options)
    return (head + _COOKIE + packed + b"\xff").ljust(300, b"\0")  # BOOTP's minimum, RFC 951


def parse_dhcp(datagram: bytes, mac: str, transaction: int) -> DhcpReply | None:
    """The reply in `datagram` if it is one for us, else None."""
    if len(datagram) < _BOOTP.size + 4 or datagram[_BOOTP.size : _BOOTP.size + 4] != _COOKIE:
        return None
    fields = _BOOTP.unpack_from(datagram)
    if fields[0] != 2 or fields[4] != transaction or fields[11][:6] != bytes.fromhex(mac.replace(":", "")):
        return None
    options = _options(datagram[_BOOTP.size + 4 :])
    kind = options.get(53, b"")
    if len(kind) != 1 or kind[0] not in set(DhcpKind):
        return None
    server = options.get(54, fields[9])
    boot_file = options.get(67) or fields[13]
    return DhcpReply(
        kind=DhcpKind(kind[0]),
        transaction=transaction,
        address=_dotted(fields[8]),
        server=_dotted(server),
        next_server=_dotted(fields[9]) if any(fields[9]) else _dotted(server),
        boot_file=boot_file.split(b"\0")[0].decode("ascii", "replace"),
        netmask=_dotted(options.get(1, b"\xff\xff\xff\x00")),
    )


def _options(area: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(area) and area[at] != 255:
        if area[at] == 0:
            at += 1
            continue
        if at + 1 >= len(area):
            break
        code, length = area[at], area[at + 1]
        found[code] = found.get(code, b"") + area[at + 2 : at + 2 + length]
        at += 2 + length
    return found


def _four(dotted: str) -> bytes:
    return bytes(int(part) for part in dotted.split("."))


def _dotted(four: bytes) -> str:
    return ".".join(str(octet) for octet in four[:4])


# --- TFTP, RFC 1350 with RFC 2347/2348 ---------------------------------------------------------------------------

_RRQ, _DATA, _ACK, _ERROR, _OACK = 1, 3, 4, 5, 6


def read_request(path: str) -> bytes:
    """An RRQ with U-Boot's options."""
    options = (b"octet", b"timeout", b"5", b"blksize", str(BLOCK_BYTES).encode())
    return struct.pack(">H", _RRQ) + path.encode() + b"\0" + b"\0".join(options) + b"\0"


class Download:
    """The client's side of one transfer. `take` says what to answer; `content` is whole when `finished`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.finished = False
        self._parts: list[bytes] = []
        self._size = 0
        self._block = 0
        self._block_bytes = 512  # RFC 1350, until an OACK says otherwise

    @property
    def content(self) -> bytes:
        return b"".join(self._parts)

    def take(self, packet: bytes) -> bytes | None:
        """The packet to answer with, or None when there is nothing to say.

        Raises:
            BootError: the server refused, or sent too much.
        """
        if len(packet) < 4:
            return None
        code, number = struct.unpack_from(">HH", packet)
        if code == _ERROR:
            text = packet[4:].split(b"\0")[0].decode("ascii", "replace")
            raise BootError(f"TFTP {self.path}: error {number}: {text}")
        if code == _OACK and not self._parts:
            fields = packet[2:].lower().split(b"\0")
            if b"blksize" in fields[::2]:
                self._block_bytes = int(fields[2 * fields[::2].index(b"blksize") + 1])
            return struct.pack(">HH", _ACK, 0)
        if code != _DATA:
            return None
        if number == (self._block + 1) & 0xFFFF and not self.finished:
            self._append(packet[4:])
        # A repeated block is not acknowledged again while we wait for the next (RFC 1123, 4.2.3.1), unless it is
        # the last one: its acknowledgement may have been lost.
        elif number != self._block & 0xFFFF or not self.finished:
            return None
        return struct.pack(">HH", _ACK, number)

    def _append(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self._block += 1
        self.finished = len(data) < self._block_bytes
        if self._size > MAX_FILE_BYTES:
            raise BootError(f"TFTP {self.path}: more than {MAX_FILE_BYTES} bytes")


# --- the PXE configuration ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PxeEntry:
    """What the configuration says to boot; files are in the order in which U-Boot fetches them."""

    files: tuple[str, ...]
    cmdline: dict[str, str]


def configuration_path(boot_file: str, mac: str) -> str:
    """Where PXE looks for this board's configuration: beside its boot file, by MAC address."""
    folder = boot_file.rpartition("/")[0]
    name = f"pxelinux.cfg/01-{mac.replace(':', '-').lower()}"
    return f"{folder}/{name}" if folder else name


def parse_pxe(text: str, boot_file: str) -> PxeEntry:
    """The first entry of a PXE configuration (syslinux.txt, as far as U-Boot's `pxe` reads it).

    Raises:
        BootError: it names no kernel.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        key = {"linux": "kernel", "devicetree": "fdt"}.get(word.lower(), word.lower())
        if key in {"kernel", "initrd", "fdt", "append"} and key not in found:
            found[key] = rest.strip()
    if "kernel" not in found:
        raise BootError("the PXE configuration names no kernel")
    folder = boot_file.rpartition("/")[0]
    files = [found[key] for key in ("initrd", "kernel", "fdt") if key in found]
    placed = tuple(f"{folder}/{name}" if folder and not name.startswith("/") else name for name in files)
    words = (word.partition("=") for word in found.get("append", "").split())
    return PxeEntry(placed, {key: value for key, _, value in words})
