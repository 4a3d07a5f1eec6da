"""The well-known port: a socket per address family that tells which of our addresses a request was sent to."""

import errno
import os
import socket
import struct

from netboot.tftp_packet import MAX_REQUEST_BYTES
from netboot.tftp_settings import WorkerSettings
from netboot.tftp_socket import Peer

_IP_PKTINFO = 8  # linux/in.h
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50  # linux/in6.h
_PKTINFO_BYTES, _PKTINFO6_BYTES = 12, 20
_ANCILLARY_BYTES = 64
_RECEIVE_BUFFER_BYTES = 1 << 20  # a burst of requests from a whole shelf waits here

Arrived = tuple[bytes, Peer, str | None]
"""A packet, its sender and the local address it was sent to: None for broadcast, multicast and what is too long."""


def open_listeners(settings: WorkerSettings) -> list[socket.socket]:
    """Sockets for the address, and for the IPv6 address if one is set, with the same port.

    Raises:
        OSError: an address or the port cannot be had.
    """
    first = _open(socket.AF_INET, settings.address, settings.port, settings)
    listeners = [first]
    try:
        if settings.address6:
            port = int(first.getsockname()[1])
            listeners.append(_open(socket.AF_INET6, settings.address6, port, settings))
    except OSError:
        first.close()
        raise
    return listeners


def _open(family: socket.AddressFamily, address: str, port: int, settings: WorkerSettings) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        if settings.interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, settings.interface.encode() + b"\0")
        name, _, scope = address.partition("%")
        where = (name, port, 0, _scope(scope)) if family == socket.AF_INET6 else (name, port)
        if settings.shared_port:
            if settings.claim_port and port:
                _claim(family, where, settings.interface)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock


def _claim(family: socket.AddressFamily, where: tuple[str | int, ...], interface: str | None) -> None:
    """Fail when somebody else has the port, maybe another agent of ours: SO_REUSEPORT would not tell."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.bind(where)


def _scope(name: str) -> int:
    if not name:
        return 0
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise OSError(errno.ENODEV, f"{os.strerror(errno.ENODEV)}: {name}") from None


def receive(sock: socket.socket) -> Arrived | None:
    """The next packet, or None when none waits.

    Raises:
        OSError: the kernel reports an error of the socket.
    """
    try:
        data, ancillary, flags, sender = sock.recvmsg(MAX_REQUEST_BYTES + 1, _ANCILLARY_BYTES)
    except BlockingIOError:
        return None
    peer: Peer
    if len(sender) == 4:
        peer = (str(sender[0]), int(sender[1]), int(sender[2]), int(sender[3]))
    else:
        peer = (str(sender[0]), int(sender[1]))
    return data, peer, None if flags & socket.MSG_TRUNC else asked_address(ancillary)


def asked_address(ancillary: list[tuple[int, int, bytes]]) -> str | None:
    """The local address that a request was sent to; None for broadcast and multicast (RFC 1123 section 4.2.3.5)."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= _PKTINFO_BYTES:
            _, local, destination = struct.unpack_from("=I4s4s", data)
            return socket.inet_ntoa(local) if local == destination else None
        if level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO and len(data) >= _PKTINFO6_BYTES:
            return None if data[0] == 0xFF else socket.inet_ntop(socket.AF_INET6, data[:16])
    return None
