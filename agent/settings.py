"""The agent's settings: one TOML file, checked whole before anything is started."""

import ipaddress
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from agent.boot_file_settings import BootFileKeys, OwnBootFiles
from agent.dns_settings import DnsTable
from agent.pdu_listener import settings as pdu_listener_settings
from agent.pdu_listener.settings import PduListenerTable
from agent.power.driver_kind import ControllerSettings
from agent.power.feed import FeedKind
from agent.power.settings import BoardFeed, CircuitSettings, Seconds
from agent.power_watch import OnChange
from daemon.mqtt_settings import MqttSettings
from daemon.settings_file import FileSettings, load_settings
from netboot import boot_templates
from netboot.boot_tree import SERIAL_CHARACTERS
from netboot.profile import BootProfile
from wire.names import Id, Mac
from wire.payloads import Label

OTHER_TABLES = ("broker",)
"""Tables of the same file that belong to another daemon."""

Key = tuple[str, ...]


class Table(BaseModel):
    """Base of the tables: a key that nobody knows is an error, because it is a typo."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AgentTable(Table):
    """`[agent]`."""

    name: Id
    state_dir: Path
    """Where journal, outbox and secrets live; must survive a restart."""
    outbox_max_events: int = Field(default=100_000, ge=100)
    """When the MQTT server is away for longer than this many events, the oldest are dropped and counted."""
    read_back_s: float = Field(default=30.0, ge=1, le=3600)
    """How often the hardware is asked what is on, so that a change by hand is noticed."""
    meter_every_s: float = Field(default=10.0, ge=0, le=3600)
    """How often meters are read; 0 is never."""
    force_allowed: bool = False
    """Whether `force` in a power command may override a lease. MQTT does not tell who published a message, so this is
    for farms where the server's ACL lets only operators publish to `power/set`."""

    @field_validator("meter_every_s")
    @classmethod
    def _often_or_never(cls, every_s: float) -> float:
        if 0 < every_s < 1:
            raise ValueError("at least 1 second, or 0 for never")
        return every_s


class ProfileTable(BootFileKeys, Table):
    """`[profiles.NAME]`: what a board boots."""

    kernel: Path
    initrd: Path | None = None
    dtb: Path | None = None
    cmdline: str = ""
    uboot_env: dict[str, str] = Field(default={})
    """Variables that the boot script sets before it fetches the rest, as `tftpwindowsize = "16"`."""

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
    lease_s: int = Field(default=600, ge=60)
    labgrid_tftp: Path | None = None
    """A folder with one folder per board, where labgrid's TFTPProvider puts its links (`internal`); read only."""
    labgrid_caches: list[Path] = [Path("/var/cache/labgrid")]
    """Where those links may lead."""

    @model_validator(mode="after")
    def _pool_is_inside(self) -> Self:
        if self.pool is not None:
            first, last = self.pool
            if first > last or first not in self.address.network or last not in self.address.network:
                raise ValueError(f"pool: {first} to {last} is not a range inside {self.address.network}")
        if self.joining == "open" and (self.pool is None or self.joining_profile is None):
            raise ValueError("joining = open needs pool and joining_profile")
        return self


class FeedOutlet(Table):
    """One outlet of a feed that needs more said than its name."""

    outlet: str
    settle_s: Seconds
    """Rest after it has switched, before the next outlet of the feed is touched."""


class BoardTable(OwnBootFiles, Table):
    """`[boards.NAME]`."""

    feed: list[str | FeedOutlet] = Field(min_length=1)
    """`controller:outlet`, in the order of switching on."""
    feed_is: Literal["chain", "parallel"] | None = None
    """Whether each outlet hangs on the one before, or each feeds the board by itself."""
    never_off: bool = False
    on_change: OnChange = OnChange.ADOPT
    """What to do when somebody else changed the board's power."""
    macs: list[Mac] = []
    address: IPv4Address | None = None
    profile: Id | None = None
    dtb: Path | None = None
    """This board's own device tree, in place of its profile's."""
    uuid: str | None = None
    serial: str | None = Field(default=None, pattern=r"^[0-9A-Fa-f]{8,16}$")
    """A Raspberry Pi's serial number, as in /proc/cpuinfo: its folder is told from other boards' by it."""
    labgrid_folder: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its folder below `labgrid_tftp`, as in TFTPProvider's `external`; the board's name if not given."""
    labels: dict[str, Label] = {}
    console: str | None = None
    boot_timeout_s: float = Field(default=180.0, ge=5, le=7200)
    boot_retries: int = Field(default=1, ge=0, le=10)
    min_off_s: float | None = Field(default=None, ge=0, le=600)
    verify_deadline_s: float | None = Field(default=None, gt=0, le=300)
    attempts: int | None = Field(default=None, ge=1, le=20)
    watts_idle: float | None = Field(default=None, ge=0, le=25_000)
    watts_busy: float | None = Field(default=None, ge=0, le=25_000)
    watts_off: float | None = Field(default=None, ge=0, le=25_000)
    """What it draws, in watts, for the time that no device measures it: an estimate, and told as one."""
    trust_mac: bool = False
    """Take this board's MAC address as proof: only for boards that somebody else netboots."""

    @property
    def outlets(self) -> list[str]:
        """The feed's outlets by name."""
        return [entry.outlet if isinstance(entry, FeedOutlet) else entry for entry in self.feed]

    @property
    def registers(self) -> bool:
        """Whether it can ever register. One that cannot is switched and read back, and nothing more is expected."""
        return self.profile is not None or self.trust_mac


class AgentSettings(FileSettings):
    """The whole file."""

    agent: AgentTable
    mqtt: MqttSettings = MqttSettings()
    netboot: NetbootTable | None = None
    profiles: dict[Id, ProfileTable] = Field(default={})
    circuits: dict[Id, CircuitSettings] = Field(default={})
    controllers: dict[Id, ControllerSettings] = Field(default={})
    boards: dict[Id, BoardTable] = Field(default={})
    pdu_listener: PduListenerTable | None = None
    dns: DnsTable | None = None

    def feeds(self) -> dict[str, BoardFeed]:
        """What the power service needs to know of each board."""
        return {
            name: BoardFeed(
                outlets=board.outlets,
                kind=FeedKind.UNSAID if board.feed_is is None else FeedKind(board.feed_is),
                settle_after_s={e.outlet: e.settle_s for e in board.feed if isinstance(e, FeedOutlet)},
                never_off=board.never_off,
                min_off_s=board.min_off_s,
                verify_deadline_s=board.verify_deadline_s,
                attempts=board.attempts,
            )
            for name, board in self.boards.items()
        }


def load(path: Path) -> AgentSettings:
    """The settings in `path`.

    Raises:
        SettingsError: as `daemon.settings_file.load_settings`, also where tables contradict each other.
    """
    return load_settings(AgentSettings, path, ignore_tables=OTHER_TABLES, contradictions=contradictions)


def contradictions(settings: AgentSettings) -> Iterator[tuple[Key, str]]:
    """What is right alone and wrong together, with the key to change."""
    yield from _circuits_fit(settings)
    yield from _feeds_fit(settings)
    yield from _identities_differ(settings)
    yield from _profiles_serve(settings)
    yield from _netboot_fits(settings)
    if settings.pdu_listener is not None:
        yield from pdu_listener_settings.contradictions(settings.pdu_listener, settings.controllers, settings.boards)


def _feeds_fit(settings: AgentSettings) -> Iterator[tuple[Key, str]]:
    fed_by: dict[str, str] = {}
    for name, board in settings.boards.items():
        key = ("boards", name, "feed")
        for place in board.outlets:
            controller, _, outlet = place.partition(":")
            if not outlet:
                yield key, f"{place!r} is not CONTROLLER:OUTLET"
            elif controller not in settings.controllers:
                known = ", ".join(sorted(settings.controllers)) or "none"
                yield key, f"there is no controller {controller!r}; known are: {known}"
            elif place in fed_by and outlet not in settings.controllers[controller].shared_outlets:
                yield (
                    key,
                    (
                        f"outlet {place} already feeds board {fed_by[place]}; one outlet feeds one board, unless its "
                        "controller declares it in shared_outlets"
                    ),
                )
            fed_by[place] = name
        shared = [place for place in board.outlets if _is_shared(settings, place)]
        if shared and len(shared) < len(board.outlets) and board.feed_is != "chain":
            yield key, f'{shared[0]} is shared and the board has an outlet of its own: say feed_is = "chain"'


def _is_shared(settings: AgentSettings, place: str) -> bool:
    controller, _, outlet = place.partition(":")
    return outlet in settings.controllers[controller].shared_outlets


def _circuits_fit(settings: AgentSettings) -> Iterator[tuple[Key, str]]:
    for name, controller in settings.controllers.items():
        if controller.circuit is not None and controller.circuit not in settings.circuits:
            known = ", ".join(sorted(settings.circuits)) or "none"
            key = ("controllers", name, "circuit")
            yield key, f"there is no circuit {controller.circuit!r}; known are: {known}"


def _identities_differ(settings: AgentSettings) -> Iterator[tuple[Key, str]]:
    macs: dict[str, str] = {}
    serials: dict[str, str] = {}
    addresses: dict[IPv4Address, str] = {}
    for name, board in settings.boards.items():
        for mac in board.macs:
            if mac in macs:
                yield ("boards", name, "macs"), f"{mac} is already the MAC of board {macs[mac]}"
            macs[mac] = name
        if board.serial is not None:
            number = board.serial[-SERIAL_CHARACTERS:].lower()
            if number in serials:
                yield ("boards", name, "serial"), f"{board.serial} is already the serial number of {serials[number]}"
            serials[number] = name
        if board.address is not None:
            if board.address in addresses:
                owner = addresses[board.address]
                yield ("boards", name, "address"), f"{board.address} is already the address of board {owner}"
            addresses[board.address] = name


def _profiles_serve(settings: AgentSettings) -> Iterator[tuple[Key, str]]:
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


def _own_files_serve(settings: AgentSettings, name: str, board: BoardTable) -> Iterator[tuple[Key, str]]:
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


def _netboot_fits(settings: AgentSettings) -> Iterator[tuple[Key, str]]:
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


def _usable(address: IPv4Address, netboot: NetbootTable) -> bool:
    network: ipaddress.IPv4Network = netboot.address.network
    if address not in network or address in {netboot.address.ip, network.network_address, network.broadcast_address}:
        return False
    return netboot.pool is None or not netboot.pool[0] <= address <= netboot.pool[1]
