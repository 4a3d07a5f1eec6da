"""A netlink socket in the event loop."""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

NETLINK_ROUTE, NETLINK_KOBJECT_UEVENT = 0, 15
UEVENT_GROUP = 1
"""The kernel's own group; udev speaks to its clients in group 2."""
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 16 * 1024 * 1024
"""Each waiting uevent costs about 2.5 KiB of it, so a storm of 1,000 fits twice over; it is not used until then."""
TURN_S = 0.005
"""How long one turn of the loop may read; the rest is read in the next, after everybody else."""


class NetlinkSocket:
    """Hands each datagram of the kernel's to `on_datagram`. `on_overflow`: the buffer was full, something was lost.
    Both run in the event loop and must not block."""

    def __init__(
        self,
        protocol: int,
        groups: int,
        *,
        max_bytes: int,
        on_datagram: Callable[[bytes], None],
        on_overflow: Callable[[], None],
        buffer_bytes: int = RECEIVE_BUFFER_BYTES,
    ) -> None:
        self._protocol, self._groups, self._max_bytes = protocol, groups, max_bytes
        self._on_datagram, self._on_overflow = on_datagram, on_overflow
        self._buffer_bytes = buffer_bytes
        self._socket: socket.socket | None = None
        self._overflowed = False

    def open(self) -> None:
        """Listen from now on.

        Raises:
            OSError: the kernel has no such family, or forbids it (a container, a seccomp filter).
        """
        found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._protocol)
        try:
            found.setblocking(False)
            self._widen(found)
            found.bind((0, self._groups))
        except OSError:
            found.close()
            raise
        self._socket = found
        asyncio.get_running_loop().add_reader(found, self._readable)

    def _widen(self, found: socket.socket) -> None:
        try:
            found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, self._buffer_bytes)
        except OSError:  # without CAP_NET_ADMIN, as far as net.core.rmem_max allows
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)

    def send(self, datagram: bytes) -> None:
        """Ask the kernel. It takes a request at once.

        Raises:
            OSError: it did not.
        """
        if self._socket is not None:
            self._socket.sendto(datagram, (0, 0))

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        until = time.monotonic() + TURN_S
        while self._socket is not None:
            try:
                datagram, sender = self._socket.recvfrom(self._max_bytes)
            except BlockingIOError:
                if self._overflowed:
                    # Only now: while the buffer is full, the kernel's answers would be dropped too.
                    self._overflowed = False
                    self._on_overflow()
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                log.warning("netlink %d: the kernel dropped messages; looking at everything anew", self._protocol)
                self._overflowed = True
                continue
            if sender[0] == 0:  # another process may send to us, and is not the kernel
                self._on_datagram(datagram)
            if time.monotonic() >= until:
                return
