"""USB hubs in a folder: a sysfs tree that behaves. Switching a port off makes what hangs on it vanish from the tree,
and switching it on brings it back with a new device number. Hubs that do not switch, lie, or switch all ports at once
do that.

A plain folder cannot answer a read as the kernel does, which asks the hub. So the tree is also the `PortFiles` of the
hub driver, and its libusb (`AsksHubs`); whoever looks at the folder itself sees what the kernel would list.
"""

import errno
import itertools
import os
import shutil
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from udev.usb_hub_truth import HUB_DESCRIPTOR, SUPER_SPEED_HUB_DESCRIPTOR, Switching
from udev.usb_hubs import UsbHub

_TRUE, _FALSE = frozenset("1yYtT"), frozenset("0nNfF")  # kstrtobool
_MODES = {Switching.GANGED: 0, Switching.PER_PORT: 1, Switching.NONE: 2}


class Behaviour(StrEnum):
    """What a virtual hub does when it is told to switch a port."""

    PER_PORT = "per-port"
    NONE = "none"
    """Accepts, and stays on: the hub of QEMU without `port-power`."""
    TOGETHER = "together"
    """Any port switches all ports."""
    STAYS = "stays"
    """Says that the port is off, and leaves its device connected: dummy_hcd's root hub."""


@dataclass
class VirtualDevice:
    """Something to plug in. `ttys` is how many serial ports it has."""

    vendor: str = "0403"
    product: str = "6001"
    serial: str | None = None
    label: str = "FT232R USB UART"
    ttys: int = 0
    fixed: bool = False
    container: str | None = None
    usb_version: str = " 2.00"
    device_class: str = "00"
    number: int = field(default=0, init=False)
    folder: Path = field(default=Path(), init=False)
    names: list[str] = field(default_factory=list, init=False)
    """Its ttys while it is there."""


@dataclass
class VirtualPort:
    """One port of a virtual hub."""

    hub: "VirtualHub"
    number: int
    powered: bool = True
    device: VirtualDevice | None = None
    listed: bool = False
    """Whether the kernel believes that the device is there; stale after power was switched past it."""
    peer: "VirtualPort | None" = None
    edges: list[bool] = field(default_factory=list)
    """Every real change of the power bit."""

    @property
    def folder(self) -> Path:
        name = self.hub.folder.name
        interface = f"{self.hub.bus}-0:1.0" if name.startswith("usb") else f"{name}:1.0"
        return self.hub.folder / interface / f"{name}-port{self.number}"

    @property
    def disable(self) -> Path:
        return self.folder / "disable"


@dataclass
class VirtualHub(VirtualDevice):
    """A hub; itself a device on a port of another one, unless it is a root hub."""

    count: int = 4
    behaviour: Behaviour = Behaviour.PER_PORT
    says: Switching | None = None
    """What its class descriptor says; by default the truth."""
    usb3: bool = False
    bus: int = field(default=0, init=False)
    ports: dict[int, VirtualPort] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.device_class = "09"
        self.ports = {number: VirtualPort(self, number) for number in range(1, self.count + 1)}

    def descriptor(self) -> bytes:
        """Its class descriptor."""
        honest = {Behaviour.NONE: Switching.NONE, Behaviour.TOGETHER: Switching.GANGED}
        mode = _MODES[self.says or honest.get(self.behaviour, Switching.PER_PORT)]
        kind = SUPER_SPEED_HUB_DESCRIPTOR if self.usb3 else HUB_DESCRIPTOR
        return struct.pack("<BBBHBBBB", 9, kind, self.count, 0x08 | mode, 50, 0, 0, 0xFF)


class UsbHubTree:
    """The folder. `root` is what goes where `/sys` is wanted.

    Attributes:
        kernel_switches: whether the ports have the attribute `disable`, as from Linux 6.0.
        readable: whether libusb may open hubs.
        claimable: whether ports may be claimed; `claims` are those that are, by the hub's name and port.
        faults: numbers of errors that the next writes end with, one each.
        silent: number of the error that every question and command ends with; 0 for none.
        before_write: called with each path that is written, before anything else; may pull a plug.
    """

    def __init__(self, root: Path, *, kernel_switches: bool = True, machine: str = "") -> None:
        self.root = root = root.resolve()
        self.kernel_switches = kernel_switches
        self.readable = True
        self.claimable = True
        self.silent = 0
        self.faults: list[int] = []
        self.before_write: Callable[[Path], None] | None = None
        self.requested: list[str] = []
        self.claims: set[tuple[str, int]] = set()
        self._hubs: list[VirtualHub] = []
        self._buses = itertools.count(1)
        self._numbers = itertools.count(2)
        self._sockets: list[list[VirtualPort]] = []
        for folder in ("devices", "bus/usb/devices", "class/tty"):
            (root / folder).mkdir(parents=True)
        if machine:
            model = root / "firmware/devicetree/base/model"
            model.parent.mkdir(parents=True)
            model.write_bytes(machine.encode() + b"\0")

    # --- building --------------------------------------------------------------------------------------------------

    def root_hub(
        self,
        controller: str = "pci0000:00/0000:00:14.0",
        *,
        ports: int = 4,
        usb3: bool = False,
        driver: str = "xhci_hcd",
        behaviour: Behaviour = Behaviour.PER_PORT,
    ) -> VirtualHub:
        """The root hub of a new bus of `controller`, a path below `devices`: steps with a colon
        are PCI devices, others platform devices."""
        folder = self.root / "devices"
        for step in controller.split("/"):
            folder /= step
            folder.mkdir(exist_ok=True)
            if not step.startswith("pci") and step not in {"platform", "axi"}:
                self._link(folder / "subsystem", self.root / "bus" / ("pci" if ":" in step else "platform"))
        self._link(folder / "driver", self.root / "bus" / "drivers" / driver)
        hub = VirtualHub(
            "1d6b", "0003" if usb3 else "0002", folder.name, f"{driver} Host Controller", count=ports, usb3=usb3,
            behaviour=behaviour, usb_version=" 3.00" if usb3 else " 2.00",
        )  # fmt: skip
        hub.bus = next(self._buses)
        hub.folder = folder / f"usb{hub.bus}"
        hub.number = 1
        self._list(hub)
        return hub

    def plug(self, hub: VirtualHub, number: int, device: VirtualDevice) -> VirtualDevice:
        """Plug `device` into a port; a hub brings what is plugged into it."""
        port = hub.ports[number]
        port.device = device
        if port.powered:
            self._attach(port)
        return device

    def hub(self, above: VirtualHub, number: int, **properties: object) -> VirtualHub:
        """A hub on a port of another; `properties` as of `VirtualHub`."""
        known: dict[str, object] = {"vendor": "2109", "product": "2817", "label": "USB Hub", "usb3": above.usb3}
        hub = VirtualHub(**(known | properties))  # type: ignore[arg-type]
        self.plug(above, number, hub)
        return hub

    def peers(self, usb2: VirtualHub, usb3: VirtualHub) -> None:
        """Let the kernel know that the ports of both are the same sockets, and make them so."""
        for number in usb2.ports.keys() & usb3.ports.keys():
            one, other = usb2.ports[number], usb3.ports[number]
            one.peer, other.peer = other, one
            self._link_peers(one)
            self._link_peers(other)
        self.same_sockets(usb2, usb3)

    def same_sockets(self, usb2: VirtualHub, usb3: VirtualHub) -> None:
        """Make the ports of both halves the same sockets; the kernel is not told."""
        self._sockets += [[usb2.ports[number], usb3.ports[number]] for number in usb2.ports.keys() & usb3.ports.keys()]

    def one_switch(self, hubs: Iterable[VirtualHub]) -> None:
        """All sockets of `hubs` have one switch, which opens when all their ports are off."""
        self._sockets.append([port for hub in hubs for port in hub.ports.values()])

    def vbus(self, hub: VirtualHub, number: int) -> bool:
        """Whether there is power at the socket: as long as any port that shares it is on."""
        port = hub.ports[number]
        shared = [group for group in self._sockets if any(port is other for other in group)]
        return any(other.powered for group in shared for other in group) if shared else port.powered

    def unplug(self, device: VirtualDevice) -> None:
        """Pull a device, or a hub and everything behind it, out for good."""
        for hub in list(self._hubs):
            for port in hub.ports.values():
                if port.device is device:
                    self._detach(port)
                    port.device = None

    # --- PortFiles --------------------------------------------------------------------------------------------------

    def read(self, path: Path) -> str:
        """The attribute, as the kernel answers: it asks the hub."""
        _fail(self.silent)
        port = self._port(path)
        return path.read_text() if port is None else f"{int(not port.powered)}\n"

    def write(self, path: Path, text: str) -> None:
        """As the kernel: `disable` of a port, `authorized` and `remove` of a device."""
        if self.before_write is not None:
            self.before_write(path)
        _fail(self.silent or (self.faults.pop(0) if self.faults else 0))
        if not path.exists():
            _fail(errno.ENOENT)
        if path.name in {"authorized", "remove"}:
            return self._told_of_device(path)
        port = self._port(path)
        if port is None or text[:1] not in _TRUE | _FALSE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        on = text[:1] in _FALSE
        if not on:
            self._detach(port)  # usb_disconnect comes before the hub is asked
        self._power(port, on=on, past_kernel=False)
        return None

    # --- AsksHubs ---------------------------------------------------------------------------------------------------

    def hub_descriptor(self, hub: UsbHub) -> bytes:
        return self._asked(hub, "hub_descriptor").descriptor()

    def bos(self, hub: UsbHub) -> bytes:
        container = self._asked(hub, "bos").container
        body = b"" if container is None else bytes([20, 0x10, 0x04, 0]) + bytes.fromhex(container)
        return struct.pack("<BBHB", 5, 0x0F, 5 + len(body), 1 if body else 0) + body

    def is_powered(self, hub: UsbHub, port: int) -> bool:
        return self._asked(hub, f"status {port}").ports[port].powered

    def switch(self, hub: UsbHub, port: int, *, on: bool) -> None:
        self._power(self._asked(hub, f"{'on' if on else 'off'} {port}").ports[port], on=on, past_kernel=True)

    def claim(self, hub: UsbHub, port: int) -> bool:
        if self.claimable:
            self.claims.add((hub.name, port))
        return self.claimable

    def release(self, hub: UsbHub, port: int) -> None:
        self.claims.discard((hub.name, port))

    def _asked(self, hub: UsbHub, what: str) -> VirtualHub:
        self.requested.append(f"{hub.name} {what}")
        _fail(self.silent or (0 if self.readable else errno.EACCES))
        found = next((own for own in self._hubs if (own.bus, own.number) == (hub.bus, hub.device)), None)
        if found is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return found

    # --- power ------------------------------------------------------------------------------------------------------

    def _power(self, port: VirtualPort, *, on: bool, past_kernel: bool) -> None:
        hub = port.hub
        ports = list(hub.ports.values()) if hub.behaviour is Behaviour.TOGETHER else [port]
        for each in ports:
            if hub.behaviour is not Behaviour.NONE and each.powered != on:
                each.powered = on
                each.edges.append(on)
                if on:
                    self._detach(each)  # stale: the kernel sees that something was plugged in
            connected = each.powered or hub.behaviour is Behaviour.STAYS
            if connected:
                self._attach(each)  # a hub that only pretended: its device is enumerated again
            elif not past_kernel:
                self._detach(each)

    def _told_of_device(self, path: Path) -> None:
        """Of `remove` only the case that was measured: the port without power."""
        for port in [port for hub in self._hubs for port in hub.ports.values() if port.listed]:
            device = port.device
            if device is None or device.folder != path.parent:
                continue
            if path.name == "authorized":
                path.write_text("0\n")
                self._unlist_ttys(device)
            else:
                self._detach(port)
                if (port.hub.folder.name, port.number) not in self.claims:
                    self._power(port, on=True, past_kernel=False)  # "maybe switch power back on", hub_port_connect

    # --- the folder -------------------------------------------------------------------------------------------------

    def _attach(self, port: VirtualPort) -> None:
        device = port.device
        if device is None or port.listed or port.hub not in self._hubs:
            return
        above = port.hub.folder
        name = f"{port.hub.bus}-{port.number}" if above.name.startswith("usb") else f"{above.name}.{port.number}"
        device.folder = above / name
        device.number = next(self._numbers)
        port.listed = True
        if isinstance(device, VirtualHub):
            device.bus = port.hub.bus
        self._list(device)

    def _list(self, device: VirtualDevice) -> None:
        folder = device.folder
        folder.mkdir()
        self._link(folder / "subsystem", self.root / "bus" / "usb")
        usb3 = isinstance(device, VirtualHub) and device.usb3
        texts = {
            "idVendor": device.vendor, "idProduct": device.product, "product": device.label,
            "version": device.usb_version, "bDeviceClass": device.device_class, "devnum": str(device.number),
            "speed": "5000" if usb3 else "480", "busnum": folder.name.partition("-")[0].removeprefix("usb"),
            "removable": "fixed" if device.fixed else "unknown", "remove": "", "authorized": "1",
        }  # fmt: skip
        if device.serial is not None:
            texts["serial"] = device.serial
        for name, text in texts.items():
            (folder / name).write_text(f"{text}\n")
        self._link(self.root / "bus/usb/devices" / folder.name, folder)
        for number in range(device.ttys):
            self._list_tty(device, number)
        if isinstance(device, VirtualHub):
            self._list_ports(device)

    def _list_tty(self, device: VirtualDevice, number: int) -> None:
        free = (f"ttyUSB{count}" for count in itertools.count())
        name = next(name for name in free if not (self.root / "class/tty" / name).is_symlink())
        place = device.folder / f"{device.folder.name}:1.{number}" / name
        (place / "tty" / name).mkdir(parents=True)
        self._link(place / "tty" / name / "device", place)
        self._link(self.root / "class/tty" / name, place / "tty" / name)
        device.names.append(name)

    def _list_ports(self, hub: VirtualHub) -> None:
        self._hubs.append(hub)
        for port in hub.ports.values():
            port.folder.mkdir(parents=True)
            if self.kernel_switches:
                port.disable.write_text("0\n")
            port.powered = True  # the kernel powers all ports of a new hub
            if port.peer is not None:
                self._link_peers(port)
                self._link_peers(port.peer)
        for port in hub.ports.values():
            self._attach(port)

    def _detach(self, port: VirtualPort) -> None:
        device = port.device
        if device is None or not port.listed:
            return
        if isinstance(device, VirtualHub):
            for below in device.ports.values():
                self._detach(below)
            self._hubs.remove(device)
        port.listed = False
        self._unlist_ttys(device)
        (self.root / "bus/usb/devices" / device.folder.name).unlink()
        shutil.rmtree(device.folder)

    def _unlist_ttys(self, device: VirtualDevice) -> None:
        for name in device.names:
            (self.root / "class/tty" / name).unlink()
        device.names.clear()

    def _link_peers(self, port: VirtualPort) -> None:
        if port.peer is not None and port.folder.exists() and port.peer.folder.exists():
            self._link(port.folder / "peer", port.peer.folder)

    @staticmethod
    def _link(link: Path, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(target, link.parent))

    def _port(self, path: Path) -> VirtualPort | None:
        return next((port for hub in self._hubs for port in hub.ports.values() if port.disable == path), None)


def _fail(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))
