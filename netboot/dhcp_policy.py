"""What to answer to a DHCP message: decisions only, no sockets and no clock (RFC 2131 section 4.3).

We are the authority on the board network. A known board gets its reserved address and nothing else; an unknown one
gets an address of the pool, and only while joining is open. To all others we are silent, because another server may
look after them.

Reserved addresses stand in the settings, so a restart loses nothing. The pool is kept in memory and rebuilt from
requests: a client starts at the address that its MAC hashes to, and a client that comes back with an address we do
not remember keeps it when it is free. Clients that still clash find out by ARP and DECLINE.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from netboot.dhcp_packet import NO_ADDRESS, DhcpPacket, MessageType, Op, Option
from netboot.events import DhcpSeen

OFFER_HOLD_S = 60.0
"""How long an offered pool address waits for its REQUEST; clients decide within seconds (RFC 2131 section 4.4.1)."""
DECLINED_HOLD_S = 600.0
"""How long an address that somebody else already uses is left alone."""
LIMITED_BROADCAST = IPv4Address("255.255.255.255")
IPXE_BOOT_FILE = "boot.ipxe"


@dataclass(frozen=True, slots=True)
class DhcpBoard:
    """A known board: its id (also its host name), MAC addresses in lower case with colons, address and boot file."""

    board: str
    macs: tuple[str, ...]
    address: IPv4Address
    boot_file: str


@dataclass(frozen=True, slots=True)
class DhcpSettings:
    """What is the same for all boards. `pool` is the first and the last address for unknown boards."""

    interface: str
    server_address: IPv4Address
    network: IPv4Network
    lease_s: int
    router: IPv4Address
    dns: tuple[IPv4Address, ...] = ()
    pool: tuple[IPv4Address, IPv4Address] | None = None
    joining_boot_file: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A message to send. `destination` follows RFC 2131 section 4.1; where it is the client's future address, the
    client does not answer ARP yet and the adapter has to find a way."""

    packet: DhcpPacket
    destination: IPv4Address
    client_has_address: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from one message: at most one reply, and what to tell."""

    replies: tuple[Reply, ...] = ()
    events: tuple[DhcpSeen, ...] = ()


@dataclass(slots=True)
class _PoolLease:
    mac: str
    until: float


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a client may have: `board` is None for one from the pool."""

    address: IPv4Address
    board: DhcpBoard | None


class DhcpPolicy:
    """Decides on every message of one interface.

    Raises:
        ValueError: at construction, when an address lies outside the network, is the server's, stands twice, or lies
            in the pool; or a MAC address stands twice. The message names the board.
    """

    def __init__(self, settings: DhcpSettings, boards: Sequence[DhcpBoard]) -> None:
        pool = settings.pool
        network = settings.network
        if pool is not None and not (pool[0] <= pool[1] and pool[0] in network and pool[1] in network):
            raise ValueError(f"the pool {pool[0]} to {pool[1]} must be a range inside of {network}")
        self._settings = settings
        self._by_mac: dict[str, DhcpBoard] = {}
        self._leases: dict[IPv4Address, _PoolLease] = {}
        self.joining_open = False
        self.set_boards(boards)

    def set_boards(self, boards: Sequence[DhcpBoard]) -> None:
        """Replace the known boards.

        Raises:
            ValueError: as at construction; the old boards then stay.
        """
        by_mac: dict[str, DhcpBoard] = {}
        taken: dict[IPv4Address, str] = {self._settings.server_address: "the server"}
        for board in boards:
            if board.address not in self._settings.network:
                raise ValueError(f"board {board.board}: {board.address} is outside of {self._settings.network}")
            if board.address in taken:
                raise ValueError(f"board {board.board}: {board.address} already belongs to {taken[board.address]}")
            if self.in_pool(board.address):
                raise ValueError(f"board {board.board}: {board.address} lies in the pool; move one of them")
            taken[board.address] = board.board
            for mac in board.macs:
                if mac in by_mac:
                    raise ValueError(f"board {board.board}: {mac} already belongs to {by_mac[mac].board}")
                by_mac[mac] = board
        self._by_mac = by_mac

    def in_pool(self, address: IPv4Address) -> bool:
        """Whether `address` is one of the pool."""
        pool = self._settings.pool
        return pool is not None and pool[0] <= address <= pool[1]

    def pool_mac(self, address: IPv4Address, now: float) -> str | None:
        """Who holds a pool address now."""
        lease = self._leases.get(address)
        return lease.mac or None if lease is not None and lease.until > now else None

    def handle(self, packet: DhcpPacket, received_on: str, now: float) -> Decision:
        """Decide on one message. `now` is monotonic, in seconds."""
        mac, kind = packet.mac, packet.message_type
        ours = received_on == self._settings.interface and packet.op == Op.REQUEST and packet.giaddr == NO_ADDRESS
        if not ours or mac is None or kind is None:
            return Decision()
        match kind:
            case MessageType.DISCOVER:
                return self._discover(packet, mac, now)
            case MessageType.REQUEST:
                return self._request(packet, mac, now)
            case MessageType.INFORM:
                return self._inform(packet, mac, now)
            case MessageType.RELEASE | MessageType.DECLINE:
                return self._give_back(packet, mac, kind, now)
            case _:
                return Decision()  # OFFER, ACK and NAK come from servers

    def _discover(self, packet: DhcpPacket, mac: str, now: float) -> Decision:
        grant = self._grant(mac, packet.address_option(Option.REQUESTED_ADDRESS), now)
        if grant is None:
            return self._seen(packet, mac, None, None)
        if grant.board is None:
            self._hold(grant.address, mac, now + OFFER_HOLD_S)
        return self._answer(packet, mac, MessageType.OFFER, grant)

    def _request(self, packet: DhcpPacket, mac: str, now: float) -> Decision:
        server = packet.address_option(Option.SERVER_ID)
        if server is not None and server != self._settings.server_address:
            self._forget(mac)  # it took another server's offer
            return self._seen(packet, mac, None, None)
        wanted = packet.address_option(Option.REQUESTED_ADDRESS)
        if wanted is None and packet.ciaddr != NO_ADDRESS:
            wanted = packet.ciaddr  # RENEWING or REBINDING
        held = self._held_by(mac, now)
        grant = self._grant(mac, wanted, now)
        if grant is None:
            # A stranger is not ours. One that we once let in, or that names us, hears that it is over.
            return self._nak(packet, mac) if held or server is not None else self._seen(packet, mac, None, None)
        if wanted != grant.address:
            return self._nak(packet, mac)
        if grant.board is None:
            self._hold(grant.address, mac, now + self._settings.lease_s)
        return self._answer(packet, mac, MessageType.ACK, grant)

    def _inform(self, packet: DhcpPacket, mac: str, now: float) -> Decision:
        board = self._by_mac.get(mac)
        address = board.address if board is not None else self._held_by(mac, now)
        if address is None or packet.ciaddr != address:
            return self._seen(packet, mac, None, None)
        return self._answer(packet, mac, MessageType.ACK, _Grant(address, board), lease=False)

    def _give_back(self, packet: DhcpPacket, mac: str, kind: MessageType, now: float) -> Decision:
        if packet.address_option(Option.SERVER_ID) not in {None, self._settings.server_address}:
            return Decision()
        declined = packet.address_option(Option.REQUESTED_ADDRESS) if kind is MessageType.DECLINE else packet.ciaddr
        lease = self._leases.get(declined) if declined is not None else None
        if declined is not None and lease is not None and lease.mac == mac:
            if kind is MessageType.DECLINE:
                self._leases[declined] = _PoolLease("", now + DECLINED_HOLD_S)
            else:
                del self._leases[declined]
        return self._seen(packet, mac, declined if declined != NO_ADDRESS else None, None)

    # --- the pool ---

    def _grant(self, mac: str, wanted: IPv4Address | None, now: float) -> _Grant | None:
        board = self._by_mac.get(mac)
        if board is not None:
            return _Grant(board.address, board)
        if not self.joining_open or self._settings.pool is None:
            return None
        address = self._pool_address(mac, wanted, now)
        return _Grant(address, None) if address is not None else None

    def _pool_address(self, mac: str, wanted: IPv4Address | None, now: float) -> IPv4Address | None:
        held = self._held_by(mac, now)
        if held is not None:
            return held
        if wanted is not None and self._is_free(wanted, now):
            return wanted
        pool = self._settings.pool
        if pool is None:
            return None
        size = int(pool[1]) - int(pool[0]) + 1
        start = zlib.crc32(mac.encode()) % size
        for step in range(size):
            address = pool[0] + (start + step) % size
            if self._is_free(address, now):
                return address
        return None

    def _is_free(self, address: IPv4Address, now: float) -> bool:
        if not self.in_pool(address) or address == self._settings.server_address:
            return False
        lease = self._leases.get(address)
        return lease is None or lease.until <= now

    def _held_by(self, mac: str, now: float) -> IPv4Address | None:
        for address, lease in self._leases.items():
            if lease.mac == mac and lease.until > now:
                return address
        return None

    def _hold(self, address: IPv4Address, mac: str, until: float) -> None:
        lease = self._leases.get(address)
        if lease is not None and lease.mac == mac:
            until = max(until, lease.until)  # an offer does not shorten a lease
        self._leases[address] = _PoolLease(mac, until)

    def _forget(self, mac: str) -> None:
        self._leases = {address: lease for address, lease in self._leases.items() if lease.mac != mac}

    # --- answers ---

    def _seen(self, packet: DhcpPacket, mac: str, address: IPv4Address | None, answer: MessageType | None) -> Decision:
        return Decision(events=(self._event(packet, mac, address, answer),))

    def _event(self, packet: DhcpPacket, mac: str, address: IPv4Address | None, answer: MessageType | None) -> DhcpSeen:
        board = self._by_mac.get(mac)
        kind = packet.message_type
        return DhcpSeen(
            mac=mac,
            board=board.board if board is not None else None,
            address=str(address) if address is not None else None,
            vendor_class=packet.text_option(Option.VENDOR_CLASS),
            message_type=kind.name if kind is not None else "",
            answer=answer.name if answer is not None else "",
        )

    def _base(self, packet: DhcpPacket, kind: MessageType) -> DhcpPacket:
        options = [
            (int(Option.MESSAGE_TYPE), bytes((kind,))),
            (int(Option.SERVER_ID), self._settings.server_address.packed),
        ]
        # RFC 6842: the client id goes back; RFC 4578: so does the machine's UUID.
        for code in (Option.CLIENT_ID, Option.CLIENT_UUID):
            value = packet.option(code)
            if value is not None:
                options.append((int(code), value))
        return DhcpPacket(
            op=Op.REPLY,
            xid=packet.xid,
            chaddr=packet.chaddr,
            flags=packet.flags,
            options=tuple(options),
        )

    def _nak(self, packet: DhcpPacket, mac: str) -> Decision:
        base = self._base(packet, MessageType.NAK)
        reply = replace(base, options=(*base.options, (int(Option.MESSAGE), b"this address is not yours")))
        # RFC 2131 section 4.1: a NAK is always broadcast, since the client's address is wrong.
        return Decision((Reply(reply, LIMITED_BROADCAST),), (self._event(packet, mac, None, MessageType.NAK),))

    def _answer(
        self, packet: DhcpPacket, mac: str, kind: MessageType, grant: _Grant, *, lease: bool = True
    ) -> Decision:
        base = self._base(packet, kind)
        boot_file = self._boot_file(packet, grant)
        reply = replace(
            base,
            ciaddr=packet.ciaddr if kind is MessageType.ACK else NO_ADDRESS,
            yiaddr=grant.address if lease else NO_ADDRESS,
            siaddr=self._settings.server_address,
            file=boot_file,
            options=base.options + self._options(grant, boot_file, lease=lease),
        )
        if packet.ciaddr == grant.address:
            sent = Reply(reply, packet.ciaddr, client_has_address=True)
        elif packet.wants_broadcast:
            sent = Reply(reply, LIMITED_BROADCAST)
        else:
            sent = Reply(reply, grant.address)
        return Decision((sent,), (self._event(packet, mac, grant.address, kind),))

    def _boot_file(self, packet: DhcpPacket, grant: _Grant) -> bytes:
        if b"iPXE" in (packet.option(Option.USER_CLASS) or b""):
            return IPXE_BOOT_FILE.encode()
        name = grant.board.boot_file if grant.board is not None else self._settings.joining_boot_file
        return name.encode()

    def _options(self, grant: _Grant, boot_file: bytes, *, lease: bool) -> tuple[tuple[int, bytes], ...]:
        settings = self._settings
        values: list[tuple[Option, bytes]] = [
            (Option.SUBNET_MASK, settings.network.netmask.packed),
            (Option.BROADCAST_ADDRESS, settings.network.broadcast_address.packed),
            (Option.ROUTER, settings.router.packed),
            (Option.DNS, b"".join(server.packed for server in settings.dns)),
            (Option.LEASE_TIME, settings.lease_s.to_bytes(4, "big") if lease else b""),
            (Option.HOST_NAME, grant.board.board.encode() if grant.board is not None else b""),
            (Option.TFTP_SERVER, str(settings.server_address).encode() if boot_file else b""),
            (Option.BOOT_FILE, boot_file),
        ]
        return tuple((int(code), value) for code, value in values if value)
