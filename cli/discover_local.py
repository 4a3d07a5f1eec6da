"""What `discover` finds on this host itself: hubs, serial ports and HID boards. Nothing is written to any device."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.discovery import known
from agent.discovery.findings import Candidate, Problem, SerialLine, TomlValue
from cli.exits import CliError
from cli.hubs import Bench, Shown, Socket, child_text, listed
from udev.hid_relays import HidRelay, hid_relays
from udev.serial_ports import SerialPort, lasting_names, serial_ports
from udev.usb_hub_truth import Truth

SINGLE = frozenset({Truth.PER_PORT, Truth.CLAIMED})
MICROCONTROLLERS = frozenset({"2341", "2a03", "2e8a"})
"""USB vendors of Arduino, Arduino again, and Raspberry Pi: what power cables are made of."""
OLD_CABLE = "may be a power cable of one character (serial_cable): such a cable says nothing of itself"
ASK_CABLE = "may be boardhand's power cable, or a board: --probe-serial asks it"
_AS_ROOT = "run it as root, or open the hubs to your group: 'sudo boardhand udev install'"


@dataclass(frozen=True, slots=True)
class Place:
    """Where this host's devices are. Tests put others in place."""

    sysfs: Path = Path("/sys")
    dev: Path = Path("/dev")
    bench: Bench | None = None
    may_open: Callable[[str], bool] = lambda node: os.access(node, os.R_OK | os.W_OK)


@dataclass
class Local:
    """What was found here. `lasting` is, for each serial port by its name, the path for settings."""

    hubs: list[Shown] = field(default_factory=list)
    ports: list[SerialPort] = field(default_factory=list)
    lasting: dict[str, str] = field(default_factory=dict)
    relays: list[HidRelay] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def lines(self, cables: frozenset[str]) -> list[SerialLine]:
        """The serial ports but those (`known.tty`) that are power cables."""
        ports = [(port, self.lasting[port.name]) for port in self.ports]
        return [
            SerialLine(device, port_text(port), tuple(port_hints(port)))
            for port, device in ports
            if known.tty(device) not in cables
        ]


def look(place: Place) -> Local:
    """Read sysfs, and ask the hubs what they can. Blocks."""
    local = Local()
    bench = place.bench or Bench(place.sysfs)
    try:
        local.hubs = listed(bench)
        local.relays = hid_relays(place.sysfs)
    except (OSError, CliError):
        do = "mount it; a container needs it from its host, as -v /sys:/sys:ro"
        local.problems.append(Problem("USB", f"there is no sysfs at {place.sysfs}", do))
        return local
    try:
        local.ports = serial_ports(place.sysfs)
    except OSError:
        local.ports = []  # sysfs without a class tty: a kernel without serial ports
    local.lasting = lasting_names(local.ports, place.dev)
    local.candidates = _one_of_pi5([found for found in map(_hub, local.hubs) if found is not None], local.hubs)
    local.candidates += map(_relay, local.relays)
    local.problems += _closed(local, place)
    return local


def port_text(port: SerialPort) -> str:
    """A serial port on one line."""
    usb = port.usb
    if usb is None:
        return f"{port.name} of this host itself ({port.hardware})"
    serial = f"serial {usb.serial}" if usb.serial else "no serial number"
    number = f", port {port.port_number}" if port.port_number else ""
    return f"{port.name}, {port.driver or 'USB'} {usb.vendor}:{usb.product}, {serial}, at {usb.port_path}{number}"


def port_hints(port: SerialPort) -> list[str]:
    """What a person has to know about it."""
    usb = port.usb
    if usb is None:
        return []
    hints = []
    if usb.serial is None:
        hints.append("known by its USB port alone, so it must stay there")
    elif port.serial_is_shared:
        hints.append("its serial number is not its own: known by its USB port, so it must stay there")
    if (usb.vendor, usb.product) == ("2e8a", "0005"):
        hints.append(ASK_CABLE)
    elif usb.vendor in MICROCONTROLLERS:
        hints.append(OLD_CABLE)
    return hints


def _hub(hub: Shown) -> Candidate | None:
    """The hub as a controller; None for one inside the host controller, which is no part of a farm."""
    one, pair = hub.view.hub, hub.view.pair
    truths = {socket.port.number: socket.truth.word for socket in hub.sockets}
    single = [number for number, word in truths.items() if word in SINGLE]
    whole = any(word.whole_hub for word in truths.values())
    if one.is_root and not whole:
        return None
    outlets = tuple(map(str, single)) or (("all",) if whole else ())
    names = {str(one.id), one.own_serial or "", "" if pair is None else str(pair.other.id)} - {""}
    what = f"USB hub {one.vendor}:{one.product} {one.label}".strip()
    return Candidate(
        stem="hub",
        keys={"driver": "usb_hub", "hub": str(one.id)},
        about=what + (f", serial {one.own_serial}" if one.own_serial else ""),
        outlets=outlets,
        hints=tuple(_hub_hints(hub, truths)),
        identities=frozenset(f"hub:{name}" for name in names),
        unwritten="" if outlets else _why_not(hub.sockets),
    )


def _one_of_pi5(candidates: list[Candidate], hubs: list[Shown]) -> list[Candidate]:
    """The root hubs of a Raspberry Pi 5 have one switch: the first of them stands for all."""
    same = {str(hub.view.hub.id) for hub in hubs for socket in hub.sockets if socket.truth.word is Truth.PI5}
    kept: list[Candidate] = []
    for one in candidates:
        doubled = one.keys["hub"] in same and any(other.keys["hub"] in same for other in kept)
        why = "it has one switch with the other root hubs of this Raspberry Pi, which is written for one of them"
        kept.append(replace(one, unwritten=why) if doubled else one)
    return kept


def _hub_hints(hub: Shown, truths: Mapping[int, Truth]) -> list[str]:
    hints = []
    claimed = [str(number) for number, word in truths.items() if word is Truth.CLAIMED]
    if claimed:
        hints.append(
            f"Nobody has proved that port {', '.join(claimed)} really switches: "
            f"'boardhand hubs prove {hub.view.hub.id}:{claimed[0]}' does, with something plugged in."
        )
    if any(word is Truth.CHAINED for word in truths.values()):
        hints.append("A port that feeds the second chip of the same housing is left out.")
    for socket in hub.sockets:
        if socket.children and socket.truth.word is not Truth.CHAINED:
            there = "; ".join(child_text(child) for child in socket.children)
            hints.append(f"Port {socket.port.number}: {there}")
    return hints


def _why_not(sockets: tuple[Socket, ...]) -> str:
    words = {socket.truth.word for socket in sockets}
    if Truth.UNKNOWN in words:
        return f"nobody could ask it whether it switches power: {_AS_ROOT}"
    hopeless = next((socket.truth.why for socket in sockets if socket.truth.word.hopeless), "")
    return f"it does not switch power: {hopeless}" if hopeless else "none of its ports can be switched by itself"


def _relay(board: HidRelay) -> Candidate:
    kind = board.kind
    keys: dict[str, TomlValue] = {"driver": kind.driver}
    identities = {f"usb:{kind.driver}:{board.path}"}
    hints = []
    if kind.protocol == "lcus":
        keys["protocol"] = kind.protocol
    if board.serial is not None and kind.own_serial and not board.serial_is_shared:
        identities.add(f"usb:{kind.driver}:{board.serial}")
        keys |= {} if board.only_one else {"serial": board.serial}
    elif not board.only_one:
        keys["path"] = board.path
        hints.append("By its USB port, since another is plugged in: it must stay there.")
    if board.only_one:
        identities.add(f"usb:{kind.driver}:{kind.protocol or ''}:")
    if kind.protocol == "dcttech":
        identities.add(known.SOME_DCTTECH)
    number = f", {board.vendor}:{board.product}, at {board.path}"
    return Candidate(
        stem="relay" if kind.driver == "hid_relay" else kind.driver,
        keys=keys,
        about=f"{kind.maker} {board.label}".strip() + number,
        outlets=tuple(map(str, range(1, (board.outlets or 0) + 1))),
        hints=tuple(hints),
        identities=frozenset(identities),
        unwritten="" if board.outlets else "it does not tell how many relays it has: count them, and write outlets",
    )


def _closed(local: Local, place: Place) -> list[Problem]:
    """Devices that this user may not open, or that are not in this container, each kind once."""
    nodes = [str(place.dev / port.name) for port in local.ports]
    boards = [str(place.dev / Path(board.node).relative_to("/dev")) for board in local.relays]
    absent = [node for node in [*nodes, *boards] if not os.path.lexists(node)]  # Path has no lexists
    found = []
    if absent:
        do = f"in a container, hand it in: --device {absent[0]}"
        found.append(Problem(", ".join(absent), "the kernel has it and it is not here", do))
    shut = [node for node in nodes if node not in absent and not place.may_open(node)]
    if shut:
        do = "let the agent's user into its group, 'sudo usermod -aG dialout USER', and log in again"
        found.append(Problem(", ".join(shut), "permission denied", do))
    shut = [node for node in boards if node not in absent and not place.may_open(node)]
    if shut:
        found.append(
            Problem(", ".join(shut), "permission denied", "open it to your group: 'sudo boardhand udev install'")
        )
    unread = next((socket.unread for hub in local.hubs for socket in hub.sockets if socket.unread), "")
    own = [socket for hub in local.hubs if not hub.view.hub.is_root for socket in hub.sockets]
    if unread or any(socket.truth.word is Truth.UNKNOWN for socket in own):
        found.append(Problem("USB hubs", f"some could not be asked{f': {unread}' if unread else ''}", _AS_ROOT))
    return found
