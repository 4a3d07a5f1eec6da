"""Who is known on a board network, and what is the same for all: the input of the DHCP policies."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from netboot.dhcp_options import client_uuids
from netboot.dhcp_packet import DhcpPacket, Option

_Key = TypeVar("_Key", str, bytes)


@dataclass(frozen=True, slots=True)
class DhcpBoard:
    """A known board: its id (also its host name), MAC addresses in lower case with colons, address and boot file.

    `uuid` (SMBIOS) and `client_ids` (option 61, with its type octet) know the board again where the MAC address does
    not, as behind a USB network adapter that travels.
    """

    board: str
    macs: tuple[str, ...]
    address: IPv4Address
    boot_file: str
    uuid: str | None = None
    client_ids: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Subnet:
    """A network of boards and its router."""

    network: IPv4Network
    router: IPv4Address


@dataclass(frozen=True, slots=True)
class DhcpSettings:
    """What is the same for all boards. `pool` is the first and the last address for unknown boards; `reserved` are
    addresses in it that are never given. `relayed` are the networks whose relay agents are answered; the relay's
    address (giaddr) must lie in its network."""

    interface: str
    server_address: IPv4Address
    network: IPv4Network
    lease_s: int
    router: IPv4Address
    dns: tuple[IPv4Address, ...] = ()
    pool: tuple[IPv4Address, IPv4Address] | None = None
    joining_boot_file: str = ""
    reserved: tuple[IPv4Address, ...] = ()
    relayed: tuple[Subnet, ...] = ()

    @property
    def local(self) -> Subnet:
        """The network of the interface itself."""
        return Subnet(self.network, self.router)

    def subnet_of(self, address: IPv4Address) -> Subnet | None:
        """The network with this address; None for none of ours."""
        return next((subnet for subnet in (self.local, *self.relayed) if address in subnet.network), None)

    def subnet_of_sender(self, packet: DhcpPacket) -> Subnet | None:
        """Where a message was sent: the relay's network, or ours. A renewal comes from a relayed network without the
        relay's help (RFC 2131 section 4.3.2), so its address tells. None: an unknown relay's."""
        if packet.is_relayed:
            return next((subnet for subnet in self.relayed if packet.giaddr in subnet.network), None)
        return next((subnet for subnet in self.relayed if packet.ciaddr in subnet.network), self.local)

    def in_pool(self, address: IPv4Address) -> bool:
        """Whether `address` is one of the pool."""
        return self.pool is not None and self.pool[0] <= address <= self.pool[1]


class BoardIndex:
    """Boards by what a message says of its sender.

    Raises:
        ValueError: an address lies outside the networks, is the server's, stands twice, or lies in the pool; or a MAC
            address, UUID or client id stands twice. The message names the board.
    """

    def __init__(self, settings: DhcpSettings, boards: Sequence[DhcpBoard]) -> None:
        self._by_mac: dict[str, DhcpBoard] = {}
        self._by_uuid: dict[str, DhcpBoard] = {}
        self._by_client_id: dict[bytes, DhcpBoard] = {}
        self.by_address: dict[IPv4Address, DhcpBoard] = {}
        self.by_name = {board.board: board for board in boards}
        for board in boards:
            self._check_address(settings, board)
            self.by_address[board.address] = board
            for mac in board.macs:
                _add(self._by_mac, mac, board, mac)
            for client_id in board.client_ids:
                _add(self._by_client_id, client_id, board, f"client id {client_id.hex()}")
            if board.uuid is not None:
                try:
                    text = str(uuid.UUID(board.uuid))
                except ValueError as error:
                    raise ValueError(f"board {board.board}: {board.uuid!r} is no UUID") from error
                _add(self._by_uuid, text, board, f"UUID {text}")

    def _check_address(self, settings: DhcpSettings, board: DhcpBoard) -> None:
        if settings.subnet_of(board.address) is None:
            raise ValueError(f"board {board.board}: {board.address} is outside of {settings.network}")
        taken = self.by_address.get(board.address)
        owner = "the server" if board.address == settings.server_address else taken.board if taken is not None else None
        if owner is not None:
            raise ValueError(f"board {board.board}: {board.address} already belongs to {owner}")
        if settings.in_pool(board.address):
            raise ValueError(f"board {board.board}: {board.address} lies in the pool; move one of them")

    def by_mac(self, mac: str) -> DhcpBoard | None:
        """The board with this MAC address."""
        return self._by_mac.get(mac)

    def sender(self, packet: DhcpPacket) -> DhcpBoard | None:
        """Whose message this is: by MAC address, where that is unknown by UUID, then by client id."""
        board = self._by_mac.get(packet.mac or "")
        if board is not None:
            return board
        for text in client_uuids(packet):
            if text in self._by_uuid:
                return self._by_uuid[text]
        return self._by_client_id.get(packet.option(Option.CLIENT_ID) or b"")


def _add(index: dict[_Key, DhcpBoard], key: _Key, board: DhcpBoard, name: str) -> None:
    if key in index:
        raise ValueError(f"board {board.board}: {name} already belongs to {index[key].board}")
    index[key] = board
