"""The agent's settings: one TOML file, checked whole before anything is started."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from agent import bootloader_settings, flash_settings, hook_settings, joined_boards, netboot_settings, root_settings
from agent.boot_file_settings import OwnBootFiles
from agent.bootloader_settings import BootloaderTable
from agent.console import settings as console_settings
from agent.console.settings import BoardConsole, ConsolesTable
from agent.dns_settings import DnsTable
from agent.flash_settings import ActuatorTable, FlashesTable, FlashTable, StepWords
from agent.hook_settings import HookTable
from agent.netboot_settings import NetbootTable, ProfileTable
from agent.pdu_listener import settings as pdu_listener_settings
from agent.pdu_listener.settings import PduListenerTable
from agent.power.driver_kind import ControllerSettings
from agent.power.feed import FeedKind
from agent.power.settings import BoardFeed, CircuitSettings, Seconds
from agent.power_watch import OnChange
from agent.presence.observations import UsbMark
from agent.root_settings import RootsTable
from agent.settings_table import Key, Table
from daemon.mqtt_settings import MqttSettings
from daemon.settings_file import FileSettings, load_settings
from netboot.boot_tree import SERIAL_CHARACTERS
from wire.names import Id, Mac
from wire.payloads import Label

OTHER_TABLES = ("broker", "web")
"""Tables of the same file that belong to another daemon."""


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


class FeedOutlet(Table):
    """One outlet of a feed that needs more said than its name."""

    outlet: str
    settle_s: Seconds
    """Rest after it has switched, before the next outlet of the feed is touched."""


def _usb(text: str) -> str:
    UsbMark.parse(text)
    return text


class BoardTable(OwnBootFiles, Table):
    """`[boards.NAME]`."""

    feed: list[str | FeedOutlet] = Field(min_length=1)
    """`controller:outlet`, in the order of switching on."""
    feed_is: Literal["chain", "parallel"] | None = None
    """Whether each outlet hangs on the one before, or each feeds the board by itself."""
    never_off: bool = False
    on_change: OnChange = OnChange.ADOPT
    """What to do when somebody else changed the board's power."""
    macs: list[Mac] = Field(default=[])
    link: str | None = Field(default=None, min_length=1, max_length=127)
    """The network interface of this host that its cable leads to: carrier there is a sign of life."""
    usb: Annotated[str, AfterValidator(_usb)] | None = None
    """Its USB device on this host: a path (`1-1.4`), or ids (`0525:a4a2`, with `:SERIAL` where several have them)."""
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    """Its IPv6 address on the board network, beside the link-local one of its MAC address."""
    profile: Id | None = None
    dtb: Path | None = None
    """This board's own device tree, in place of its profile's."""
    uuid: str | None = None
    serial: str | None = Field(default=None, pattern=r"^[0-9A-Fa-f]{8,16}$")
    """A Raspberry Pi's serial number, as in /proc/cpuinfo: its folder is told from other boards' by it."""
    labgrid_folder: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its folder below `labgrid_tftp`, as in TFTPProvider's `external`; the board's name if not given."""
    labels: dict[str, Label] = Field(default={})
    console: BoardConsole | None = None
    bootloader: BootloaderTable | None = None
    actuators: dict[Id, ActuatorTable] = Field(default={})
    """What beside its power can be switched: straps, buttons, SD muxes."""
    modes: dict[Id, list[StepWords]] = Field(default={})
    """Named sequences of actuators; `normal` is the one in which it works."""
    flash: dict[Id, FlashTable] = Field(default={})
    """The ways in which an image can be written to it."""
    client: Literal["board", "console"] = "board"
    """Who works a job's steps: a client on the board, or the agent, on the board's console."""
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
        return self.profile is not None or self.trust_mac or self.client == "console"


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
    roots: RootsTable | None = None
    hooks: list[HookTable] = Field(default=[])
    consoles: ConsolesTable = ConsolesTable()
    flash: FlashesTable = FlashesTable()

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
    """The settings in `path`, with the boards that joined by acceptance.

    Raises:
        SettingsError: as `daemon.settings_file.load_settings`, also where tables contradict each other.
    """
    settings = load_settings(AgentSettings, path, ignore_tables=OTHER_TABLES, contradictions=contradictions)
    return joined_boards.added(settings, BoardTable, contradictions)


def contradictions(settings: AgentSettings) -> Iterator[tuple[Key, str]]:
    """What is right alone and wrong together, with the key to change."""
    yield from _circuits_fit(settings)
    yield from _feeds_fit(settings)
    yield from _identities_differ(settings)
    yield from netboot_settings.contradictions(settings)
    yield from root_settings.contradictions(settings)
    yield from hook_settings.contradictions(settings.hooks, settings.boards)
    yield from bootloader_settings.contradictions(settings.boards, has_netboot=settings.netboot is not None)
    for name, board in settings.boards.items():
        if board.client == "console" and board.console is None:
            yield ("boards", name, "client"), "the board has no console: give it one, or leave client out"
    fed = {outlet: name for name, board in settings.boards.items() for outlet in board.outlets}
    yield from flash_settings.contradictions(settings.boards, settings.controllers, fed)
    yield from console_settings.contradictions({name: board.console for name, board in settings.boards.items()})
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
    seen_by: dict[tuple[str, str], str] = {}
    for name, board in settings.boards.items():
        for mac in board.macs:
            if mac in macs:
                yield ("boards", name, "macs"), f"{mac} is already the MAC of board {macs[mac]}"
            macs[mac] = name
        for key, value in (("link", board.link), ("usb", board.usb)):
            if value is not None and (owner := seen_by.setdefault((key, value), name)) != name:
                yield ("boards", name, key), f"{value} is already that of board {owner}"
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
