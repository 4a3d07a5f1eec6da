"""What a virtual farm consists of, decided before anything is started: boards, addresses, files, the agent's settings.

Nothing here touches the network or a process. The plan crosses from the outer to the inner process as JSON.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.power.drivers.qmp import OUTLET
from virtual_lab.cabling import Cabling, Habit, Kind
from virtual_lab.namespace import LabError
from virtual_lab.network import BRIDGE, BRIDGE_ADDRESS
from virtual_lab.qemu_board import QemuBoardSpec

MQTT_PORT = 1883
# 10.77.0.11 upward, below the pool of unknown boards.
MAX_QEMU_BOARDS = 80
# 10.77.1.1 to 10.77.4.250.
MAX_LIGHT_BOARDS = 1000
_LIGHTS_PER_NETWORK = 250
POOL = ("10.77.0.100", "10.77.0.150")
# A boot takes 5 to 15 s; under emulation many at once take turns on the cores. A U-Boot that was left at its prompt, as
# by an agent that was killed while it answered, is cycled after this.
QEMU_BOOT_TIMEOUT_S = 120
QEMU_BOOT_TIMEOUT_PER_BOARD_S = 30
LIGHT_BOOT_TIMEOUT_S = 60
OUTLETS_PER_PDU = 24
# The first of the farm's PDUs listens here, in the farm's own network; the next one above it.
PDU_PORT = 1161
PDU_COMMUNITY = "private"
# A PDU with an outlet's state and watts, as virtual_lab.pdu_models has it and the agent's family of that name reads it.
PDU_MODEL = "eaton-g3"
# Without the early console nothing is seen of a kernel that dies before its drivers are up.
CMDLINE = "console=ttyAMA0 earlycon=pl011,0x9000000 panic=5"


@dataclass(frozen=True, slots=True)
class QemuBoardPlan:
    """A QEMU board; `listed` is whether the agent's settings name it (otherwise it has to join)."""

    board: str
    mac: str
    address: str
    own_environment: bool
    listed: bool


@dataclass(frozen=True, slots=True)
class LightBoardPlan:
    """A board without a machine: a few coroutines with a MAC address."""

    board: str
    mac: str
    address: str
    boot_s: float = 0.0
    """From having its files until it asks for work."""
    pdu: int = 0
    """The virtual PDU on which it hangs, from 1; 0: none, its power is switched by QMP."""
    outlet: int = 0
    boot_w: int = 4
    """What the PDU reads while it boots, and when it is idle or works."""
    idle_w: int = 3
    busy_w: int = 5
    habit: str = Habit.WHOLE
    first_word_s: float = 0.0
    """From its power until anything is heard of it."""
    says_mac: bool = False
    """Its console prints its MAC address."""
    own_kernel: bool = False
    """Boots a kernel of its own, and fetches the PXE configuration alone."""


@dataclass(frozen=True, slots=True)
class FarmPlan:
    """The whole farm. Paths are texts, for JSON."""

    folder: str
    sockets: str
    agent: str
    prefix: str
    prefix_length: int
    qemu: str
    uboot: str
    kernel: str
    initrd: str
    device_tree: str
    mqtt_username: str | None = None
    mqtt_password_file: str | None = None
    joining: str = "closed"
    boards: list[QemuBoardPlan] = field(default_factory=list)
    lights: list[LightBoardPlan] = field(default_factory=list)
    cabling: Cabling | None = None
    """Instead of an outlet for each board; the agent then knows of no board."""
    more: dict[str, Any] = field(default_factory=dict)
    """More settings for the agent: `agent` as its table, `boards` as the tables of boards by name."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "FarmPlan":
        """The plan that `to_json` wrote."""
        told = json.loads(text)
        told["boards"] = [QemuBoardPlan(**board) for board in told["boards"]]
        told["lights"] = [LightBoardPlan(**board) for board in told["lights"]]
        if told["cabling"] is not None:
            told["cabling"] = Cabling.from_table(told["cabling"])
        return cls(**told)

    def qemu_spec(self, board: QemuBoardPlan) -> QemuBoardSpec:
        folder = Path(self.folder) / "boards" / board.board
        return QemuBoardSpec(board.board, board.mac, folder, Path(self.sockets), board.own_environment)

    def light_socket(self, light: LightBoardPlan) -> Path:
        """The unix socket where the light board's power is switched by QMP."""
        return Path(self.sockets) / f"{light.board}.qmp"

    @property
    def cable_socket(self) -> Path:
        """The unix socket where a cabled farm's cables are moved."""
        return Path(self.sockets) / "cables"

    def port_socket(self, port: str) -> Path:
        """The unix socket that is a serial port of a cabled farm."""
        return Path(self.sockets) / port

    @property
    def pdus(self) -> int:
        """How many virtual PDUs there are for light boards, one after the other."""
        return max((light.pdu for light in self.lights), default=0)

    @property
    def pdu_community(self) -> Path:
        """Holds the community of the PDUs."""
        return Path(self.folder) / "pdu-community"

    @property
    def light_kernel(self) -> Path:
        """What light boards fetch in place of a kernel."""
        return Path(self.folder) / "light-kernel"

    @property
    def agent_settings(self) -> Path:
        return Path(self.folder) / "agent.toml"


def qemu_boards(count: int, unlisted: int = 0) -> list[QemuBoardPlan]:
    """`count` boards, `virt-1` upward; the last `unlisted` of them are unknown to the agent.

    Every second one has a U-Boot environment of its own, so that both ways of booting are in every farm.

    Raises:
        LabError: too many.
    """
    if not 0 <= count <= MAX_QEMU_BOARDS:
        raise LabError(f"--boards {count}: a farm has 0 to {MAX_QEMU_BOARDS} QEMU boards")
    if not 0 <= unlisted <= count:
        raise LabError(f"--unlisted {unlisted}: of {count} boards, 0 to {count} can be unlisted")
    return [
        QemuBoardPlan(
            board=f"virt-{number}",
            mac=f"52:54:00:77:00:{number:02x}",
            address=f"10.77.0.{10 + number}",
            own_environment=number % 2 == 1,
            listed=number <= count - unlisted,
        )
        for number in range(1, count + 1)
    ]


def cabled(lights: list[LightBoardPlan], boards: list[QemuBoardPlan], cabling: Cabling) -> list[LightBoardPlan]:
    """The light boards as `cabling` has them.

    Raises:
        LabError: a board is not cabled, or the cabling names one that is not there.
    """
    names = [board.board for board in boards] + [light.board for light in lights]
    if wrong := set(names) ^ set(cabling.feeds):
        raise LabError(f"the cabling and the farm have other boards: {', '.join(sorted(wrong))}")
    try:
        return [replace(light, **cabling.lights.get(light.board, {})) for light in lights]
    except TypeError as error:
        raise LabError(f"the cabling: lights: {error}") from None


def light_boards(count: int, *, on_pdus: bool = False, boot_s: float = 0.0) -> list[LightBoardPlan]:
    """`count` light boards, `light-1` upward.

    Args:
        count: how many.
        on_pdus: whether they hang on virtual PDUs, which measure what they draw.
        boot_s: how long they boot, a fifth more or less from board to board.

    Raises:
        LabError: too many.
    """
    if not 0 <= count <= MAX_LIGHT_BOARDS:
        raise LabError(f"--light {count}: a farm has 0 to {MAX_LIGHT_BOARDS} light boards")
    return [
        LightBoardPlan(
            board=f"light-{index + 1}",
            mac=f"52:54:00:78:{index // 256:02x}:{index % 256:02x}",
            address=f"10.77.{1 + index // _LIGHTS_PER_NETWORK}.{1 + index % _LIGHTS_PER_NETWORK}",
            boot_s=round(boot_s * (0.8 + 0.1 * (index % 5)), 2),
            pdu=index // OUTLETS_PER_PDU + 1 if on_pdus else 0,
            outlet=index % OUTLETS_PER_PDU + 1 if on_pdus else 0,
            boot_w=4 + index % 4,
            idle_w=3 + index % 4,
            busy_w=6 + index % 4,
        )
        for index in range(count)
    ]


def prefix_length(lights: int) -> int:
    """The board network's prefix: light boards need more room than 10.77.0.0/24."""
    return 20 if lights else 24


Value = str | int | bool | list[str] | dict[str, str | bool]


def _toml_value(value: Value) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items()) + " }"
    # JSON's strings, numbers, booleans and lists of strings are TOML's, but for DEL.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _table(name: str, values: dict[str, Value | None]) -> Iterator[str]:
    yield f"\n[{name}]"
    yield from (f"{key} = {_toml_value(value)}" for key, value in values.items() if value is not None)


def agent_toml(plan: FarmPlan) -> str:
    """The agent's settings file for the farm."""
    lines = ["# Written by virtual_lab.farm at each start: changes are lost."]
    gateway = f"{BRIDGE_ADDRESS}:{MQTT_PORT}"
    lines += _table(
        "agent", {"name": plan.agent, "state_dir": f"{plan.folder}/agent-state"} | plan.more.get("agent", {})
    )
    lines += _table(
        "mqtt",
        {
            "url": f"mqtt://{gateway}",
            "prefix": plan.prefix,
            "username": plan.mqtt_username,
            "password_file": plan.mqtt_password_file,
        },
    )
    is_open, more = plan.joining == "open", plan.more.get("boards", {})
    lines += _table(
        "netboot",
        {
            "interface": BRIDGE,
            "address": f"{BRIDGE_ADDRESS}/{plan.prefix_length}",
            "mqtt_for_boards": gateway,
            "joining": plan.joining,
            "pool": list(POOL) if is_open else None,
            "joining_profile": ("virtual" if plan.boards else "light") if is_open else None,
        },
    )
    if plan.boards:
        lines += _table("profiles.virtual", _virtual_profile(plan))
    if plan.lights:
        lines += _table("profiles.light", {"arch": "arm64", "kernel": str(plan.light_kernel), "cmdline": "quiet"})
    if plan.cabling is not None:
        return "\n".join([*lines, *_controllers(plan, plan.cabling)]) + "\n"
    for number, board in enumerate(plan.boards, 1):
        spec = plan.qemu_spec(board)
        lines += _table(f"controllers.vpower-{number}", {"driver": "qmp", "socket": str(spec.qmp_socket)})
        if board.listed:
            table = _listed(board, spec, f"vpower-{number}:{OUTLET}", len(plan.boards))
            lines += _table(f"boards.{board.board}", table | more.get(board.board, {}))
    lines += _pdus(plan)
    for number, light in enumerate(plan.lights, 1):
        if not light.pdu:
            socket = str(plan.light_socket(light))
            lines += _table(f"controllers.lpower-{number}", {"driver": "qmp", "socket": socket})
        lines += _table(f"boards.{light.board}", _light(light, number) | more.get(light.board, {}))
    return "\n".join(lines) + "\n"


def _pdus(plan: FarmPlan) -> Iterator[str]:
    for number in range(1, plan.pdus + 1):
        table: dict[str, Value | None] = {"driver": "snmp", "host": BRIDGE_ADDRESS, "port": PDU_PORT + number - 1}
        table |= {"family": PDU_MODEL, "community_file": str(plan.pdu_community)}
        yield from _table(f"controllers.pdu-{number}", table)


def _controllers(plan: FarmPlan, cabling: Cabling) -> Iterator[str]:
    for controller in cabling.controllers:
        if controller.kind is Kind.SNMP:
            table: dict[str, Value | None] = {"driver": "snmp", "host": BRIDGE_ADDRESS, "port": controller.port}
            table |= {"family": controller.model, "community_file": str(plan.pdu_community)}
        else:
            table = {"driver": "netio", "url": f"http://{BRIDGE_ADDRESS}:{controller.port}"}
        kept: Value | None = list(controller.kept) or None
        yield from _table(f"controllers.{controller.name}", table | {"keep_outlets": kept})


def _light(light: LightBoardPlan, number: int) -> dict[str, Value | None]:
    table: dict[str, Value | None] = {
        "feed": [f"pdu-{light.pdu}:{light.outlet}" if light.pdu else f"lpower-{number}:{OUTLET}"],
        "macs": [light.mac],
        "address": light.address,
        "profile": "light",
        "labels": {"virtual": True, "light": True},
        "boot_timeout_s": LIGHT_BOOT_TIMEOUT_S,
    }
    # A rack PDU's relay wants a rest of seconds; this one has none.
    return table | {"min_off_s": 0} if light.pdu else table


def _virtual_profile(plan: FarmPlan) -> dict[str, Value | None]:
    return {
        "arch": "arm64",
        "kernel": plan.kernel,
        "initrd": plan.initrd,
        "dtb": plan.device_tree,
        "cmdline": CMDLINE,
    }


def _listed(board: QemuBoardPlan, spec: QemuBoardSpec, outlet: str, boards: int) -> dict[str, Value | None]:
    return {
        "feed": [outlet],
        "macs": [board.mac],
        "address": board.address,
        "profile": "virtual",
        "dtb": str(spec.device_tree),
        "uuid": spec.uuid if board.own_environment else None,  # the default U-Boot does not know it
        "console": f"unix:{spec.console_socket}",
        "labels": {"arch": "arm64", "virtual": True},
        "boot_timeout_s": max(QEMU_BOOT_TIMEOUT_S, boards * QEMU_BOOT_TIMEOUT_PER_BOARD_S),
    }
