"""What DHCP and the watch of the segment tell their owner when something is wrong: alerts, not the life of a board."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class RogueDhcpServer:
    """Another DHCP server answers on the board network. `mac` is its own, `server` what it says it is (option 54), or
    where the frame came from. `present` False: it has not been heard for some probes."""

    interface: str
    server: str
    mac: str
    present: bool = True


@dataclass(frozen=True, slots=True)
class DuplicateMac:
    """Two machines use one MAC address at the same time; `reason` says what gave them away."""

    interface: str
    mac: str
    board: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class AddressConflict:
    """`mac` uses an address that belongs to somebody else: to `board`, to the server, or to the holder of a lease.
    `owner` is the owner's MAC address, `""` where it is not known."""

    interface: str
    address: str
    mac: str
    board: str | None
    owner: str = ""


@dataclass(frozen=True, slots=True)
class OtherAddress:
    """The DHCP server beside us gives `board` an address that is not the one in our settings, `expected`: we shall
    not know its requests for files."""

    interface: str
    address: str
    mac: str
    board: str
    expected: str


@dataclass(frozen=True, slots=True)
class ClientTooFast:
    """A client asks more often than any boot program does, and is not answered for a while. Told once until it rests.
    `mac` `""`: all unknown clients together."""

    interface: str
    mac: str


SegmentEvent: TypeAlias = RogueDhcpServer | DuplicateMac | AddressConflict | OtherAddress | ClientTooFast
