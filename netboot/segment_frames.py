"""Ethernet frames that the watch of a segment reads and sends: ARP (RFC 826, RFC 5227), and DHCP in UDP in IPv4."""

import fcntl
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

BROADCAST_MAC = b"\xff" * 6
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_TYPE_IPV4, _TYPE_ARP = 0x0800, 0x0806
_ARP_HEAD = (1, _TYPE_IPV4, 6, 4)
_ARP_OPERATIONS = frozenset({1, 2})
_UDP_NUMBER = 17
_FRAGMENT = 0x1FFF
_TTL = 64
_SIOCGIFHWADDR = 0x8927  # linux/sockios.h
_ARPHRD_ETHER = 1  # linux/if_arp.h
SERVER_PORT, CLIENT_PORT = 67, 68

# Classic BPF (linux/filter.h) as (code, jump if true, jump if false, value): ARP, and UDP to port 68.
WATCH_FILTER: tuple[tuple[int, int, int, int], ...] = (
    (0x28, 0, 0, 12),
    (0x15, 8, 0, _TYPE_ARP),
    (0x15, 0, 8, _TYPE_IPV4),
    (0x30, 0, 0, 23),
    (0x15, 0, 6, _UDP_NUMBER),
    (0x28, 0, 0, 20),
    (0x45, 4, 0, _FRAGMENT),
    (0xB1, 0, 0, 14),
    (0x48, 0, 0, 16),
    (0x15, 0, 1, CLIENT_PORT),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)


def hardware_address(interface: str) -> tuple[int, bytes]:
    """The kind of hardware (ARPHRD_..., linux/if_arp.h) and the first six octets of its address.

    Raises:
        OSError: no such interface.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("16s24x", interface.encode()))
    kind, mac = struct.unpack_from("=H6s", answer, 16)
    return kind, mac


def is_ethernet(interface: str) -> bool:
    """Whether frames of this module can travel there. Not on loopback, nor where there is no such interface."""
    try:
        return hardware_address(interface)[0] == _ARPHRD_ETHER
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class ArpClaim:
    """A station says by ARP that it has an address."""

    mac: str
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class UdpSeen:
    """A datagram to a DHCP client."""

    mac: str
    source: IPv4Address
    payload: bytes


def read(frame: bytes) -> ArpClaim | UdpSeen | None:
    """What a frame tells; None for all that says nothing to us, cut short or not."""
    if len(frame) < _ETHERNET.size:
        return None
    _, _, kind = _ETHERNET.unpack_from(frame)
    body = frame[_ETHERNET.size :]
    if kind == _TYPE_ARP:
        return _read_arp(body)
    return _read_udp(frame[6:12], body) if kind == _TYPE_IPV4 else None


def _read_arp(body: bytes) -> ArpClaim | None:
    if len(body) < _ARP.size:
        return None
    hardware, protocol, hardware_size, size, operation, mac, address, _, _ = _ARP.unpack_from(body)
    sane = (hardware, protocol, hardware_size, size) == _ARP_HEAD and operation in _ARP_OPERATIONS
    # RFC 5227 section 1.1: a probe has no sender address; it asks, and claims nothing.
    if not sane or not any(address) or not any(mac) or mac[0] & 1:
        return None
    return ArpClaim(mac.hex(":"), IPv4Address(address))


def _read_udp(mac: bytes, body: bytes) -> UdpSeen | None:
    if len(body) < _IPV4.size or body[0] >> 4 != 4:
        return None
    header = (body[0] & 0x0F) * 4
    total, fragment, protocol, source = (
        int.from_bytes(body[2:4], "big"),
        int.from_bytes(body[6:8], "big"),
        body[9],
        body[12:16],
    )
    if header < _IPV4.size or protocol != _UDP_NUMBER or fragment & _FRAGMENT or not header + _UDP.size <= total:
        return None
    datagram = body[header:total]
    if len(datagram) < _UDP.size:
        return None
    _, port, length, _ = _UDP.unpack_from(datagram)
    if port != CLIENT_PORT or not _UDP.size <= length <= len(datagram):
        return None
    return UdpSeen(mac.hex(":"), IPv4Address(source), datagram[_UDP.size : length])


def arp_probe(mac: bytes, address: IPv4Address) -> bytes:
    """Asks who has `address` without claiming one (RFC 5227 section 2.1.1)."""
    body = _ARP.pack(*_ARP_HEAD, 1, mac, bytes(4), bytes(6), address.packed)
    return (_ETHERNET.pack(BROADCAST_MAC, mac, _TYPE_ARP) + body).ljust(60, b"\0")


def from_client(mac: bytes, payload: bytes) -> bytes:
    """A DHCP client's broadcast from a station without an address (RFC 2131 section 4.1)."""
    nobody, everybody = bytes(4), b"\xff" * 4
    length = _UDP.size + len(payload)
    datagram = _UDP.pack(CLIENT_PORT, SERVER_PORT, length, 0) + payload
    pseudo = nobody + everybody + struct.pack("!HH", _UDP_NUMBER, length)
    # RFC 768: 0 would mean "no checksum".
    datagram = _UDP.pack(CLIENT_PORT, SERVER_PORT, length, _checksum(pseudo + datagram) or 0xFFFF) + payload
    fields = (0x45, 0x10, _IPV4.size + length, 0, 0, _TTL, _UDP_NUMBER)
    header = _IPV4.pack(*fields, _checksum(_IPV4.pack(*fields, 0, nobody, everybody)), nobody, everybody)
    return (_ETHERNET.pack(BROADCAST_MAC, mac, _TYPE_IPV4) + header + datagram).ljust(60, b"\0")


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
