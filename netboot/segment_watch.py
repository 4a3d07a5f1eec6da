"""Watches a board network for what breaks the isolation of boards: a second DHCP server, and one MAC address on two
machines. Decisions only: messages and `now` in, alerts out. Sockets are in `segment_listener`.

Two machines with one MAC address are told from one machine that boots (firmware, boot loader and operating system
may each call themselves something else) by what one program never does:
- the same program, by its vendor class, gives another client id or UUID within a minute;
- a transaction number comes back after another one was used (RFC 2131 section 4.1: a client keeps one at a time).
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from netboot.dhcp_events import AddressConflict, DuplicateMac, RogueDhcpServer, SegmentEvent
from netboot.dhcp_options import client_uuids
from netboot.dhcp_packet import BROADCAST_FLAG, DhcpPacket, MessageType, Op, Option

PROBE_S = 300.0
"""How often a DISCOVER of ours asks who answers. A rogue server that hears boards is noticed with its first answer."""
FIRST_PROBE_S = 2.0
SAME_MOMENT_S = 60.0
REPEAT_S = 600.0
"""An alert that goes on is told again after so long."""
GONE_AFTER_PROBES = 3
MAX_REMEMBERED = 1024
_XIDS_KEPT = 8
_FROM_SERVER = frozenset({MessageType.OFFER, MessageType.ACK, MessageType.NAK})
_NO_BOARD: Callable[[str], str | None] = lambda _: None  # noqa: E731


@dataclass(slots=True)
class _Program:
    """What one program on a machine said of itself, and when."""

    client_id: bytes = b""
    uuids: tuple[str, ...] = ()
    at: float = 0.0


@dataclass(slots=True)
class _Client:
    programs: OrderedDict[bytes, _Program] = field(default_factory=OrderedDict)
    xids: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_XIDS_KEPT))


@dataclass(slots=True)
class _Rogue:
    mac: str
    heard: float
    told: float


class SegmentWatch:
    """The watch of one interface. `friends` are DHCP servers that may answer; None: all may, as where we are a proxy
    or leave DHCP to others. `board_of` names the board with a MAC address."""

    def __init__(
        self,
        interface: str,
        server_address: IPv4Address,
        *,
        friends: Collection[IPv4Address] | None = (),
        board_of: Callable[[str], str | None] = _NO_BOARD,
        probe_s: float = PROBE_S,
    ) -> None:
        self._interface = interface
        self._server = server_address
        self._friends = friends
        self._board_of = board_of
        self._probe_s = probe_s
        self._next_probe: float | None = None
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._rogues: dict[str, _Rogue] = {}
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def client_message(self, packet: DhcpPacket, now: float) -> tuple[SegmentEvent, ...]:
        """A client's message that reached our server."""
        mac = packet.mac
        if mac is None or packet.is_relayed or packet.message_type not in {MessageType.DISCOVER, MessageType.REQUEST}:
            return ()
        client = self._clients.get(mac)
        if client is None:
            client = self._clients[mac] = _Client()
            if len(self._clients) > MAX_REMEMBERED:
                self._clients.popitem(last=False)
        self._clients.move_to_end(mac)
        reason = _other_identity(client, packet, now) or _old_transaction(client, packet.xid, now)
        if reason is None or not self._may_tell(("duplicate", mac), now):
            return ()
        return (DuplicateMac(self._interface, mac, self._board_of(mac), reason),)

    def server_message(
        self, packet: DhcpPacket, source: IPv4Address, source_mac: str, now: float
    ) -> tuple[SegmentEvent, ...]:
        """A server's message that is not ours: our own frames never come back to us. One that gives our address as its
        own counts too."""
        if self._friends is None or packet.op != Op.REPLY or packet.message_type not in _FROM_SERVER:
            return ()
        server = packet.address_option(Option.SERVER_ID) or source
        if server in self._friends:
            return ()
        name = str(server)
        rogue = self._rogues.get(name)
        if rogue is None:
            if len(self._rogues) >= MAX_REMEMBERED:
                return ()
            self._rogues[name] = _Rogue(source_mac, now, now)
            return (RogueDhcpServer(self._interface, name, source_mac),)
        rogue.heard, rogue.mac = now, source_mac
        if now - rogue.told < REPEAT_S:
            return ()
        rogue.told = now
        return (RogueDhcpServer(self._interface, name, source_mac),)

    def conflicts(self, found: tuple[AddressConflict, ...], now: float) -> tuple[SegmentEvent, ...]:
        """Those of the conflicts that the policy found which have not been told just now."""
        return tuple(one for one in found if self._may_tell((one.address, one.mac), now))

    def tick(self, now: float) -> tuple[bool, tuple[SegmentEvent, ...]]:
        """Whether it is time to probe, and what has ended. Call it every second or so."""
        if self._friends is None:
            return False, ()
        if self._next_probe is None:
            self._next_probe = now + FIRST_PROBE_S
        probe = now >= self._next_probe
        if probe:
            self._next_probe = now + self._probe_s
        gone = [name for name, rogue in self._rogues.items() if now - rogue.heard > GONE_AFTER_PROBES * self._probe_s]
        ended = tuple(
            RogueDhcpServer(self._interface, name, self._rogues.pop(name).mac, present=False) for name in gone
        )
        return probe, ended

    def _may_tell(self, key: tuple[str, str], now: float) -> bool:
        told = self._told.get(key)
        if told is not None and now - told < REPEAT_S:
            return False
        self._told[key] = now
        self._told.move_to_end(key)
        if len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)
        return True


def probe_message(mac: str, xid: int) -> DhcpPacket:
    """A DISCOVER that only wants to know who answers; nobody ever asks for what is offered to it."""
    return DhcpPacket(
        op=Op.REQUEST,
        xid=xid,
        chaddr=bytes.fromhex(mac.replace(":", "")),
        flags=BROADCAST_FLAG,  # so that the answer comes as a broadcast, which we hear without having an address
        options=(
            (int(Option.MESSAGE_TYPE), bytes((MessageType.DISCOVER,))),
            (int(Option.VENDOR_CLASS), b"boardhand-probe"),
        ),
    )


def _other_identity(client: _Client, packet: DhcpPacket, now: float) -> str | None:
    name = packet.option(Option.VENDOR_CLASS) or b""
    said = _Program(packet.option(Option.CLIENT_ID) or b"", client_uuids(packet), now)
    before = client.programs.pop(name, None)
    client.programs[name] = said
    if len(client.programs) > _XIDS_KEPT:
        client.programs.popitem(last=False)
    if before is None or now - before.at > SAME_MOMENT_S:
        return None
    if before.client_id != said.client_id and before.client_id and said.client_id:
        return f"client ids {before.client_id.hex()} and {said.client_id.hex()}"
    if before.uuids and said.uuids and not set(before.uuids) & set(said.uuids):
        return f"UUIDs {before.uuids[0]} and {said.uuids[0]}"
    return None


def _old_transaction(client: _Client, xid: int, now: float) -> str | None:
    while client.xids and now - client.xids[0][1] > SAME_MOMENT_S:
        client.xids.popleft()
    if client.xids and client.xids[-1][0] == xid:
        client.xids[-1] = (xid, now)
        return None
    came_back = any(used == xid for used, _ in client.xids)
    client.xids.append((xid, now))
    return "two transactions at once" if came_back else None
