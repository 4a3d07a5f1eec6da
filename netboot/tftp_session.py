"""One transfer on its own socket: its TID (RFC 1350 section 4). The socket is connected, so the kernel drops packets of
others, and bound to the address that was asked, so the answer comes from where the client expects it."""

import errno
import socket

from netboot.tftp_packet import (
    ERROR_UNDEFINED,
    Negotiated,
    Request,
    data_head,
    encode_error,
    encode_oack,
    negotiate,
)
from netboot.tftp_source import BytesSource, FileSource
from netboot.tftp_transfer import Outcome, Span, Transfer

Peer = tuple[str, int]

_RECEIVE_BYTES = 256  # an ACK has 4; this keeps the text of most ERRORs and stays in the small-object allocator
_IP_MTU = 14  # linux/in.h
_SEND_BUFFER_BYTES = 256 * 1024  # a window of large blocks fits


def open_peer_socket(local: str, peer: Peer, interface: str | None) -> socket.socket:
    """A non-blocking UDP socket from the address `local`, connected to `peer`.

    Raises:
        OSError: there is no route to the client, or no descriptor left.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.bind((local, 0))
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


class Asked:
    """A request whose file the parent has not named yet."""

    __slots__ = ("at", "local", "number", "peer", "request")

    def __init__(self, number: int, request: Request, peer: Peer, local: str, at: float) -> None:
        self.number = number
        self.request = request
        self.peer = peer
        self.local = local
        self.at = at


class Session:
    """Socket, file and transfer of one request. `number` is the question to the parent that it came from."""

    __slots__ = (
        "_oack",
        "_source",
        "negotiated",
        "number",
        "peer",
        "problem",
        "request",
        "sock",
        "started",
        "transfer",
    )

    def __init__(
        self,
        *,
        number: int,
        request: Request,
        peer: Peer,
        sock: socket.socket,
        source: BytesSource | FileSource,
        negotiated: Negotiated,
        now: float,
    ) -> None:
        self.number = number
        self.request = request
        self.peer = peer
        self.sock = sock
        self.started = now
        self.problem = ""
        self.negotiated = negotiated
        self._source = source
        self._oack = encode_oack(negotiated.accepted) if negotiated.accepted else b""
        if negotiated.block_bytes * negotiated.window > _SEND_BUFFER_BYTES // 4:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * negotiated.block_bytes * negotiated.window)
        self.transfer = Transfer(
            size=source.size,
            block_bytes=negotiated.block_bytes,
            window=negotiated.window,
            with_oack=bool(self._oack),
            now=now,
            timeout_s=negotiated.timeout_s,
        )

    def start(self, now: float) -> None:
        """Send the first packets."""
        self._send(self.transfer.start(now))

    def repeat_start(self, now: float) -> None:
        """The same request came again."""
        self._send(self.transfer.repeat_start(now))

    def readable(self, now: float) -> None:
        """Take one packet."""
        try:
            data = self.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionRefusedError:
            self.transfer.on_unreachable()
            return
        except OSError as error:
            self._fail(error)
            return
        self._send(self.transfer.on_packet(data, now))

    def timer(self, now: float) -> None:
        """Call at the transfer's deadline."""
        self._send(self.transfer.on_timer(now))

    @property
    def ended(self) -> bool:
        """Whether it is over; the owner then calls `close`."""
        return self.transfer.outcome is not None

    @property
    def complete(self) -> bool:
        """Whether the client has the whole file."""
        return self.transfer.outcome is Outcome.COMPLETE

    def reason(self) -> str:
        """Why it ended early."""
        code, text = self.transfer.client_error
        outcome = self.transfer.outcome
        if self.problem or outcome is None:
            return self.problem or "stopped"
        return f"{outcome.value}: {code} {text}" if outcome is Outcome.ABORTED else outcome.value

    def abandon(self) -> None:
        """The client began anew from the same port: the old transfer ends, as done if only its last ACK was missing."""
        self.problem = "the client began another transfer from the same port"
        self.transfer.on_unreachable()

    def close(self) -> None:
        """Close socket and file."""
        self.sock.close()
        self._source.close()

    def _send(self, span: Span | None) -> None:
        if span is None:
            return
        transfer, send = self.transfer, self.sock.sendmsg
        try:
            for block in range(span.first, span.last + 1):
                if block == 0:
                    send((self._oack,))
                else:
                    view = self._source.block(*transfer.extent(block))
                    send((data_head(transfer.wire_number(block)), view))
        except BlockingIOError:
            return  # the send buffer is full: as good as lost, and the timer mends that
        except ConnectionRefusedError:
            transfer.on_unreachable()
        except OSError as error:
            if error.errno not in {errno.ENOBUFS, errno.EPERM, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}:
                self._fail(error)  # the others pass: a cable is out, a firewall reloads

    def _fail(self, error: OSError) -> None:
        self.problem = error.strerror or str(error)
        self.transfer.outcome = Outcome.ABORTED
        try:
            self.sock.send(encode_error(ERROR_UNDEFINED, self.problem))
        except OSError:
            return


def route_mtu(sock: socket.socket, limit_bytes: int) -> int:
    """The MTU towards the connected peer, at most `limit_bytes`."""
    try:
        return min(sock.getsockopt(socket.IPPROTO_IP, _IP_MTU), limit_bytes)
    except OSError:
        return limit_bytes


def agreed(request: Request, size: int, sock: socket.socket, mtu_limit_bytes: int, max_window: int) -> Negotiated:
    """The options of `request` on the route of `sock`."""
    mtu = route_mtu(sock, mtu_limit_bytes)
    return negotiate(request, size=size, mtu_bytes=mtu, max_window=max_window)
