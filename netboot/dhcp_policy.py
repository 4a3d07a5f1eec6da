"""What to answer to a DHCP message: decisions only, no sockets and no clock (RFC 2131 section 4.3).

We are the authority on the board network. A known board gets its reserved address and nothing else; an unknown one
gets an address of the pool, and only while joining is open. To all others we are silent, because another server may
look after them.

A message that a relay agent passed on is answered to the agent (RFC 1542 section 4), where the settings name its
network. Unknown boards may join only on our own network, where we see who is there.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from netboot.dhcp_events import AddressConflict, OtherAddress
from netboot.dhcp_leases import DECLINED_HOLD_S, OFFER_HOLD_S, LeaseTable
from netboot.dhcp_options import IPXE_BOOT_FILE, BootFileFor, ClientKind, boot_answer, client_kind
from netboot.dhcp_packet import BROADCAST_FLAG, NO_ADDRESS, DhcpPacket, MessageType, Op, Option
from netboot.dhcp_settings import BoardIndex, DhcpBoard, DhcpSettings, Subnet
from netboot.events import DhcpSeen

__all__ = [
    "DECLINED_HOLD_S",
    "LIMITED_BROADCAST",
    "OFFER_HOLD_S",
    "Decision",
    "DhcpBoard",
    "DhcpPolicy",
    "DhcpSettings",
    "Reply",
    "seen",
]

LIMITED_BROADCAST = IPv4Address("255.255.255.255")
_MAX_OTHER_MACS = 1024  # a bound on memory; travelling adapters are few


@dataclass(frozen=True, slots=True)
class Reply:
    """A message to send. `destination` follows RFC 2131 section 4.1; where it is the client's future address, the
    client does not answer ARP yet and the adapter has to find a way. `to_relay`: it goes to the server's port."""

    packet: DhcpPacket
    destination: IPv4Address
    client_has_address: bool = False
    to_relay: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from one message: at most one reply, and what to tell."""

    replies: tuple[Reply, ...] = ()
    events: tuple[DhcpSeen, ...] = ()
    conflicts: tuple[AddressConflict | OtherAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a client may have: `board` is None for one from the pool."""

    address: IPv4Address
    board: DhcpBoard | None
    subnet: Subnet


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who asks. `mac` is its name in events and leases, whatever its hardware."""

    packet: DhcpPacket
    mac: str
    board: DhcpBoard | None
    subnet: Subnet
    now: float


def client_name(packet: DhcpPacket) -> str:
    """A client's MAC address; for other hardware, or an address that is nobody's own, its octets or `""`."""
    return packet.mac or packet.chaddr.hex(":")


def seen(
    packet: DhcpPacket, board: DhcpBoard | None, address: IPv4Address | None, answer: MessageType | None
) -> DhcpSeen:
    """The event that tells of one message."""
    kind = packet.message_type
    return DhcpSeen(
        mac=client_name(packet),
        board=board.board if board is not None else None,
        address=str(address) if address is not None else None,
        vendor_class=packet.text_option(Option.VENDOR_CLASS),
        message_type=kind.name if kind is not None else "",
        answer=answer.name if answer is not None else "",
    )


def reply_base(packet: DhcpPacket, kind: MessageType, server: IPv4Address) -> DhcpPacket:
    """What every answer says: type, server, and what the client wants to hear again."""
    options = [(int(Option.MESSAGE_TYPE), bytes((kind,))), (int(Option.SERVER_ID), server.packed)]
    # RFC 6842: the client id goes back; RFC 4578: so does the machine's UUID.
    for code in (Option.CLIENT_ID, Option.CLIENT_UUID):
        value = packet.option(code)
        if value is not None:
            options.append((int(code), value))
    return DhcpPacket(
        op=Op.REPLY,
        xid=packet.xid,
        chaddr=packet.chaddr,
        htype=packet.htype,
        flags=packet.flags,
        giaddr=packet.giaddr,
        options=tuple(options),
    )


def with_relay_information(reply: DhcpPacket, packet: DhcpPacket) -> DhcpPacket:
    """RFC 3046 section 2.2: the relay agent's option goes back unchanged, as the last one."""
    value = packet.option(Option.RELAY_INFORMATION)
    if value is None or not packet.is_relayed:
        return reply
    return replace(reply, options=(*reply.options, (int(Option.RELAY_INFORMATION), value)))


class DhcpPolicy:
    """Decides on every message of one interface. `leases` is the stored state of `LeaseTable`, for which `now` and
    `wall_s` are needed; `boot_file_for` is asked for every answer, by default the boards' own `boot_file` counts.

    Raises:
        ValueError: at construction, when an address lies outside the network, is the server's, stands twice, or lies
            in the pool; or a MAC address stands twice. The message names the board.
        LeasesStateError: `leases` cannot be read.
    """

    def __init__(
        self,
        settings: DhcpSettings,
        boards: Sequence[DhcpBoard],
        *,
        boot_file_for: BootFileFor | None = None,
        leases: Mapping[str, object] | None = None,
        now: float = 0.0,
        wall_s: float = 0.0,
    ) -> None:
        pool = settings.pool
        network = settings.network
        if pool is not None and not (pool[0] <= pool[1] and pool[0] in network and pool[1] in network):
            raise ValueError(f"the pool {pool[0]} to {pool[1]} must be a range inside of {network}")
        self._settings = settings
        self._boot_file_for = boot_file_for or self._boards_own_file
        self._boards = BoardIndex(settings, boards)
        reserved = (*settings.reserved, settings.server_address)
        self.leases = LeaseTable(pool, reserved, leases, now=now, wall_s=wall_s, lease_s=settings.lease_s)
        self.joining_open = False
        self.never_join: frozenset[str] = frozenset()
        """MAC addresses that get no address of the pool."""
        self._other_macs: OrderedDict[str, str] = OrderedDict()
        self._deciders: dict[MessageType, Callable[[_Asker], Decision]] = {
            MessageType.DISCOVER: self._discover,
            MessageType.REQUEST: self._request,
            MessageType.INFORM: self._inform,
            MessageType.RELEASE: self._give_back,
            MessageType.DECLINE: self._give_back,
        }

    def set_boards(self, boards: Sequence[DhcpBoard]) -> None:
        """Replace the known boards.

        Raises:
            ValueError: as at construction; the old boards then stay.
        """
        self._boards = BoardIndex(self._settings, boards)

    @property
    def boards(self) -> BoardIndex:
        """The known boards."""
        return self._boards

    def in_pool(self, address: IPv4Address) -> bool:
        """Whether `address` is one of the pool."""
        return address in self.leases

    def pool_mac(self, address: IPv4Address, now: float) -> str | None:
        """Who holds a pool address now."""
        return self.leases.holder(address, now)

    def handle(self, packet: DhcpPacket, received_on: str, now: float) -> Decision:
        """Decide on one message. `now` is monotonic, in seconds."""
        kind = packet.message_type
        subnet = self._settings.subnet_of_sender(packet)
        if received_on != self._settings.interface or packet.op != Op.REQUEST or kind is None or subnet is None:
            return Decision()
        board = self._boards.sender(packet)
        if packet.mac is None and board is None:
            return Decision()
        asker = _Asker(packet, client_name(packet), board, subnet, now)
        decide = self._deciders.get(kind)  # OFFER, ACK and NAK come from servers
        return decide(asker) if decide is not None else Decision()

    def occupied(self, address: IPv4Address, mac: str, now: float) -> tuple[AddressConflict, ...]:
        """`mac` was seen to use `address`: nothing where it may, else the conflict. A pool address is then left alone,
        and its holder hears a NAK when it asks again."""
        owner = self._boards.by_address.get(address)
        holder = self.leases.holder(address, now)
        if address == self._settings.server_address:
            return (self._conflict(address, mac, None, None),)  # our own frames are not shown to us
        if owner is not None:
            fine = mac in owner.macs or self._other_macs.get(mac) == owner.board
            return () if fine else (self._conflict(address, mac, owner, owner.macs[0] if owner.macs else None),)
        if address not in self.leases or holder == mac:
            return ()
        self.leases.in_use(address, now)
        return (self._conflict(address, mac, None, holder),) if holder is not None else ()

    def _conflict(self, address: IPv4Address, mac: str, board: DhcpBoard | None, owner: str | None) -> AddressConflict:
        name = board.board if board is not None else None
        return AddressConflict(self._settings.interface, str(address), mac, name, owner or "")

    def _discover(self, asker: _Asker) -> Decision:
        grant = self._grant(asker, asker.packet.address_option(Option.REQUESTED_ADDRESS))
        if grant is None:
            return self._silence(asker)
        if grant.board is None:
            self.leases.offer(grant.address, asker.mac, asker.now)
        return self._answer(asker, MessageType.OFFER, grant)

    def _request(self, asker: _Asker) -> Decision:
        packet, mac = asker.packet, asker.mac
        server = packet.address_option(Option.SERVER_ID)
        if server is not None and server != self._settings.server_address:
            self.leases.forget(mac)  # it took another server's offer
            return self._silence(asker)
        wanted = packet.address_option(Option.REQUESTED_ADDRESS)
        if wanted is None and packet.ciaddr != NO_ADDRESS:
            wanted = packet.ciaddr  # RENEWING or REBINDING
        held = self.leases.held_by(mac, asker.now)
        grant = self._grant(asker, wanted)
        if grant is None:
            # A stranger is not ours. One that we once let in, or that names us, hears that it is over; so does a board
            # that came from another network.
            ours = held is not None or server is not None or asker.board is not None
            return self._nak(asker) if ours else self._silence(asker)
        if wanted != grant.address:
            return self._nak(asker)
        if grant.board is None:
            self.leases.lease(grant.address, mac, asker.now + self._settings.lease_s)
        return self._answer(asker, MessageType.ACK, grant)

    def _inform(self, asker: _Asker) -> Decision:
        board = asker.board
        address = board.address if board is not None else self.leases.held_by(asker.mac, asker.now)
        if address is None or asker.packet.ciaddr != address:
            return self._silence(asker)
        return self._answer(asker, MessageType.ACK, _Grant(address, board, asker.subnet), lease=False)

    def _give_back(self, asker: _Asker) -> Decision:
        packet, mac, now = asker.packet, asker.mac, asker.now
        if packet.address_option(Option.SERVER_ID) not in {None, self._settings.server_address}:
            return Decision()
        declining = packet.message_type is MessageType.DECLINE
        address = packet.address_option(Option.REQUESTED_ADDRESS) if declining else packet.ciaddr
        conflicts: tuple[AddressConflict, ...] = ()
        if declining and address is not None:
            # RFC 2131 section 4.3.3: a DECLINE means that somebody else answers there; who, it does not say.
            own = asker.board is not None and asker.board.address == address
            if own or self.leases.decline(address, mac, now):
                conflicts = (self._conflict(address, "", asker.board, mac),)
        elif address is not None:
            self.leases.release(address, mac)
        event = seen(packet, asker.board, address if address != NO_ADDRESS else None, None)
        return Decision(events=(event,), conflicts=conflicts)

    def _grant(self, asker: _Asker, wanted: IPv4Address | None) -> _Grant | None:
        board, subnet = asker.board, asker.subnet
        if board is not None:
            return _Grant(board.address, board, subnet) if board.address in subnet.network else None
        may_join = self.joining_open and asker.mac not in self.never_join
        if not may_join or self._settings.pool is None or subnet != self._settings.local:
            return None
        address = self.leases.choose(asker.mac, wanted, asker.now)
        return _Grant(address, None, subnet) if address is not None else None

    # --- answers ---

    def _silence(self, asker: _Asker) -> Decision:
        return Decision(events=(seen(asker.packet, asker.board, None, None),))

    def _nak(self, asker: _Asker) -> Decision:
        packet = asker.packet
        base = reply_base(packet, MessageType.NAK, self._settings.server_address)
        options = (*base.options, (int(Option.MESSAGE), b"this address is not yours"))
        # RFC 2131 section 4.3.2: a NAK is always broadcast, by the relay too, since the client's address is wrong.
        flags = packet.flags | BROADCAST_FLAG if packet.is_relayed else packet.flags
        reply = with_relay_information(replace(base, flags=flags, options=options), packet)
        sent = Reply(reply, packet.giaddr, to_relay=True) if packet.is_relayed else Reply(reply, LIMITED_BROADCAST)
        return Decision((sent,), (seen(packet, asker.board, None, MessageType.NAK),))

    def _answer(self, asker: _Asker, kind: MessageType, grant: _Grant, *, lease: bool = True) -> Decision:
        packet = asker.packet
        base = reply_base(packet, kind, self._settings.server_address)
        board = grant.board.board if grant.board is not None else None
        client = client_kind(packet)
        boot_file = self._boot_file_for(board, client)
        boot = boot_answer(client, boot_file, self._settings.server_address)
        reply = replace(
            base,
            ciaddr=packet.ciaddr if kind is MessageType.ACK else NO_ADDRESS,
            yiaddr=grant.address if lease else NO_ADDRESS,
            siaddr=self._settings.server_address,
            file=boot.file,
            options=base.options + self._options(grant, lease=lease) + boot.options,
        )
        if grant.board is not None and asker.mac not in grant.board.macs:
            self._other_macs[asker.mac] = grant.board.board  # known by something else, and at home on this address
            if len(self._other_macs) > _MAX_OTHER_MACS:
                self._other_macs.popitem(last=False)
        event = seen(packet, grant.board, grant.address, kind)
        return Decision((self._addressed(with_relay_information(reply, packet), packet, grant.address),), (event,))

    @staticmethod
    def _addressed(reply: DhcpPacket, packet: DhcpPacket, address: IPv4Address) -> Reply:
        if packet.is_relayed:
            return Reply(reply, packet.giaddr, to_relay=True)
        if packet.ciaddr == address:
            return Reply(reply, packet.ciaddr, client_has_address=True)
        return Reply(reply, LIMITED_BROADCAST if packet.wants_broadcast else address)

    def _boards_own_file(self, board: str | None, kind: ClientKind) -> str | None:
        if kind in {ClientKind.IPXE, ClientKind.IPXE_TFTP}:
            return IPXE_BOOT_FILE
        known = self._boards.by_name.get(board) if board is not None else None
        return known.boot_file if known is not None else self._settings.joining_boot_file or None

    def _options(self, grant: _Grant, *, lease: bool) -> tuple[tuple[int, bytes], ...]:
        settings, subnet = self._settings, grant.subnet
        values: list[tuple[Option, bytes]] = [
            (Option.SUBNET_MASK, subnet.network.netmask.packed),
            (Option.BROADCAST_ADDRESS, subnet.network.broadcast_address.packed),
            (Option.ROUTER, subnet.router.packed),
            (Option.DNS, b"".join(server.packed for server in settings.dns)),
            (Option.LEASE_TIME, settings.lease_s.to_bytes(4, "big") if lease else b""),
            (Option.HOST_NAME, grant.board.board.encode() if grant.board is not None else b""),
        ]
        return tuple((int(code), value) for code, value in values if value)
