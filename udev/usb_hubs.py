"""USB hubs of this host as sysfs shows them: their ports, what hangs on each, and a name for each hub that stays.

Only attributes that the kernel holds in memory are read, below a root that is a parameter, so nothing here waits for a
device. Layout: Documentation/ABI/testing/sysfs-bus-usb of the kernel, and drivers/usb/core/port.c.

A hub's name is where it is plugged in: the host controller as udev names it in ID_PATH, then the ports down to it, as
`pci-0000:00:14.0-usb-0:1.4`. Bus and device numbers are not in it, since they change between boots.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from udev.device_path import ancestors, attribute, id_path, link_name

SYSFS_ROOT = Path("/sys")

HUB_CLASS = "09"  # bDeviceClass of a hub, USB 2.0 specification 11.23.1
SUPER_SPEED_MBIT_S = 5000.0  # a hub at this speed or more is the USB 3 half: it is on a bus of its own
MAX_PORTS = 255  # bNbrPorts is one byte

_PORT_FOLDER = re.compile(r".+-port([0-9]{1,3})")
_CAPABILITY, _CONTAINER_ID = 0x10, 0x04  # bDescriptorType and bDevCapabilityType, USB 3.2 specification 9.6.2.3


class HubId(NamedTuple):
    """Where a hub is plugged in. `ports` is `1.4`, or `0` for the hub inside the controller; `usb3` picks the bus of
    the controller: a USB 3 hub is two hubs, one on each, and settings name the USB 2 one."""

    controller: str
    ports: str
    usb3: bool = False

    @classmethod
    def parse(cls, text: str) -> "HubId":
        """The hub that `text` names; `-usb-0:`, as udev writes, and `-usbv2-0:` are the same.

        Raises:
            ValueError: it is not of that form.
        """
        found = re.fullmatch(r"(.+)-usb(v2|v3)?-0:(0|[1-9][0-9]{0,2}(?:\.[1-9][0-9]{0,2}){0,5})", text, re.ASCII)
        if found is None:
            raise ValueError(f"{text!r} is no place of a hub, as pci-0000:00:14.0-usb-0:1.4")
        return cls(found[1], found[3], found[2] == "v3")

    def __str__(self) -> str:
        return f"{self.controller}-usb{'v3' if self.usb3 else ''}-0:{self.ports}"


@dataclass(frozen=True, slots=True)
class UsbChild:
    """A device on a port. `vendor` and `product` are four hexadecimal digits."""

    name: str
    """The kernel's name, `1-1.2`."""
    device: int
    """Device number on its bus; a device that was away and came back has a new one."""
    vendor: str
    product: str
    serial: str | None
    label: str
    """What it calls itself, `FTDI FT232R USB UART`; may be empty. Written by a stranger."""
    is_hub: bool
    fixed: bool
    """The hub says that it is built in and cannot be pulled."""
    container: str | None
    ttys: tuple[str, ...]
    """Serial ports below it, at any depth."""


@dataclass(frozen=True, slots=True)
class HubPort:
    """One port of one hub."""

    number: int
    folder: Path
    switchable: bool
    """Whether the kernel has the `disable` attribute (6.0 and later); says nothing about the hub."""
    peer: Path | None
    """The same socket's port on the other bus of the controller, as the kernel knows it."""
    child: UsbChild | None

    @property
    def disable(self) -> Path:
        """`1` written here takes the power away; reading asks the hub."""
        return self.folder / "disable"


@dataclass(frozen=True, slots=True)
class UsbHub:
    """One hub on one bus. A USB 3 hub is two of these, see `udev.usb_hub_pairs`."""

    name: str
    """The kernel's name, `1-1.4` or `usb1`; changes between boots."""
    folder: Path
    id: HubId
    bus: int
    device: int
    vendor: str
    product: str
    serial: str | None
    label: str
    usb_version: str
    speed_mbit_s: float | None
    container: str | None
    """32 hexadecimal digits that all parts of one physical device share; None where unknown."""
    driver: str | None
    """Of a root hub: the driver of its host controller."""
    ports: tuple[HubPort, ...]

    @property
    def is_root(self) -> bool:
        """The hub that is inside the host controller."""
        return self.id.ports == "0"

    @property
    def own_serial(self) -> str | None:
        """Its serial number; a root hub's is its controller's name and tells nothing apart."""
        return None if self.is_root else self.serial

    def port(self, number: int) -> HubPort | None:
        """The port of this number, if there is one."""
        return next((port for port in self.ports if port.number == number), None)


def usb_hubs(sysfs_root: Path = SYSFS_ROOT) -> list[UsbHub]:
    """All hubs, in the order of their places. One that is unplugged during the scan is left out, and a host without
    USB has none.

    Raises:
        OSError: there is no sysfs at `sysfs_root`.
    """
    devices = (sysfs_root / "devices").resolve(strict=True)
    ttys = _serial_ports(sysfs_root)
    links = sysfs_root / "bus" / "usb" / "devices"
    entries = sorted(links.iterdir()) if links.is_dir() else []
    found = (_read_hub(entry, devices, ttys) for entry in entries if ":" not in entry.name)
    return sorted((hub for hub in found if hub is not None), key=place)


def plugged_in(sysfs_root: Path = SYSFS_ROOT) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Every USB device by the kernel's name: its device number, and the serial ports of its own and of what is behind
    it. One that was away and came back has another number."""
    ttys = _serial_ports(sysfs_root)
    links = sysfs_root / "bus" / "usb" / "devices"
    found = {}
    for entry in sorted(links.iterdir()) if links.is_dir() else []:
        number, folder = _number(entry / "devnum"), _target(entry)
        if number is not None and folder is not None and ":" not in entry.name:
            found[entry.name] = number, _below(folder, ttys)
    return found


def place(hub: UsbHub) -> tuple[object, ...]:
    """Sorts hubs by controller and by the ports down to them; of one place the USB 2 hub is first."""
    return hub.id.controller, [int(step) for step in hub.id.ports.split(".")], hub.id.usb3


def machine_model(sysfs_root: Path = SYSFS_ROOT) -> str:
    """What the device tree calls this machine, `Raspberry Pi 4 Model B Rev 1.4`; empty on most others."""
    text = attribute(sysfs_root / "firmware" / "devicetree" / "base" / "model")
    return (text or "").rstrip("\0 ")


def container_id(bos: bytes) -> str | None:
    """The container id in a BOS descriptor, as 32 hexadecimal digits, or None where it has none or an empty one.
    Damaged descriptors of cheap devices are common; what can be read of one counts."""
    at = bos[0] if bos else 0
    while 0 < at <= len(bos) - 3:
        size, kind, capability = bos[at], bos[at + 1], bos[at + 2]
        if kind == _CAPABILITY and capability == _CONTAINER_ID and at + 20 <= len(bos):
            found = bos[at + 4 : at + 20]
            return found.hex() if any(found) else None
        if size < 3:
            return None
        at += size
    return None


def _read_hub(entry: Path, devices: Path, ttys: list[tuple[str, str]]) -> UsbHub | None:
    if attribute(entry / "bDeviceClass") != HUB_CLASS:
        return None
    try:
        folder = entry.resolve(strict=True)
    except OSError:
        return None  # unplugged a moment ago
    bus, device = _number(folder / "busnum"), _number(folder / "devnum")
    if not folder.is_relative_to(devices) or bus is None or device is None:
        return None
    chain = list(ancestors(folder, devices))
    root = next((path for path in chain if path.name == f"usb{bus}"), folder)
    controller = id_path(ancestors(root, devices)) or root.parent.name
    speed = _speed(folder / "speed")
    usb3 = speed is not None and speed >= SUPER_SPEED_MBIT_S
    _, dash, ports = folder.name.partition("-")
    return UsbHub(
        name=folder.name,
        folder=folder,
        id=HubId(controller, ports if dash else "0", usb3),
        bus=bus,
        device=device,
        vendor=(attribute(folder / "idVendor") or "").lower(),
        product=(attribute(folder / "idProduct") or "").lower(),
        serial=attribute(folder / "serial") or None,
        label=_label(folder),
        usb_version=(attribute(folder / "version") or "").strip(),
        speed_mbit_s=speed,
        container=_container(folder),
        driver=None if dash else link_name(folder.parent / "driver"),
        ports=tuple(sorted(_ports(folder, ttys), key=lambda port: port.number)),
    )


def _ports(folder: Path, ttys: list[tuple[str, str]]) -> Iterator[HubPort]:
    # The interface is `1-1.4:1.0`, the root hub's `1-0:1.0`; the configuration is in it, so it is looked for.
    for port in folder.glob("*:*/*-port[0-9]*"):
        found = _PORT_FOLDER.fullmatch(port.name)
        if found is None or not 1 <= int(found[1]) <= MAX_PORTS:
            continue
        yield HubPort(
            number=int(found[1]),
            folder=port,
            switchable=(port / "disable").exists(),
            peer=_target(port / "peer"),
            child=_child(folder, int(found[1]), ttys),
        )


def _child(hub: Path, number: int, ttys: list[tuple[str, str]]) -> UsbChild | None:
    """The device on a port, by its name: the port's `device` link comes only after the device was configured."""
    name = f"{hub.name.removeprefix('usb')}-{number}" if hub.name.startswith("usb") else f"{hub.name}.{number}"
    folder = hub / name
    vendor, product = attribute(folder / "idVendor"), attribute(folder / "idProduct")
    if vendor is None or product is None:
        return None
    return UsbChild(
        name=name,
        device=_number(folder / "devnum") or 0,
        vendor=vendor.lower(),
        product=product.lower(),
        serial=attribute(folder / "serial") or None,
        label=_label(folder),
        is_hub=attribute(folder / "bDeviceClass") == HUB_CLASS,
        fixed=attribute(folder / "removable") == "fixed",
        container=_container(folder),
        ttys=_below(folder, ttys),
    )


def _serial_ports(sysfs_root: Path) -> list[tuple[str, str]]:
    """Name and device folder of each tty with a device behind it."""
    found = []
    folder = sysfs_root / "class" / "tty"
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        device = _target(entry / "device")
        if device is not None:
            found.append((entry.name, str(device)))
    return found


def _below(folder: Path, ttys: list[tuple[str, str]]) -> tuple[str, ...]:
    """The serial ports behind `folder`. As texts: a host with 70 ports compares 5,000 pairs at each scan."""
    start = f"{folder}/"
    return tuple(tty for tty, device in ttys if device.startswith(start))


def _target(link: Path) -> Path | None:
    try:
        return link.resolve(strict=True)
    except OSError:
        return None


def _container(folder: Path) -> str | None:
    try:
        return container_id((folder / "bos_descriptors").read_bytes())  # Linux 6.9 and later
    except OSError:
        return None


def _label(folder: Path) -> str:
    return " ".join(filter(None, (attribute(folder / "manufacturer"), attribute(folder / "product"))))


def _number(path: Path) -> int | None:
    text = attribute(path)
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None


def _speed(path: Path) -> float | None:
    try:
        return float(attribute(path) or "")
    except ValueError:
        return None  # "unknown", while the device is being reset
