"""One transfer on its own socket: its TID (RFC 1350 section 4). The socket is connected, so the kernel drops packets of
others, and bound to the address that was asked, so the answer comes from where the client expects it.

Windows leave by UDP_SEGMENT (udp(7), Linux 4.18): one `send` of many packets, which the kernel or the network card
takes apart. Where that fails, this transfer goes on packet by packet.
"""

import errno
import os
import socket
from collections.abc import Iterator
from typing import NamedTuple, Self

from netboot.tftp_cache import PacketFile
from netboot.tftp_packet import (
    ERROR_UNDEFINED,
    Negotiated,
    Request,
    encode_ack,
    encode_error,
    encode_oack,
)
from netboot.tftp_pump import NOT_SENT, READ, Pump, Report
from netboot.tftp_socket import Peer
from netboot.tftp_source import Source
from netboot.tftp_transfer import Outcome, Span, Transfer

_TALK_BYTES = 256  # this keeps the text of most ERRORs: they come in answer to the OACK
_ACK_BYTES = 8  # afterwards: a small read costs 6 % less CPU in all, and of a late ERROR only the code is told
_SEND_BUFFER_BYTES = 208 * 1024  # Linux' default
_UDP_SEGMENT = 103  # linux/udp.h
_MAX_SEGMENTS = 64  # the least limit of any kernel
_MAX_SEND_BYTES = 65507  # what one UDP datagram over IPv4 could hold bounds all segments together
_NO_SEGMENTS = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
_NO_PACKETS = memoryview(b"")
_read, _write = os.read, os.write
_PASSING = frozenset({errno.ENOBUFS, errno.EPERM, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})


class Asked:
    """A request whose file the parent has not named yet."""

    __slots__ = ("at", "local", "number", "peer", "request")

    def __init__(self, number: int, request: Request, peer: Peer, local: str, at: float) -> None:
        self.number = number
        self.request = request
        self.peer = peer
        self.local = local
        self.at = at


class Origin(NamedTuple):
    """Where a session comes from: the question to the parent, and since when, in monotonic s. A repetition of the
    request is known by `request_hash`, 32 bits: a request takes half a kilobyte."""

    number: int
    request_hash: int
    peer: Peer
    started: float


class Session:
    """Socket, file and transfer of one request that was answered.

    Args:
        source: the file, opened for its block size as `packets`.
        oack: the first packet; empty where no option was agreed upon, or once it was answered.
    """

    __slots__ = (
        "_at_once",
        "_fd",
        "_first",
        "_last",
        "_pump",
        "_pumped",
        "_receive_bytes",
        "_segmented",
        "_source",
        "_view",
        "number",
        "oack",
        "packets",
        "peer",
        "problem",
        "request_hash",
        "sock",
        "started",
        "transfer",
    )

    def __init__(
        self,
        *,
        origin: Origin,
        sock: socket.socket,
        source: Source,
        packets: PacketFile,
        oack: bytes,
        transfer: Transfer,
        pump: Pump | None,
    ) -> None:
        self.number, self.request_hash, self.peer, self.started = origin
        self.sock = sock
        self._fd = sock.fileno()
        self.problem = ""
        self.oack = oack
        self._source = source
        self.packets = packets
        self._view = _NO_PACKETS
        self._first, self._last = 1, 0
        self._receive_bytes = _TALK_BYTES if transfer.base <= 0 else _ACK_BYTES
        self._segmented: bool | None = None  # not known
        self._pump = pump
        self._pumped = False
        self._at_once = max(1, min(transfer.window, _MAX_SEGMENTS, _MAX_SEND_BYTES // packets.stride))
        self.transfer = transfer

    @classmethod
    def begin(
        cls,
        *,
        asked: Asked,
        sock: socket.socket,
        source: Source,
        negotiated: Negotiated,
        now: float,
        rollover: int = 0,
        pump: Pump | None = None,
    ) -> Self:
        """The session of a new transfer."""
        packets = source.open(negotiated.block_bytes, rollover)
        window = negotiated.window
        burst_bytes = packets.stride * window
        if 2 * burst_bytes > _SEND_BUFFER_BYTES:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * burst_bytes)
        transfer = Transfer(
            size=packets.size,
            block_bytes=negotiated.block_bytes,
            window=window,
            with_oack=bool(negotiated.accepted),
            now=now,
            timeout_s=negotiated.timeout_s,
            rollover=rollover,
        )
        session = cls(
            origin=Origin(asked.number, hash(asked.request) & 0xFFFFFFFF, asked.peer, now),
            sock=sock,
            source=source,
            packets=packets,
            oack=encode_oack(negotiated.accepted) if negotiated.accepted else b"",
            transfer=transfer,
            pump=pump,
        )
        session._segmented = False
        return session

    @property
    def waits(self) -> bool:
        """Whether nothing happens before a packet comes or the transfer's deadline, so that it can `let_go`."""
        transfer = self.transfer
        return not (self._pumped or transfer.in_lane() or transfer.pacing) and transfer.outcome is None

    def let_go(self) -> None:
        """Leave socket and file open for who makes this session again."""
        self.sock.detach()

    def start(self, now: float) -> None:
        """Send the first packets."""
        self._send(self.transfer.start(now))

    def repeat_start(self, now: float) -> None:
        """The same request came again."""
        if not self._pumped:  # who is in a lane was heard, and needs no first packet
            self._send(self.transfer.repeat_start(now))

    def readable(self, now: float) -> bool:
        """Take what has come; True when the owner must look at `ended` and at the transfer's deadline.

        One and no more: a client on another core answers while we still send, and would keep all others waiting.
        """
        transfer, packets = self.transfer, None
        try:
            # os.read and os.write: 0.1 us less than the socket's methods, of some 2 us in all
            data = _read(self._fd, self._receive_bytes)
            packets = transfer.in_stride(data, now)
            if packets is not None:
                _write(self._fd, packets)
                return False
        except OSError as error:
            if packets is not None and self._unsegmented(error):
                self._send(transfer.again(now))
            else:
                self._failed(error)
        else:
            self._take(data, now)
        return transfer.outcome is not None or transfer.pacing

    def handed_up(self, report: Report, now: float) -> bool:
        """What the pump could not deal with; the result is that of `readable`."""
        transfer = self.transfer
        pump = self._pump
        if pump is not None and self._pumped:  # else the report is of another transfer, whose descriptor this one got
            self._pumped = False
            transfer.left(report.awaited, report.sent_at)
            if report.kind == READ:
                self._take(report.data, now)
            else:
                error = OSError(report.number, os.strerror(report.number))
                if report.kind == NOT_SENT and self._unsegmented(error):
                    self._send(transfer.again(now))
                else:
                    self._failed(error)
            if transfer.in_lane() and not self._pumped and transfer.outcome is None:
                self._pumped = True
                pump.resume(self._fd)
        return transfer.outcome is not None or transfer.pacing

    def _take(self, data: bytes, now: float) -> None:
        transfer = self.transfer
        self._send(transfer.on_packet(data, now))
        self._receive_bytes = _ACK_BYTES if transfer.base > 0 else _TALK_BYTES

    def _take_back(self) -> None:
        """End the pump's lane."""
        if self._pump is not None and self._pumped:
            self._pumped = False
            self._pump.close(self._fd)
            self.transfer.left(*self._pump.peek(self._fd))

    def timer(self, now: float) -> None:
        """Call at the transfer's deadline."""
        transfer = self.transfer
        if self._pump is not None and self._pumped:
            transfer.left(*self._pump.peek(self._fd))
            if now < transfer.deadline:
                return  # it goes on in the pump
            self._take_back()
        self._send(transfer.on_timer(now))

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
        self._take_back()
        self.problem = "the client began another transfer from the same port"
        self.transfer.on_unreachable()

    def close(self) -> None:
        """Close socket and file."""
        self._take_back()
        self.sock.close()
        self._source.close()

    def _send(self, span: Span | None) -> None:
        if span is None:
            return
        try:
            if span.first == 0:
                self._segments(on=False)  # an OACK longer than a packet of DATA would be taken apart
                self.sock.send(self.oack)
            else:
                self._emit(span.first, span.last)
        except OSError as error:
            self._failed(error)

    def _emit(self, first: int, last: int) -> None:
        """Send blocks `first` to `last`, as many at once as the kernel takes."""
        stride = self.packets.stride
        if self._at_once > 1:
            self._segments(on=True)
        while first <= last:
            if not self._first <= first <= self._last:
                self._load(first)
            end = min(last, self._last, first + self._at_once - 1)
            start = (first - self._first) * stride
            try:
                self.sock.send(self._view[start : start + (end - first + 1) * stride])
            except OSError as error:
                if not self._unsegmented(error):
                    raise
                continue
            first = end + 1
        if self._at_once >= self.transfer.window and self.transfer.steady:
            self._open_lane(last + 1)

    def _open_lane(self, block: int) -> None:
        transfer, pump = self.transfer, self._pump
        if pump is None:
            transfer.open_lane(self._lane(block))
            return
        size, start = transfer.window * self.packets.stride, (block - self._first) * self.packets.stride
        awaited = transfer.wire_number(block - 1)
        if pump.open(self._fd, self._view, start, size, awaited, transfer.window, transfer.sent_at):
            self._pumped = True
            transfer.pumped()

    def _lane(self, block: int) -> Iterator[tuple[memoryview, bytes]]:
        """The full windows of full blocks from `block` on that are in this chunk, and their ACKs."""
        window, stride, view = self.transfer.window, self.packets.stride, self._view
        last = min(self._last, self.transfer.total)
        ends = range(block + window - 1, last + 1, window)
        size = window * stride
        starts = range((block - self._first) * stride, len(view) - size + 1, size)
        return zip(
            [view[start : start + size] for start in starts], [encode_ack(end & 0xFFFF) for end in ends], strict=False
        )

    def _load(self, block: int) -> None:
        """Have the chunk that `block` is in."""
        packets = self.packets
        index = (block - 1) // packets.chunk_blocks
        self._view = self._source.chunk(packets, index)
        self._first = index * packets.chunk_blocks + 1
        self._last = self._first + packets.chunk_blocks - 1

    def _segments(self, *, on: bool) -> None:
        if on == self._segmented:
            return
        try:
            self.sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, self.packets.stride if on else 0)
        except OSError:
            self._at_once = 1  # a kernel without it
        else:
            self._segmented = on

    def _unsegmented(self, error: OSError) -> bool:
        """Whether `error` means that UDP_SEGMENT does not work on this route; from now on it is not used."""
        if self._at_once == 1 or error.errno not in _NO_SEGMENTS:
            return False
        self._segments(on=False)
        self._at_once = 1
        self.transfer.close_lane()
        return True

    def _failed(self, error: OSError) -> None:
        """Receiving, reading or sending failed: nothing, or the end."""
        if isinstance(error, BlockingIOError) or error.errno in _PASSING:
            return  # a full send buffer, a cable that is out, a firewall that reloads: as good as lost
        if isinstance(error, ConnectionRefusedError):
            self.transfer.on_unreachable()
            return
        self.problem = error.strerror or str(error)
        self.transfer.outcome = Outcome.ABORTED
        try:
            self._segments(on=False)
            self.sock.send(encode_error(ERROR_UNDEFINED, self.problem))
        except OSError:
            return
