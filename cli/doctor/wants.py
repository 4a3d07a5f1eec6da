"""What the settings need of this host: ports, devices, folders, files. Pure, but for what pydantic has read."""

from dataclasses import dataclass, field
from pathlib import Path

from agent.console.settings import PlaceKind
from agent.settings import AgentSettings
from broker.inbox import subscriptions
from broker.settings import BrokerSettings
from netboot.dhcp_desk import DhcpMode
from netboot.proxy_dhcp import BOOT_SERVER_PORT
from wire.topics import Topics

ANYWHERE = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class PortWant:
    """A port that a daemon listens at. `interface`: it is bound to that one; `key`: what to change for another port."""

    protocol: str
    address: str
    port: int
    purpose: str
    key: str
    daemon: str = "agent"
    interface: str = ""

    @property
    def near(self) -> bool:
        """Whether only this host reaches it."""
        return self.address.startswith("127.") or self.address == "::1"


@dataclass(frozen=True, slots=True)
class DeviceWant:
    """A device by path, or a USB device by what its driver knows: `hub` and `hid` are looked up in sysfs."""

    owner: str
    """`console of pi4`, `controller shelf`."""
    path: str = ""
    hub: str = ""
    hub_method: str = ""
    usb_ids: tuple[tuple[str, str], ...] = ()
    serial: str | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class FolderWant:
    """A folder that a daemon writes into."""

    path: Path
    purpose: str
    daemon: str


@dataclass(frozen=True, slots=True)
class SecretWant:
    """A file that holds a secret, and must be read by a daemon and by nobody else."""

    path: Path
    key: str
    daemon: str


@dataclass(slots=True)
class Wants:
    """Everything of one settings file."""

    ports: list[PortWant] = field(default_factory=list)
    devices: list[DeviceWant] = field(default_factory=list)
    folders: list[FolderWant] = field(default_factory=list)
    secrets: list[SecretWant] = field(default_factory=list)
    capabilities: set[str] = field(default_factory=set)


_HID_IDS: dict[str, tuple[tuple[str, str], ...]] = {
    "hid_relay": (("16c0", "05df"), ("5131", "2007")),
    "ykush": (("04d8", "f2f7"), ("04d8", "f11b"), ("04d8", "f0cd")),
}


def of_agent(settings: AgentSettings) -> Wants:
    """What the agent needs."""
    wants = Wants(folders=[FolderWant(settings.agent.state_dir, "state_dir of the agent", "agent")])
    _netboot(settings, wants)
    _consoles(settings, wants)
    _controllers(settings, wants)
    if settings.roots is not None:
        wants.folders.append(FolderWant(settings.roots.dir, "dir of [roots]", "agent"))
        if settings.roots.engine == "ganesha":  # the other engines' ports are theirs already
            address = ANYWHERE if settings.netboot is None else str(settings.netboot.address.ip)
            wants.ports.append(PortWant("tcp", address, settings.roots.port, "NFS", "[roots] port"))
    _secrets(settings.mqtt, ("password_file", "client_key_file"), "[mqtt]", "agent", wants)
    if settings.dns is not None:
        wants.secrets.append(SecretWant(settings.dns.key_file, "[dns] key_file", "agent"))
    return wants


def of_broker(settings: BrokerSettings) -> Wants:
    """What the broker needs."""
    wants = Wants(folders=[FolderWant(settings.broker.state_dir, "state_dir of the broker", "broker")])
    if settings.broker.artifacts_dir is not None:
        wants.folders.append(FolderWant(settings.broker.artifacts_dir, "artifacts_dir of the broker", "broker"))
    if settings.web is not None:
        web = settings.web
        if web.port:
            wants.ports.append(PortWant("tcp", web.address, web.port, "page and API", "[web] port", "broker"))
        wants.secrets.append(SecretWant(web.tokens, "[web] tokens", "broker"))
        _secrets(web, ("key",), "[web]", "broker", wants)
    _secrets(settings.mqtt, ("password_file", "client_key_file"), "[mqtt]", "broker", wants)
    _secrets(settings.broker, ("store_password_file", "webhook_secret_file"), "[broker]", "broker", wants)
    return wants


def _netboot(settings: AgentSettings, wants: Wants) -> None:
    table = settings.netboot
    if table is None:
        return
    wants.capabilities.add("CAP_NET_RAW")
    own, interface = str(table.address.ip), table.interface
    if table.dhcp is not DhcpMode.OFF:
        wants.ports.append(
            PortWant("udp", ANYWHERE, table.dhcp_port, "DHCP", "[netboot] dhcp_port", interface=interface)
        )
    if table.dhcp is DhcpMode.PROXY:
        wants.ports.append(
            PortWant("udp", ANYWHERE, BOOT_SERVER_PORT, "proxy DHCP", "[netboot] dhcp", interface=interface)
        )
    wants.ports.append(PortWant("udp", own, table.tftp_port, "TFTP", "[netboot] tftp_port", interface=interface))
    if table.http_port:
        http = PortWant("tcp", own, table.http_port, "HTTP boot", "[netboot] http_port", interface=interface)
        wants.ports.append(http)
    if any(port.port < 1024 for port in wants.ports):
        wants.capabilities.add("CAP_NET_BIND_SERVICE")


def _consoles(settings: AgentSettings, wants: Wants) -> None:
    for name, board in settings.boards.items():
        if board.console is None:
            continue
        place = board.console.place
        if place.kind is not PlaceKind.TCP:
            wants.devices.append(DeviceWant(f"console of {name}", path=place.path))
        for key, port in (("telnet_port", board.console.telnet_port), ("raw_port", board.console.raw_port)):
            for address in settings.consoles.listen if port is not None else ():
                where = f"[boards.{name}.console] {key}"
                wants.ports.append(PortWant("tcp", str(address), port or 0, f"console of {name}", where))


def _controllers(settings: AgentSettings, wants: Wants) -> None:
    for name, controller in settings.controllers.items():
        owner = f"controller {name}"
        device = getattr(controller, "device", None) or getattr(controller, "socket", None)
        if isinstance(device, str | Path):
            wants.devices.append(DeviceWant(owner, path=str(device)))
        elif controller.driver == "usb_hub":
            method = str(getattr(controller, "method", ""))
            wants.devices.append(DeviceWant(owner, hub=str(getattr(controller, "hub", "")), hub_method=method))
        elif controller.driver in _HID_IDS:
            serial, place = getattr(controller, "serial", None), getattr(controller, "path", None)
            wants.devices.append(DeviceWant(owner, usb_ids=_HID_IDS[controller.driver], serial=serial, place=place))
        files = tuple(key for key in type(controller).model_fields if key.endswith(("_file", "_key_file")))
        kept = tuple(key for key in files if key not in {"ca_file", "family_file"})
        _secrets(controller, kept, f"[controllers.{name}]", "agent", wants)


def _secrets(table: object, keys: tuple[str, ...], where: str, daemon: str, wants: Wants) -> None:
    for key in keys:
        path = getattr(table, key, None)
        if isinstance(path, Path):
            wants.secrets.append(SecretWant(path, f"{where} {key}", daemon))


# --- topics ----------------------------------------------------------------------------------------------------


def agent_topics(settings: AgentSettings) -> list[str]:
    """What the agent subscribes to (agent.inbox.Inbox.subscriptions)."""
    topics, name = Topics(settings.mqtt.prefix), settings.agent.name
    found = [topics.register(), topics.every_agent_request(name), topics.agent_state(name)]
    for board in settings.boards:
        found += [topics.power_set(board), topics.board_self(board), topics.lease(board)]
    return found


def agent_says(settings: AgentSettings) -> list[str]:
    """Topics of the agent's on which a message without content hurts nobody: nobody waits for an answer that nobody
    asked for, and telemetry may be empty."""
    topics = Topics(settings.mqtt.prefix)
    return [topics.agent_response(settings.agent.name, "doctor"), *map(topics.telemetry, settings.boards)]


def broker_topics(settings: BrokerSettings) -> list[str]:
    """What the broker subscribes to."""
    return subscriptions(Topics(settings.mqtt.prefix))


def broker_says(settings: BrokerSettings) -> list[str]:
    """As `agent_says`, of the broker."""
    return [Topics(settings.mqtt.prefix).broker_response("doctor")]
