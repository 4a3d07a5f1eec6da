"""`hubs`: the USB hubs of this host, what hangs on each port, and what is known of each port's power."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from agent.power.drivers.usb_hub_ports import HubSwitch, HubView, PortFiles, SysfsFiles
from agent.power.drivers.usb_requests import AsksHubs, UsbRequests
from agent.power.errors import PowerError
from agent.power.kinds.usb_hub import UsbHubSettings
from cli.exits import Exit, usage
from cli.plain_text import shown
from udev.usb_hub_pairs import other_half, same_socket
from udev.usb_hub_truth import PortTruth, Truth
from udev.usb_hubs import HubPort, UsbChild, UsbHub, machine_model, usb_hubs
from wire.phases import Power

PROOFS_FILE = "boardhand/hub-proofs.json"
"""Below XDG_STATE_HOME: what `hubs prove` found."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the hubs are: sysfs, the attributes of ports, libusb, and what was proved. Tests put others in place."""

    sysfs: Path = Path("/sys")
    files: PortFiles = field(default_factory=SysfsFiles)
    requests: AsksHubs = field(default_factory=UsbRequests)
    proofs: Path | None = None

    def switch(self, hub: UsbHub) -> HubSwitch:
        """What switches `hub`, with everything allowed: the person at the terminal was asked."""
        settings = UsbHubSettings(driver="usb_hub", hub=str(hub.id), allow_chained=True, allow_root=True)
        return HubSwitch("hubs", settings, self.sysfs, self.files, self.requests)

    def hubs(self) -> list[UsbHub]:
        """All hubs.

        Raises:
            CliError: there is no sysfs.
        """
        try:
            return usb_hubs(self.sysfs)
        except OSError as problem:
            raise usage(f"no sysfs at {self.sysfs}: {problem.strerror}", "mount it") from None

    def proved(self) -> dict[str, Truth]:
        """What was proved on this host; a file that cannot be read proves nothing."""
        try:
            found = json.loads(self._proofs_file().read_bytes())
        except (OSError, ValueError):
            return {}
        words = set(Truth)
        return {key: Truth(word) for key, word in found.items() if word in words} if isinstance(found, dict) else {}

    def keep_proof(self, key: str, word: Truth) -> None:
        """Remember it. Written anew and moved into place, so that no reader sees half of it.

        Raises:
            OSError: it cannot be written.
        """
        path = self._proofs_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(self.proved() | {key: word}, indent=1, sort_keys=True), encoding="utf-8")
        fresh.replace(path)

    def _proofs_file(self) -> Path:
        if self.proofs is not None:
            return self.proofs
        base = os.environ.get("XDG_STATE_HOME")
        return (Path(base) if base else Path.home() / ".local" / "state") / PROOFS_FILE


@dataclass(frozen=True, slots=True)
class Socket:
    """One port with both its halves."""

    port: HubPort
    truth: PortTruth
    power: Power
    unread: str
    """Why `power` could not be read; empty if it was."""
    children: tuple[UsbChild, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One hub, both halves."""

    view: HubView
    depth: int
    sockets: tuple[Socket, ...]


def show(bench: Bench, *, as_json: bool) -> int:
    """List the hubs of this host.

    Raises:
        CliError: there is no sysfs.
    """
    hubs = listed(bench)
    if as_json:
        print(json.dumps({"hubs": [_document(hub) for hub in hubs]}))
        return Exit.OK
    if not hubs:
        print(f"no USB hubs in {bench.sysfs}")
        return Exit.OK
    for hub in hubs:
        print("\n".join(_lines(hub)))
    words = {socket.truth.word for hub in hubs for socket in hub.sockets}
    print()
    width = max(map(len, words), default=0)
    for word in Truth:
        if word in words:
            print(f"{word:<{width}}  {word.meaning}")
    unread = next((socket.unread for hub in hubs for socket in hub.sockets if socket.unread), "")
    if unread:
        print(f"\npower is unknown where it could not be read: {shown(unread)}")
    elif Truth.UNKNOWN in words:
        print("\nto have the hubs asked, run it as root, or install the rules that 'boardhand udev hubs' prints")
    return Exit.OK


def listed(bench: Bench) -> list[Shown]:
    """Every hub once, the halves of a USB 3 hub together, each after the hub it hangs on."""
    hubs = bench.hubs()
    machine = machine_model(bench.sysfs)
    proofs = bench.proved()
    found = []
    for hub in hubs:
        switch = bench.switch(hub)
        try:
            view = switch.look()
        except PowerError:
            continue  # unplugged since the scan
        if hub.id.usb3 and view.pair is not None and _is_first(view.pair.other, hub, hubs, machine):
            continue
        sockets = tuple(_socket(switch, view, port, proofs) for port in view.hub.ports)
        depth = 0 if hub.is_root else 1 + hub.id.ports.count(".")
        found.append(Shown(view, depth, sockets))
    return found


def _is_first(usb2: UsbHub, usb3: UsbHub, hubs: list[UsbHub], machine: str) -> bool:
    """Whether the USB 3 half is shown with `usb2`: both must believe it."""
    pair = other_half(usb2, hubs, machine)
    return pair is None or pair.other.name == usb3.name


def _socket(switch: HubSwitch, view: HubView, port: HubPort, proofs: dict[str, Truth]) -> Socket:
    outlet = str(port.number)
    try:
        power, unread = switch.get_from(view, outlet), ""
    except PowerError as problem:
        power, unread = Power.UNKNOWN, problem.problem
    peer = same_socket(port, view.pair) if view.pair is not None else None
    halves = [port] if peer is None else [port, peer]
    children = tuple(half.child for half in halves if half.child is not None)
    return Socket(port, switch.truth(view, port, proofs), power, unread, children)


def _lines(hub: Shown) -> list[str]:
    one, pair = hub.view.hub, hub.view.pair
    indent = "  " * hub.depth
    what = "root hub" if one.is_root else f"{one.vendor}:{one.product} {one.label}".strip()
    words = [what, f"serial {one.own_serial}" if one.own_serial else "", f"{one.name}, {len(one.ports)} ports"]
    words += [f"USB 3 half {pair.other.name} by {pair.by}" if pair is not None else ""]
    lines = [f"{indent}{one.id}  {shown('; '.join(filter(None, words)))}"]
    width = max((len(socket.truth.word) for socket in hub.sockets), default=0)
    for socket in hub.sockets:
        children = ", ".join(child_text(child) for child in socket.children) or "-"
        number = f"{socket.port.number:>{2}}"
        lines.append(f"{indent}  {number}  {socket.power:<7}  {socket.truth.word:<{width}}  {children}")
    return lines


def child_text(child: UsbChild, *, behind: bool = False) -> str:
    """A device on one line; of a hub the serial ports behind it only if asked for."""
    kind = "hub " + child.name if child.is_hub else f"{child.vendor}:{child.product}"
    ttys = child.ttys if behind or not child.is_hub else ()
    return shown(" ".join(filter(None, (kind, child.label, child.serial, *ttys))))


def _document(hub: Shown) -> dict[str, object]:
    one, pair = hub.view.hub, hub.view.pair
    half = None if pair is None else {"id": str(pair.other.id), "name": pair.other.name, "by": pair.by}
    return {
        "id": str(one.id),
        "name": one.name,
        "root": one.is_root,
        "depth": hub.depth,
        "controller": one.id.controller,
        "vendor": one.vendor,
        "product": one.product,
        "serial": one.own_serial,
        "label": one.label,
        "usb_version": one.usb_version,
        "speed_mbit_s": one.speed_mbit_s,
        "container": one.container,
        "other_half": half,
        "ports": [_socket_document(one, socket) for socket in hub.sockets],
    }


def _socket_document(hub: UsbHub, socket: Socket) -> dict[str, object]:
    return {
        "port": socket.port.number,
        "id": f"{hub.id}:{socket.port.number}",
        "power": socket.power,
        "unread": socket.unread or None,
        "kernel_switches": socket.port.switchable,
        "truth": socket.truth.word,
        "meaning": socket.truth.word.meaning,
        "why": socket.truth.why,
        "source": socket.truth.source,
        "children": [_child_document(child) for child in socket.children],
    }


def _child_document(child: UsbChild) -> dict[str, object]:
    return {
        "name": child.name,
        "vendor": child.vendor,
        "product": child.product,
        "serial": child.serial,
        "label": child.label,
        "hub": child.is_hub,
        "fixed": child.fixed,
        "ttys": list(child.ttys),
    }
