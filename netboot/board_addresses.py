"""Which board an address means, IPv4 and IPv6. Pure.

There is no DHCPv6 here, so nobody gives a board its IPv6 address: it is known by the one that the owner names, and
by its link-local one, which boot programs make from the MAC address (RFC 4291 appendix A, modified EUI-64; U-Boot, iPXE
and EDK2 do). The link-local one means something on the board network alone, so the servers have to be bound to its
interface. It is worth as much as an IPv4 address: who takes a board's address on that network is taken for the board.
"""

import socket
from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Protocol

ANY = "::"
"""All IPv6 addresses of an interface."""
_LINK_LOCAL = int(IPv6Address("fe80::"))
_UNIVERSAL_BIT = 0x02


class AddressedBoard(Protocol):
    """What is needed of a board: `server_settings.NetbootBoard`."""

    @property
    def board(self) -> str: ...
    @property
    def macs(self) -> tuple[str, ...]: ...
    @property
    def address(self) -> IPv4Address: ...
    @property
    def address6(self) -> IPv6Address | None: ...


def link_local(mac: str) -> IPv6Address:
    """The address that an interface with this MAC (with colons) gives itself: `fe80::` and the modified EUI-64."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= _UNIVERSAL_BIT
    return IPv6Address(_LINK_LOCAL | int.from_bytes(octets[:3] + b"\xff\xfe" + octets[3:], "big"))


def unfit(address: IPv6Address) -> str | None:
    """Why a board cannot be known by this address, None where it can."""
    if address.is_multicast or address.is_unspecified:
        return f"{address} is no address of a single board"
    if address.ipv4_mapped is not None:
        return f"{address} is an IPv4 address: give it as address"
    if address.scope_id is not None:
        return f"{address}: leave out what follows %, it is the board network's interface"
    return None


def by_ipv6(boards: Iterable[AddressedBoard]) -> dict[IPv6Address, IPv4Address]:
    """The boards' own IPv4 addresses by the IPv6 addresses that mean them.

    Raises:
        ValueError: an address cannot mean one board; the message names the board.
    """
    found: dict[IPv6Address, tuple[str, IPv4Address]] = {}
    for board in boards:
        named = () if board.address6 is None else (board.address6,)
        for address in dict.fromkeys((*named, *map(link_local, board.macs))):
            objection = unfit(address)
            if objection is not None:
                raise ValueError(f"board {board.board}: {objection}")
            if address in found and found[address][0] != board.board:
                raise ValueError(f"board {board.board}: {address} already means board {found[address][0]}")
            found[address] = (board.board, board.address)
    return {address: own for address, (_, own) in found.items()}


def known_as(client: str, ipv6: Mapping[IPv6Address, IPv4Address]) -> IPv4Address | None:
    """The IPv4 address under which a client is looked up. None: no board has this IPv6 address.

    `client` is a peer's address as its socket tells it; what follows a `%` is the interface that it is bound to.
    """
    if ":" not in client:
        return IPv4Address(client)
    try:
        return ipv6.get(IPv6Address(client.partition("%")[0]))
    except AddressValueError:
        return None


def host_has_ipv6() -> bool:
    """Whether this host's kernel speaks IPv6 at all."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True
