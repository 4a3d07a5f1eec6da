"""Watches a board network for what breaks the isolation of boards: a second DHCP server, and one MAC address on two
machines. Decisions only: messages and `now` in, alerts out. Sockets are in `segment_listener`.

Two machines with one MAC address are told from one machine that boots (firmware, boot loader and operating system
may each call themselves something else, and so may an initrd and the system after it) by what one machine never does.
The same program, by its vendor class:
- gives another UUID within a minute;
- comes back under a client id after another one was used, within seconds, or to renew what it got before that;
- comes back to a transaction after another one was begun, within seconds (RFC 2131 section 4.1: one at a time).
A machine that reboots repeats itself too, but not that fast.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from netboot.dhcp_events import AddressConflict, DuplicateMac, OtherAddress, RogueDhcpServer, SegmentEvent
from netboot.dhcp_options import client_uuids
from netboot.dhcp_packet import BROADCAST_FLAG, NO_ADDRESS, DhcpPacket, MessageType, Op, Option

PROBE_S = 300.0
"""How often a DISCOVER of ours asks who answers. A rogue server that hears boards is noticed with its first answer."""
FIRST_PROBE_S = 2.0
SAME_MOMENT_S = 60.0
AT_ONCE_S = 10.0
"""No board that reboots is back at its DISCOVER that fast, and clients that nobody answers repeat theirs faster."""
REPEAT_S = 600.0
"""An alert that goes on is told again after so long."""
GONE_AFTER_PROBES = 3
MAX_REMEMBERED = 1024
_NAMES_KEPT = 8
_FROM_SERVER = frozenset({MessageType.OFFER, MessageType.ACK, MessageType.NAK})
_NO_BOARD: Callable[[str], str | None] = lambda _: None  # noqa: E731


@dataclass(slots=True)
class _Names:
    """By what a program called itself or its transactions, and when last; the latest is at the end."""

    used: OrderedDict[bytes, float] = field(default_factory=OrderedDict)

    def came_back(self, name: bytes, now: float, *, within_s: float | None) -> bytes | None:
        """Note `name`. If it was used before, and then another one: that other one."""
        latest = next(reversed(self.used), None)
        before = self.used.pop(name, None)
        self.used[name] = now
        if len(self.used) > _NAMES_KEPT:
            self.used.popitem(last=False)
        if before is None or latest == name or (within_s is not None and now - before > within_s):
            return None
        return latest


@dataclass(slots=True)
class _Program:
    """What one program on a machine said of itself."""

    client_ids: _Names = field(default_factory=_Names)
    xids: _Names = field(default_factory=_Names)
    uuids: tuple[tuple[str, ...], float] | None = None


@dataclass(slots=True)
class _Client:
    programs: OrderedDict[bytes, _Program] = field(default_factory=OrderedDict)

    def program(self, name: bytes) -> _Program:
        found = self.programs.pop(name, None) or _Program()
        self.programs[name] = found
        if len(self.programs) > _NAMES_KEPT:
            self.programs.popitem(last=False)
        return found


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
        program = client.program(packet.option(Option.VENDOR_CLASS) or b"")
        reason = _other_identity(program, packet, now) or _old_transaction(program, packet, now)
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

    def conflicts(self, found: tuple[AddressConflict | OtherAddress, ...], now: float) -> tuple[SegmentEvent, ...]:
        """Those of the conflicts that a policy found which have not been told just now."""
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


def _other_identity(program: _Program, packet: DhcpPacket, now: float) -> str | None:
    uuids = client_uuids(packet)
    before, program.uuids = program.uuids, (uuids, now)
    if (
        before is not None
        and before[0]
        and uuids
        and now - before[1] < SAME_MOMENT_S
        and not set(before[0]) & set(uuids)
    ):
        return f"UUIDs {before[0][0]} and {uuids[0]}"
    client_id = packet.option(Option.CLIENT_ID) or b""
    if not client_id:
        return None
    other = program.client_ids.came_back(client_id, now, within_s=None if _renews(packet) else AT_ONCE_S)
    return f"client ids {other.hex()} and {client_id.hex()}" if other is not None else None


def _renews(packet: DhcpPacket) -> bool:
    """RFC 2131 section 4.3.2: only a program that has run ever since it got its address asks like this."""
    fields = (packet.option(Option.SERVER_ID), packet.option(Option.REQUESTED_ADDRESS))
    return packet.message_type is MessageType.REQUEST and packet.ciaddr != NO_ADDRESS and fields == (None, None)


def _old_transaction(program: _Program, packet: DhcpPacket, now: float) -> str | None:
    # Not of a REQUEST: U-Boot takes a late answer to its first DISCOVER after it has sent the second.
    if packet.message_type is not MessageType.DISCOVER:
        return None
    other = program.xids.came_back(packet.xid.to_bytes(4, "big"), now, within_s=AT_ONCE_S)
    return "two transactions at once" if other is not None else None
