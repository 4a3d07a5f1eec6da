"""Answers router solicitations with an advertisement that promises nothing (RFC 4861 sections 4.1, 4.2 and 6.2.6).

iPXE configures IPv6 beside IPv4 and waits 13 s where nobody answers. Our answer says: no router here (lifetime 0), no
prefix, no DHCPv6 (flags M and O are 0). A host that hears it sets up nothing, and stops waiting.

Needs CAP_NET_RAW, and a link-local address on the interface.
"""

import asyncio
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address

from netboot.errors import NetbootStartError
from netboot.segment_frames import hardware_address

log = logging.getLogger(__name__)

SOLICITATION, ADVERTISEMENT = 133, 134
ALL_NODES, ALL_ROUTERS = IPv6Address("ff02::1"), IPv6Address("ff02::2")
NEEDED_HOP_LIMIT = 255
"""RFC 4861 section 6.1.1: what passed a router has less, and is not from this link."""
MIN_BETWEEN_MULTICASTS_S = 3.0
"""RFC 4861 section 10, MIN_DELAY_BETWEEN_RAS."""
MAX_ANSWERS_PER_S = 100
ANNOUNCEMENTS = 3
"""RFC 4861 section 10, MAX_INITIAL_RTR_ADVERTISEMENTS."""
BETWEEN_ANNOUNCEMENTS_S = 4.0
"""Section 10 has at most 16 s; clients of ours wait 13 s at most, and a new address needs 1 to 2 s to be confirmed."""
_UNSPECIFIED = IPv6Address(0)
_SOLICITATION_BYTES = 8
_SOURCE_LINK_ADDRESS = 1
_ICMP6_FILTER = 1  # linux/icmpv6.h
_IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT = 51, 52  # linux/in6.h
_BATCH = 32
_RECEIVE_BYTES = 2048
_ANCILLARY_BYTES = 128


class RouterAdvertError(NetbootStartError):
    """Router solicitations cannot be answered; the message says why. Netboot works without: iPXE waits 13 s."""


def advertisement(mac: bytes) -> bytes:
    """The message, with checksum 0: the kernel fills it in for raw ICMPv6 sockets (RFC 3542 section 3.1)."""
    head = struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0)
    return head + bytes((_SOURCE_LINK_ADDRESS, 1)) + mac


def is_solicitation(data: bytes, source: IPv6Address, hop_limit: int) -> bool:
    """Whether this is a valid router solicitation (RFC 4861 section 6.1.1)."""
    if len(data) < _SOLICITATION_BYTES or data[0] != SOLICITATION or data[1] != 0 or hop_limit != NEEDED_HOP_LIMIT:
        return False
    position = _SOLICITATION_BYTES
    while position < len(data):
        size = data[position + 1] * 8 if position + 1 < len(data) else 0
        if size == 0 or position + size > len(data):
            return False
        if data[position] == _SOURCE_LINK_ADDRESS and source == _UNSPECIFIED:
            return False
        position += size
    return True


@dataclass(slots=True)
class Answers:
    """Whom to answer, and how often; no I/O."""

    second: float = 0.0
    answered: int = 0
    multicast_at: float | None = None

    def destination(self, data: bytes, source: IPv6Address, hop_limit: int, now: float) -> IPv6Address | None:
        """Where the answer goes, or None for none."""
        if not is_solicitation(data, source, hop_limit):
            return None
        if now - self.second >= 1:
            self.second, self.answered = now, 0
        self.answered += 1
        if self.answered > MAX_ANSWERS_PER_S:
            return None
        if source.is_link_local:
            return source
        if self.multicast_at is not None and now - self.multicast_at < MIN_BETWEEN_MULTICASTS_S:
            return None  # the one that has just gone out answers this one too, in time for the next try at the latest
        self.multicast_at = now
        return ALL_NODES


def open_socket(interface: str) -> socket.socket:
    """A non-blocking raw socket that hears router solicitations of `interface` alone.

    Raises:
        RouterAdvertError: no such interface, no IPv6 on it, or no CAP_NET_RAW.
    """
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
    except OSError as error:
        raise RouterAdvertError(_hint(interface, error)) from error
    try:
        blocked = bytearray(b"\xff" * 32)
        blocked[4 * (SOLICITATION // 32) : 4 * (SOLICITATION // 32) + 4] = struct.pack(
            "=I", 0xFFFFFFFF ^ (1 << SOLICITATION % 32)
        )
        index = socket.if_nametoindex(interface)
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(blocked))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, ALL_ROUTERS.packed + struct.pack("=I", index))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, NEEDED_HOP_LIMIT)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, NEEDED_HOP_LIMIT)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, 1)
    except OSError as error:
        sock.close()
        raise RouterAdvertError(_hint(interface, error)) from error
    return sock


def _hint(interface: str, error: OSError) -> str:
    return (
        f"cannot answer IPv6 router solicitations on {interface}: {error.strerror}; check that the interface exists "
        "and has IPv6, and that we have CAP_NET_RAW"
    )


class RouterAdvertiser:
    """Answers on one interface from `start` to `stop`, and says it unasked at the start for hosts that have just given
    up asking."""

    def __init__(self, interface: str, clock: Callable[[], float]) -> None:
        self._interface = interface
        self._message = b""
        self._clock = clock
        self._announced = 0
        self._timer: asyncio.TimerHandle | None = None
        self._answers = Answers()
        self._socket: socket.socket | None = None
        self._index = 0
        self.counters: Counter[str] = Counter()

    def start(self) -> None:
        """Open the socket and listen. Must run in the event loop.

        Raises:
            RouterAdvertError: as `open_socket`.
        """
        if self._socket is None:
            self._socket = open_socket(self._interface)
            self._index = socket.if_nametoindex(self._interface)
            self._message = advertisement(hardware_address(self._interface)[1])
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)
            self._announced = 0
            self._announce()

    def stop(self) -> None:
        """Close the socket. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        for _ in range(_BATCH):
            if self._socket is None:
                return
            try:
                data, ancillary, _, (host, *_) = self._socket.recvmsg(_RECEIVE_BYTES, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self.counters["ra_receive_errors"] += 1
                log.debug("cannot hear router solicitations on %s: %s", self._interface, error)
                return
            hops = [struct.unpack("=i", value[:4])[0] for _, kind, value in ancillary if kind == _IPV6_HOPLIMIT]
            self._take(data, host, hops[0] if hops else 0)

    def _take(self, data: bytes, host: str, hop_limit: int) -> None:
        self.counters["ra_solicited"] += 1
        try:
            source = IPv6Address(host.partition("%")[0])
        except AddressValueError:
            return
        destination = self._answers.destination(data, source, hop_limit, self._clock())
        if destination is not None and self._send(destination):
            self.counters["ra_answered"] += 1

    def _announce(self) -> None:
        self._announced += 1
        if self._send(ALL_NODES):
            self.counters["ra_announced"] += 1
        if self._announced < ANNOUNCEMENTS:
            self._timer = asyncio.get_running_loop().call_later(BETWEEN_ANNOUNCEMENTS_S, self._announce)

    def _send(self, destination: IPv6Address) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto(self._message, (str(destination), 0, 0, self._index))
        except OSError as error:
            # Just after the interface came up its own address is not confirmed yet (RFC 4862 section 5.4).
            self.counters["ra_send_errors"] += 1
            log.debug("cannot send a router advertisement to %s on %s: %s", destination, self._interface, error)
            return False
        return True
