"""The packet socket around `segment_watch`: hears ARP and the answers of foreign DHCP servers, probes for them, and
asks by ARP whether an offered pool address is in use, at the same moment as it is offered and without waiting.

Needs CAP_NET_RAW. Netboot works without it; then only what reaches our own DHCP port is watched.
"""

import asyncio
import ctypes
import logging
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address

from netboot.dhcp_events import AddressConflict, SegmentEvent
from netboot.dhcp_packet import DhcpPacketError, encode, parse
from netboot.errors import NetbootStartError
from netboot.segment_frames import WATCH_FILTER, ArpClaim, UdpSeen, arp_probe, from_client, read
from netboot.segment_watch import SegmentWatch, probe_message

log = logging.getLogger(__name__)

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23  # linux/if_packet.h
_ETH_P_ALL = 3
_FRAME_BYTES = 2048
_BATCH = 32
_TICK_S = 1.0

Occupied = Callable[[IPv4Address, str, float], tuple[AddressConflict, ...]]


class SegmentListenError(NetbootStartError):
    """The segment cannot be watched; the message names the interface and says what to do. Netboot works without."""


def open_socket(interface: str) -> socket.socket:
    """A non-blocking packet socket that takes ARP and DHCP answers of `interface`, and none of our own frames.

    Raises:
        SegmentListenError: no such interface, or no CAP_NET_RAW.
    """
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except OSError as error:
        raise SegmentListenError(_hint(interface, error)) from error
    try:
        code = b"".join(struct.pack("HBBI", *step) for step in WATCH_FILTER)
        held = ctypes.create_string_buffer(code, len(code))
        header = struct.pack("HxxxxxxP", len(WATCH_FILTER), ctypes.addressof(held))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
        sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        sock.bind((interface, _ETH_P_ALL))
    except OSError as error:
        sock.close()
        raise SegmentListenError(_hint(interface, error)) from error
    return sock


def _hint(interface: str, error: OSError) -> str:
    return (
        f"cannot watch interface {interface} for foreign DHCP servers: {error.strerror}; check that it exists, and "
        "that we have CAP_NET_RAW"
    )


class SegmentListener:
    """Watches one interface from `start` to `stop`. `occupied` judges an ARP claim (`DhcpPolicy.occupied`); `on_alert`
    is called in the event loop and must not block."""

    def __init__(
        self,
        watch: SegmentWatch,
        *,
        interface: str,
        occupied: Occupied,
        on_alert: Callable[[SegmentEvent], None],
        clock: Callable[[], float],
    ) -> None:
        self._watch = watch
        self._interface = interface
        self._occupied = occupied
        self._on_alert = on_alert
        self._clock = clock
        self._socket: socket.socket | None = None
        self._mac = bytes(6)
        self._timer: asyncio.TimerHandle | None = None
        self.counters: Counter[str] = Counter()

    def start(self) -> None:
        """Open the socket and listen. Must run in the event loop.

        Raises:
            SegmentListenError: as `open_socket`.
        """
        if self._socket is None:
            self._socket = open_socket(self._interface)
            self._mac = self._socket.getsockname()[4]
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)
            self._tick()

    def stop(self) -> None:
        """Close the socket. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def check(self, address: IPv4Address) -> None:
        """Ask who uses `address`; an answer comes to `occupied`."""
        self._send(arp_probe(self._mac, address))

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        probe, ended = self._watch.tick(self._clock())
        for event in ended:
            self._on_alert(event)
        if probe:
            message = probe_message(self._mac.hex(":"), random.getrandbits(32))
            self._send(from_client(self._mac, encode(message)))

    def _send(self, frame: bytes) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(frame)
        except OSError as error:
            self.counters["segment_send_errors"] += 1
            log.debug("cannot send a probe on %s: %s", self._interface, error)
        else:
            self.counters["segment_probes"] += 1

    def _readable(self) -> None:
        for _ in range(_BATCH):
            if self._socket is None:
                return
            try:
                frame = self._socket.recv(_FRAME_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                # The interface went down; the socket hears again when it is back.
                self.counters["segment_receive_errors"] += 1
                log.debug("cannot hear %s: %s", self._interface, error)
                return
            self._take(frame)

    def _take(self, frame: bytes) -> None:
        found, now = read(frame), self._clock()
        events: tuple[SegmentEvent, ...] = ()
        if isinstance(found, ArpClaim):
            events = self._watch.conflicts(self._occupied(found.address, found.mac, now), now)
        elif isinstance(found, UdpSeen):
            try:
                events = self._watch.server_message(parse(found.payload), found.source, found.mac, now)
            except DhcpPacketError as error:
                self.counters["segment_malformed"] += 1
                log.debug("a malformed DHCP answer of %s on %s: %s", found.mac, self._interface, error)
        for event in events:
            self._on_alert(event)
