"""`[netboot]` and `[profiles.NAME]` of the agent's settings, and what must fit together there."""

import ipaddress
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, field_validator, model_validator

from agent.boot_file_settings import BootFileKeys, OwnBootFiles
from agent.fetch_settings import FetchTable
from agent.root_settings import RootKeys
from agent.settings_table import Key, Table
from netboot import board_addresses, boot_templates
from netboot.dhcp_desk import DhcpMode
from netboot.profile import BootProfile
from wire.names import Id

if TYPE_CHECKING:
    from agent.settings import AgentSettings, BoardTable


class ProfileTable(BootFileKeys, RootKeys, Table):
    """`[profiles.NAME]`: what a board boots."""

    kernel: Path
    initrd: Path | None = None
    dtb: Path | None = None
    cmdline: str = ""
    uboot_env: dict[str, str] = Field(default={})
    """Variables that the boot script sets before it fetches the rest, as `tftpwindowsize = "16"`."""
    netboot_by: Literal["environment", "dialogue"] = "environment"
    """`dialogue`: the agent stops the boot loader of a board with this profile, and has it boot from the net."""

    @field_validator("kernel", "initrd", "dtb")
    @classmethod
    def _file_is_there(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"{path} is not there, or is no file")
        return path

    def boot_profile(self, name: str, *, dtb: Path | None = None, own: OwnBootFiles | None = None) -> BootProfile:
        """The profile as netboot takes it, with a board's own `dtb` in place of its own, and `own` beside its own.

        Raises:
            ValueError: netboot cannot serve it; the message names the profile and what is wrong.
        """
        own_dtb = dtb or self.dtb
        return BootProfile(
            name=name,
            arch=self.arch,
            kernel=self.kernel.absolute(),
            initrd=None if self.initrd is None else self.initrd.absolute(),
            dtb=None if own_dtb is None else own_dtb.absolute(),
            cmdline=self.cmdline,
            uboot_env=tuple(self.uboot_env.items()),
            family=self.family,
            overlays=self.overlays_with(own),
            templates=self.templates_with(own),
            files=tuple(self.files.items()),
            folder=self.folder,
            loaders=self.loaders,
            first_file=self.boot_file,
            config_txt=tuple(self.config_txt),
            tftp=None if self.tftp is None else self.tftp.limits,
        )


class NetbootTable(Table):
    """`[netboot]`: the board network that this agent serves."""

    interface: str = Field(min_length=1, max_length=15)
    address: IPv4Interface
    """Our own address there with the network's length, as 10.77.0.1/24."""
    mqtt_for_boards: str = Field(pattern=r"^[A-Za-z0-9._-]+:[0-9]{1,5}$")
    """`HOST:PORT` of the MQTT server as the boards reach it, in the clear."""
    joining: Literal["open", "closed"] = "closed"
    joining_profile: Id | None = None
    pool: tuple[IPv4Address, IPv4Address] | None = None
    """First and last address for unknown boards while joining is open."""
    dhcp: DhcpMode = DhcpMode.AUTHORITATIVE
    router_advertisements: bool | None = None
    """Whether to tell IPv6 hosts at once that nobody routes here: iPXE waits 13 s otherwise. None: where we give
    the addresses."""
    watch_segment: bool = True
    """Whether to raise alerts about foreign DHCP servers, doubled MAC addresses and taken addresses."""
    dhcp_port: int = Field(default=67, ge=1, le=65535)
    tftp_port: int = Field(default=69, ge=1, le=65535)
    tftp_window: int = Field(default=16, ge=1, le=64)
    """Blocks that a board may ask for per acknowledgement; more than 16 overflows small queues."""
    tftp_workers: int | None = Field(default=None, ge=1, le=16)
    """Processes that send files. None: one for two cores, at most four."""
    tftp_cache_mib: int = Field(default=128, ge=1, le=65536)
    """Ready packets that each of them keeps, in MiB."""
    http_port: int = Field(default=8069, ge=0, le=65535)
    """0: no HTTP boot."""
    ipv6: bool = True
    """Whether TFTP and HTTP answer on the interface's IPv6 addresses too."""
    fetch: FetchTable = FetchTable()
    lease_s: int = Field(default=600, ge=60)
    labgrid_tftp: Path | None = None
    """A folder with one folder per board, where labgrid's TFTPProvider puts its links (`internal`); read only."""
    labgrid_caches: list[Path] = Field(default=[Path("/var/cache/labgrid")])
    """Where those links may lead."""

    @model_validator(mode="after")
    def _pool_is_inside(self) -> Self:
        if self.pool is not None:
            first, last = self.pool
            if first > last or first not in self.address.network or last not in self.address.network:
                raise ValueError(f"pool: {first} to {last} is not a range inside {self.address.network}")
        if self.joining == "open" and (self.pool is None or self.joining_profile is None):
            raise ValueError("joining = open needs pool and joining_profile")
        if self.joining == "open" and self.dhcp is not DhcpMode.AUTHORITATIVE:
            raise ValueError(f'joining = open needs dhcp = "authoritative", not "{self.dhcp}"')
        return self


def contradictions(settings: "AgentSettings") -> Iterator[tuple[Key, str]]:
    """What is right alone and wrong together, with the key to change."""
    yield from _profiles_serve(settings)
    yield from _netboot_fits(settings)
    yield from _ipv6_fits(settings)


def _profiles_serve(settings: "AgentSettings") -> Iterator[tuple[Key, str]]:
    for name, profile in settings.profiles.items():
        try:
            profile.boot_profile(name)
        except ValueError as error:
            yield ("profiles", name), str(error)
        large = profile.too_large(profile.kernel, profile.initrd)
        if large is not None:
            yield ("profiles", name), large
    for name, board in settings.boards.items():
        yield from _own_files_serve(settings, name, board)


def _own_files_serve(settings: "AgentSettings", name: str, board: "BoardTable") -> Iterator[tuple[Key, str]]:
    profile = settings.profiles.get(board.profile or "")
    if profile is None or board.profile is None:
        if board.templates or board.overlays:
            yield ("boards", name), "templates and overlays need a profile"
        return
    for template in profile.templates_with(board):
        lacking = boot_templates.lacking(template, serial=board.serial, uuid=board.uuid)
        if lacking is not None:
            yield ("boards", name), lacking
    if not board.templates and not board.overlays:
        return  # what is wrong with the profile is told there
    try:
        profile.boot_profile(board.profile, dtb=board.dtb, own=board)
    except ValueError as error:
        yield ("boards", name), str(error)


def _netboot_fits(settings: "AgentSettings") -> Iterator[tuple[Key, str]]:
    netboot = settings.netboot
    for name, board in settings.boards.items():
        if board.profile is None:
            continue
        key = ("boards", name, "profile")
        if board.profile not in settings.profiles:
            yield key, f"there is no profile {board.profile!r}"
        if netboot is None:
            yield key, "a profile needs netboot, and there is no [netboot] table"
            continue
        if not board.macs:
            yield ("boards", name), "a board with a profile needs macs: DHCP knows it by them"
        if board.address is None:
            yield ("boards", name), "a board with a profile needs an address"
        elif not _usable(board.address, netboot):
            yield ("boards", name, "address"), f"{board.address} is not a free address of {netboot.address.network}"
    if netboot is not None and netboot.joining_profile is not None and netboot.joining_profile not in settings.profiles:
        yield ("netboot", "joining_profile"), f"there is no profile {netboot.joining_profile!r}"


def _ipv6_fits(settings: "AgentSettings") -> Iterator[tuple[Key, str]]:
    owners = {board_addresses.link_local(mac): name for name, board in settings.boards.items() for mac in board.macs}
    for name, board in settings.boards.items():
        if board.address6 is None:
            continue
        key = ("boards", name, "address6")
        objection = board_addresses.unfit(board.address6)
        if objection is not None:
            yield key, objection
        owner = owners.setdefault(board.address6, name)
        if owner != name:
            yield key, f"{board.address6} already means board {owner}"


def _usable(address: IPv4Address, netboot: NetbootTable) -> bool:
    network: ipaddress.IPv4Network = netboot.address.network
    if address not in network or address in {netboot.address.ip, network.network_address, network.broadcast_address}:
        return False
    return netboot.pool is None or not netboot.pool[0] <= address <= netboot.pool[1]
