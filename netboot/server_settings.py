"""What `NetbootServer` is told: the board network, and the boards on it."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from netboot.dhcp_desk import DhcpMode
from netboot.profile import BootProfile
from netboot.staged import StagedTree
from wire.names import is_id, normal_mac


@dataclass(frozen=True, slots=True)
class NetbootBoard:
    """A board that is known on this network.

    Raises:
        ValueError: the id or a MAC address cannot be used.
    """

    board: str
    macs: tuple[str, ...]
    address: IPv4Address
    profile: BootProfile
    uuid: str | None = None
    serial: str | None = None
    """A Raspberry Pi's serial number."""
    staged: str | None = None
    """Its folder in labgrid's tree."""
    address6: IPv6Address | None = None
    """An address of its own choice; it is known by the link-local ones of its MAC addresses too."""

    def __post_init__(self) -> None:
        if not is_id(self.board):
            raise ValueError(f"{self.board!r} is not an id: use a-z, 0-9 and '-', at most 63 characters")
        object.__setattr__(self, "macs", tuple(normal_mac(mac) for mac in self.macs))


@dataclass(frozen=True, slots=True)
class NetbootConfig:
    """One board network. `mqtt_for_boards` is `host:port` as the boards reach it. `pool` serves unknown boards while
    joining is open, with `joining_profile`. `router` None: the server itself. `http_port` None: no HTTP; 0: any.
    `ipv6`: TFTP and HTTP answer on the interface's IPv6 addresses too, where the host has IPv6."""

    agent: str
    interface: str
    server_address: IPv4Address
    network: IPv4Network
    pool: tuple[IPv4Address, IPv4Address] | None
    mqtt_for_boards: str
    prefix: str
    joining_profile: BootProfile | None
    dhcp: DhcpMode = DhcpMode.AUTHORITATIVE
    router_advertisements: bool = False
    watch_segment: bool = False
    dhcp_port: int = 67
    tftp_port: int = 69
    tftp_window: int = 16
    tftp_workers: int | None = None
    tftp_cache_mib: int = 128
    http_port: int | None = None
    ipv6: bool = True
    lease_s: int = 600
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    staged: StagedTree | None = None
