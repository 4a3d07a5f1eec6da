"""The socket of one transfer: made, asked for its route, and made again from its descriptor."""

import socket

from netboot.tftp_packet import (
    IP6_UDP_TFTP_BYTES,
    IP_UDP_TFTP_BYTES,
    Negotiated,
    Request,
    encode_error,
    negotiate,
)

Peer = tuple[str, int] | tuple[str, int, int, int]

_IP_MTU = 14  # linux/in.h
_IPV6_MTU = 24  # linux/in6.h


def open_peer_socket(local: str, peer: Peer, interface: str | None) -> socket.socket:
    """A non-blocking UDP socket from the address `local`, connected to `peer`.

    Raises:
        OSError: there is no route to the client, or no descriptor left.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in peer[0] else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.bind((local, 0, 0, peer[3]) if len(peer) == 4 else (local, 0))
        sock.connect(peer)
    except OSError:
        sock.close()
        raise
    return sock


def send_error(local: str, peer: Peer, interface: str | None, code: int, message: str) -> None:
    """Refuse a request, from a port of its own as RFC 1350 wants it. A refusal that cannot be sent is lost."""
    try:
        with open_peer_socket(local, peer, interface) as sock:
            sock.send(encode_error(code, message))
    except OSError:
        return


def socket_again(fd: int, peer: Peer) -> socket.socket:
    """The socket that `detach` left as `fd`, without a system call."""
    family = socket.AF_INET6 if len(peer) == 4 else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0, fileno=fd)


def route_mtu(sock: socket.socket, limit_bytes: int) -> int:
    """The MTU towards the connected peer, at most `limit_bytes`."""
    level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if sock.family == socket.AF_INET6 else (socket.IPPROTO_IP, _IP_MTU)
    try:
        return min(sock.getsockopt(level, option), limit_bytes)
    except OSError:
        return limit_bytes


def agreed(request: Request, size: int, sock: socket.socket, mtu_limit_bytes: int, max_window: int) -> Negotiated:
    """The options of `request` on the route of `sock`."""
    return negotiate(
        request,
        size=size,
        mtu_bytes=route_mtu(sock, mtu_limit_bytes),
        max_window=max_window,
        head_bytes=IP6_UDP_TFTP_BYTES if sock.family == socket.AF_INET6 else IP_UDP_TFTP_BYTES,
    )
