"""Codec for DHCPv4 messages: RFC 2131 section 2 (the frame), RFC 2132 (options), RFC 3396 (long options).

Reading is tolerant (missing end option, padding, option overload) and never guesses: what is cut short or lacks the
magic cookie is a `DhcpPacketError`. Writing pads to the 300 octets that BOOTP clients insist on (RFC 1542 section 2.1).
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address

MAGIC_COOKIE = b"\x63\x82\x53\x63"
MIN_PACKET_BYTES = 300
MAX_PACKET_BYTES = 1500  # one Ethernet frame; nobody fragments DHCP
BROADCAST_FLAG = 0x8000
ETHERNET = 1
MAC_BYTES = 6
NO_ADDRESS = IPv4Address(0)

_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_FIXED_BYTES = 236
_CHADDR_AT = 28
_OPTION_MAX_BYTES = 255
_OVERLOAD_FILE = 1
_OVERLOAD_SNAME = 2


class Op(IntEnum):
    """RFC 951 `op`."""

    REQUEST = 1
    REPLY = 2


class MessageType(IntEnum):
    """Option 53, RFC 2132 section 9.6."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(IntEnum):
    """The options that we read or write, RFC 2132 unless noted."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    DNS = 6
    HOST_NAME = 12
    BROADCAST_ADDRESS = 28
    VENDOR_SPECIFIC = 43
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    MESSAGE = 56
    VENDOR_CLASS = 60
    CLIENT_ID = 61
    TFTP_SERVER = 66
    BOOT_FILE = 67
    USER_CLASS = 77  # RFC 3004; iPXE writes its bare name here
    RELAY_INFORMATION = 82  # RFC 3046
    CLIENT_ARCH = 93  # RFC 4578
    CLIENT_UUID = 97  # RFC 4578
    IPXE = 175  # ipxe.org: options in options
    END = 255


class DhcpPacketError(ValueError):
    """The octets are no DHCP message, or the message cannot be written; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class DhcpPacket:
    """One message. `options` are in the order of the wire, each code once; `chaddr` holds `hlen` octets.

    A message that used option overload (52) reads as if it had not: its options are all in `options`, and `file` and
    `sname` are empty where they had carried options.
    """

    op: int
    xid: int
    chaddr: bytes
    htype: int = ETHERNET
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: IPv4Address = NO_ADDRESS
    yiaddr: IPv4Address = NO_ADDRESS
    siaddr: IPv4Address = NO_ADDRESS
    giaddr: IPv4Address = NO_ADDRESS
    sname: bytes = b""
    file: bytes = b""
    options: tuple[tuple[int, bytes], ...] = field(default=())

    def option(self, code: int) -> bytes | None:
        """The value of option `code`, or None when it is absent."""
        for found, value in self.options:
            if found == code:
                return value
        return None

    def address_option(self, code: int) -> IPv4Address | None:
        """The value of option `code` as one address; None when it is absent or not four octets."""
        value = self.option(code)
        return IPv4Address(value) if value is not None and len(value) == 4 else None

    def text_option(self, code: int) -> str:
        """The value of option `code` as printable ASCII, other octets as `?`, trailing NULs cut; `""` when absent."""
        value = (self.option(code) or b"").rstrip(b"\0")
        return "".join(chr(octet) if 32 <= octet < 127 else "?" for octet in value)

    @property
    def message_type(self) -> MessageType | None:
        """Option 53; None for plain BOOTP and for numbers that RFC 2132 does not know."""
        value = self.option(Option.MESSAGE_TYPE)
        if value is None or len(value) != 1:
            return None
        try:
            return MessageType(value[0])
        except ValueError:
            return None

    @property
    def mac(self) -> str | None:
        """The client's MAC address as `52:54:00:12:34:56`; None where it is not Ethernet or nobody's own address."""
        if self.htype != ETHERNET or len(self.chaddr) != MAC_BYTES:
            return None
        if self.chaddr[0] & 1 or not any(self.chaddr):
            return None
        return self.chaddr.hex(":")

    @property
    def is_relayed(self) -> bool:
        """Whether a relay agent passed the message on (RFC 1542 section 4.1.1)."""
        return self.giaddr != NO_ADDRESS

    @property
    def wants_broadcast(self) -> bool:
        """RFC 2131 section 4.1: the client cannot take a unicast before it has an address."""
        return bool(self.flags & BROADCAST_FLAG)


def _read_options(area: bytes, where: str, into: dict[int, bytes]) -> None:
    position = 0
    while position < len(area):
        code = area[position]
        position += 1
        if code == Option.PAD:
            continue
        if code == Option.END:
            return
        if position >= len(area):
            raise DhcpPacketError(f"option {code} in {where} has no length")
        length = area[position]
        value = area[position + 1 : position + 1 + length]
        if len(value) != length:
            raise DhcpPacketError(f"option {code} in {where} is cut short: {len(value)} of {length} octets")
        position += 1 + length
        into[code] = into.get(code, b"") + value  # RFC 3396: the parts of one option are joined


def client_octets(data: bytes) -> bytes:
    """The client's hardware address in a message that nobody has looked at; `b""` where it is too short for one."""
    return data[_CHADDR_AT : _CHADDR_AT + min(data[2], 16)] if len(data) >= _FIXED_BYTES else b""


def parse(data: bytes) -> DhcpPacket:
    """One UDP payload as a message.

    Raises:
        DhcpPacketError: too short, too long, no magic cookie, an option cut short, or an impossible address length.
    """
    if len(data) < _FIXED_BYTES + len(MAGIC_COOKIE):
        raise DhcpPacketError(f"{len(data)} octets are too short for DHCP")
    if len(data) > MAX_PACKET_BYTES:
        raise DhcpPacketError(f"{len(data)} octets are more than the {MAX_PACKET_BYTES} of one frame")
    op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file = _FIXED.unpack_from(
        data
    )
    if data[_FIXED_BYTES : _FIXED_BYTES + 4] != MAGIC_COOKIE:
        raise DhcpPacketError("the magic cookie is missing: plain BOOTP or no DHCP at all")
    if hlen > len(chaddr):
        raise DhcpPacketError(f"a hardware address of {hlen} octets does not fit its field")
    options: dict[int, bytes] = {}
    _read_options(data[_FIXED_BYTES + 4 :], "the options field", options)
    overload = options.pop(Option.OVERLOAD, b"\0")
    if len(overload) != 1 or overload[0] > _OVERLOAD_FILE | _OVERLOAD_SNAME:
        raise DhcpPacketError(f"option overload has the value {overload.hex()}")
    if overload[0] & _OVERLOAD_FILE:
        _read_options(file, "the file field", options)
        file = b""
    if overload[0] & _OVERLOAD_SNAME:
        _read_options(sname, "the sname field", options)
        sname = b""
    options.pop(Option.OVERLOAD, None)
    return DhcpPacket(
        op=op,
        xid=xid,
        chaddr=chaddr[:hlen],
        htype=htype,
        hops=hops,
        secs=secs,
        flags=flags,
        ciaddr=IPv4Address(ciaddr),
        yiaddr=IPv4Address(yiaddr),
        siaddr=IPv4Address(siaddr),
        giaddr=IPv4Address(giaddr),
        sname=sname.partition(b"\0")[0],
        file=file.partition(b"\0")[0],
        options=tuple(options.items()),
    )


def _write_options(options: tuple[tuple[int, bytes], ...]) -> bytes:
    out = bytearray()
    for code, value in options:
        if not Option.PAD < code < Option.END or code == Option.OVERLOAD:
            raise DhcpPacketError(f"option {code} cannot be written as an option with a value")
        for start in range(0, max(len(value), 1), _OPTION_MAX_BYTES):
            part = value[start : start + _OPTION_MAX_BYTES]
            out += bytes((code, len(part))) + part
    return bytes(out) + bytes((Option.END,))


def encode(packet: DhcpPacket) -> bytes:
    """A message as one UDP payload.

    Raises:
        DhcpPacketError: a field does not fit, or the whole is longer than one frame.
    """
    if len(packet.chaddr) > 16 or len(packet.sname) > 64 or len(packet.file) > 128:
        raise DhcpPacketError("a field is too long: chaddr has 16 octets, sname 64, file 128")
    try:
        fixed = _FIXED.pack(
            packet.op,
            packet.htype,
            len(packet.chaddr),
            packet.hops,
            packet.xid,
            packet.secs,
            packet.flags,
            packet.ciaddr.packed,
            packet.yiaddr.packed,
            packet.siaddr.packed,
            packet.giaddr.packed,
            packet.chaddr,
            packet.sname,
            packet.file,
        )
    except struct.error as error:
        raise DhcpPacketError(f"a number does not fit its field: {error}") from error
    data = fixed + MAGIC_COOKIE + _write_options(packet.options)
    if len(data) > MAX_PACKET_BYTES:
        raise DhcpPacketError(f"{len(data)} octets are more than the {MAX_PACKET_BYTES} of one frame")
    return data.ljust(MIN_PACKET_BYTES, b"\0")
