"""DHCP on one interface: the socket around `dhcp_policy`.

The socket is bound to the interface by name, so that messages of other networks never arrive here. Answers to a client
that has no address yet are broadcast even where the client would take a unicast: sending to an address that nobody
answers ARP for needs a raw socket or a forged neighbour entry, and every client takes the broadcast too (RFC 2131
section 4.1 allows it). Clients with an address get theirs as unicast.
"""

import asyncio
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from netboot.dhcp_events import ClientTooFast, SegmentEvent
from netboot.dhcp_packet import DhcpPacket, DhcpPacketError, MessageType, client_octets, encode, parse
from netboot.dhcp_policy import LIMITED_BROADCAST, Decision, Reply
from netboot.dhcp_rate import Admission, ClientRates
from netboot.dhcp_settings import BoardIndex
from netboot.errors import NetbootStartError
from netboot.events import DhcpSeen
from netboot.segment_watch import SegmentWatch

log = logging.getLogger(__name__)

SERVER_PORT = 67
_BATCH = 32  # messages per wake-up: a storm of them must not starve the rest of the loop
_RECEIVE_BYTES = 2048
_IP_PKTINFO = 8  # linux/in.h; the socket module names it only from Python 3.14 on
_CLIENT_PORT_OFFSET = 1  # 67 -> 68; tests on high ports keep the distance
_RECEIVE_BUFFER_BYTES = 1 << 20  # a whole shelf that powers up at once asks within milliseconds


class DhcpStartError(NetbootStartError):
    """The DHCP socket could not be opened; the message names interface and port and says what to do."""


def open_socket(interface: str, port: int) -> socket.socket:
    """A non-blocking UDP socket that hears only `interface`.

    Raises:
        DhcpStartError: no such interface, no permission, or the port is taken.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.bind(("0.0.0.0", port))
    except OSError as error:
        sock.close()
        raise DhcpStartError(
            f"cannot serve DHCP on interface {interface}, port {port}: {error.strerror}; check that the interface "
            "exists, that no other DHCP server runs on it, and that we have CAP_NET_BIND_SERVICE and CAP_NET_RAW",
        ) from error
    return sock


class Policy(Protocol):
    """What decides: `DhcpPolicy`, or one of the two of a proxy."""

    def handle(self, packet: DhcpPacket, received_on: str, now: float) -> Decision:
        """Decide on one message. `now` is monotonic, in seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Watching:
    """Who looks on. `on_alert` is called in the event loop and must not block; `boards` tells which clients are known:
    they do not share the rate of strangers. `watch` sees what clients send; `on_offer` hears each address that is
    offered. `stored` is asked after each decision: an answer waits for the future that it gives, so that no lease is
    confirmed which a kill would void; None: nothing is unstored."""

    on_alert: Callable[[SegmentEvent], None] = lambda _: None
    boards: Callable[[], BoardIndex] | None = None
    watch: SegmentWatch | None = None
    on_offer: Callable[[IPv4Address], None] = lambda _: None
    stored: Callable[[], asyncio.Future[None] | None] = lambda: None


_NOBODY_WATCHES = Watching()


class DhcpServer:
    """Serves one interface from `start` to `stop`. `on_event` is called in the event loop and must not block.
    `to_sender`: answers go to where the message came from, as on a proxy's port 4011."""

    def __init__(
        self,
        policy: Policy,
        *,
        interface: str,
        server_address: IPv4Address,
        on_event: Callable[[DhcpSeen], None],
        clock: Callable[[], float],
        port: int = SERVER_PORT,
        watching: Watching = _NOBODY_WATCHES,
        to_sender: bool = False,
    ) -> None:
        self._policy = policy
        self._interface = interface
        self._server_address = server_address
        self._on_event = on_event
        self._clock = clock
        self._port = port
        self._watching = watching
        self._to_sender = to_sender
        self._rates = ClientRates()
        self._socket: socket.socket | None = None
        self.counters: Counter[str] = Counter()

    def start(self) -> None:
        """Open the socket and listen. Must run in the event loop.

        Raises:
            DhcpStartError: as `open_socket`.
        """
        if self._socket is None:
            self._socket = open_socket(self._interface, self._port)
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def stop(self) -> None:
        """Close the socket. May be called twice."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        for _ in range(_BATCH):
            if self._socket is None:
                return
            try:
                data, sender = self._socket.recvfrom(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                # The interface went away or down; the socket stays and works again when it is back.
                self._count("dhcp_receive_errors", "cannot receive on %s: %s", self._interface, error)
                return
            self._take(data, sender)

    def _take(self, data: bytes, sender: tuple[str, int]) -> None:
        self.counters["dhcp_received"] += 1
        now = self._clock()
        # Before anything is read: a client in a loop costs 10 us a message, not 100.
        if not self._allows(self._rates.client(client_octets(data).hex(":"), now)):
            return
        try:
            packet = parse(data)
        except DhcpPacketError as error:
            self._count("dhcp_malformed", "a malformed DHCP message on %s: %s", self._interface, error)
            return
        boards = self._watching.boards
        if boards is not None and boards().sender(packet) is None and not self._allows(self._rates.stranger(now)):
            return
        decision = self._policy.handle(packet, self._interface, now)
        waits_for = self._watching.stored()
        if waits_for is None:
            self._send_all(decision.replies, sender)
        else:
            waits_for.add_done_callback(lambda _: self._send_all(decision.replies, sender))
        for event in decision.events:
            self._on_event(event)
        watch = self._watching.watch
        if watch is not None:
            for alert in (*watch.client_message(packet, now), *watch.conflicts(decision.conflicts, now)):
                self._watching.on_alert(alert)

    def _allows(self, admission: Admission) -> bool:
        if admission.newly_refused is not None:
            name = admission.newly_refused
            log.warning("DHCP on %s: %s asks too often and is not answered", self._interface, name or "a flood of MACs")
            self._watching.on_alert(ClientTooFast(self._interface, name))
        if not admission.allowed:
            self.counters["dhcp_too_fast"] += 1
        return admission.allowed

    def _target(self, reply: Reply, sender: tuple[str, int]) -> tuple[str, int]:
        if reply.to_relay:
            return str(reply.destination), self._port
        if self._to_sender:
            return sender
        destination = reply.destination if reply.client_has_address else LIMITED_BROADCAST
        return str(destination), self._port + _CLIENT_PORT_OFFSET

    def _send_all(self, replies: Sequence[Reply], sender: tuple[str, int]) -> None:
        for reply in replies:
            self._send(reply, sender)

    def _send(self, reply: Reply, sender: tuple[str, int]) -> None:
        if self._socket is None:
            return
        try:
            data = encode(reply.packet)
        except DhcpPacketError as error:
            # What a client says comes back to it (client id, UUID, relay information), and it may be too long for that.
            self._count("dhcp_unwritable", "an answer on %s cannot be written: %s", self._interface, error)
            return
        target = self._target(reply, sender)
        # The source must be the address that stands in option 54, also where the interface has several.
        packet_info = struct.pack("=I4s4s", 0, self._server_address.packed, bytes(4))
        try:
            self._socket.sendmsg(
                [data],
                [(socket.IPPROTO_IP, _IP_PKTINFO, packet_info)],
                0,
                target,
            )
        except OSError as error:
            self._count("dhcp_send_errors", "cannot answer on %s to %s: %s", self._interface, target[0], error)
        else:
            self.counters["dhcp_answered"] += 1
            if reply.packet.message_type is MessageType.OFFER and not reply.to_relay:
                self._watching.on_offer(reply.packet.yiaddr)

    def _count(self, counter: str, message: str, *details: object) -> None:
        """Count an oddity; the first of its kind is a warning, the rest are for debugging."""
        self.counters[counter] += 1
        log.log(logging.WARNING if self.counters[counter] == 1 else logging.DEBUG, message, *details)
