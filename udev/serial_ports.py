"""Serial ports of this host as sysfs shows them, and what tells one adapter from another.

Only sysfs is read, below a root that is a parameter: no libudev, no port is opened.
Layout: Documentation/ABI/testing/sysfs-bus-usb and sysfs-tty of the kernel, and drivers/usb/serial.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from udev.device_path import ancestors, attribute, id_path, link_name

SYSFS_ROOT = Path("/sys")
DEV_ROOT = Path("/dev")

FACTORY_SERIALS = frozenset({("10c4", "ea60", "0001"), ("10c4", "ea70", "0001")})
"""(vendor, product, serial) that a maker burns into every piece: CP2102 and CP2105 say `0001` until customised. Such
a serial number is shared even while only one of them is plugged in."""

_UART_TYPE_UNKNOWN = "0"  # PORT_UNKNOWN in serial_core.h: the driver made a node and found no chip behind it
_GLUE_SUBSYSTEMS = frozenset({"serial-base", "usb-serial", "tty"})  # layers of the driver core, no hardware


@dataclass(frozen=True, slots=True)
class UsbAdapter:
    """The USB side of a serial port. `vendor` and `product` are four hexadecimal digits, `interface` two."""

    vendor: str
    product: str
    serial: str | None
    interface: str
    port_path: str
    """Bus and ports down to the adapter, `1-1.4.2`: stays while the cables stay and the host is not changed."""


@dataclass(frozen=True, slots=True)
class SerialPort:
    """One tty with hardware behind it."""

    name: str
    """The kernel's name, `ttyUSB0`; for USB it depends on the order of plugging."""
    driver: str | None
    hardware: str
    """The kernel's name of the device that carries the port: `1-1.4:1.0`, `fe201000.serial`, `00:05`."""
    usb: UsbAdapter | None = None
    port_number: int | None = None
    """Which port of an adapter that has several on one interface, from 0."""
    id_path: str | None = None
    """What udev calls ID_PATH (systemd, udev-builtin-path_id.c), `pci-0000:00:14.0-usb-0:1.4:1.0`; USB only."""
    serial_is_shared: bool = False
    """Another adapter has the same vendor, product and serial number: only the path tells them apart."""

    @property
    def node(self) -> str:
        """The device node, `/dev/ttyUSB0`."""
        return f"/dev/{self.name}"

    @property
    def has_own_serial(self) -> bool:
        """Whether it has a serial number that no other adapter has."""
        return self.usb is not None and self.usb.serial is not None and not self.serial_is_shared


def serial_ports(sysfs_root: Path = SYSFS_ROOT) -> list[SerialPort]:
    """All serial ports with hardware behind them, sorted by name.

    Virtual terminals, pseudo terminals and the empty `ttyS` places of the 8250 driver are left out. A port that is
    unplugged during the scan is left out too.

    Raises:
        OSError: `class/tty` below `sysfs_root` cannot be read: no sysfs is mounted there.
    """
    devices = (sysfs_root / "devices").resolve()
    found = (_read_port(entry, devices) for entry in sorted((sysfs_root / "class" / "tty").iterdir()))
    return _mark_shared([port for port in found if port is not None])


def lasting_names(ports: Iterable[SerialPort], dev_root: Path = DEV_ROOT) -> dict[str, str]:
    """For each port, by the kernel's name, the path that settings had best name: a link that udev made, by the
    adapter's serial number where that is its own (it may then move to another USB port), else by where it is plugged
    in. Where udev made none (a container without it, a port of the board itself), the node.

    systemd's 60-serial.rules makes them; since systemd 256 by-path has a second link with the USB version in it.
    """
    by_id, by_path = (_links(dev_root / "serial" / folder) for folder in ("by-id", "by-path"))
    found = {}
    for port in ports:
        named = by_id.get(port.name, []) if port.has_own_serial else []
        placed = by_path.get(port.name, [])
        placed = [link for link in placed if port.id_path is not None and port.id_path in link.name] or placed
        best = next(iter([*named, *placed]), None)
        found[port.name] = str(dev_root / port.name if best is None else best)
    return found


def _links(folder: Path) -> dict[str, list[Path]]:
    """The links in `folder` by the name of the node that they lead to, the shortest first."""
    found: dict[str, list[Path]] = defaultdict(list)
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: (len(entry.name), entry.name))
    except OSError:
        return found  # no udev here, or no serial port
    for entry in entries:
        name = link_name(entry)
        if name is not None:
            found[name].append(entry)
    return found


def _mark_shared(ports: list[SerialPort]) -> list[SerialPort]:
    """Two ports of one adapter share its serial number by right; two adapters do not."""
    places: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for port in ports:
        if port.usb is not None and port.usb.serial is not None:
            places[port.usb.vendor, port.usb.product, port.usb.serial].add(port.usb.port_path)
    shared = FACTORY_SERIALS | {identity for identity, where in places.items() if len(where) > 1}
    return [
        replace(port, serial_is_shared=True)
        if port.usb is not None and (port.usb.vendor, port.usb.product, port.usb.serial) in shared
        else port
        for port in ports
    ]


def _read_port(entry: Path, devices: Path) -> SerialPort | None:
    try:
        device = (entry / "device").resolve(strict=True)
    except OSError:
        return None  # no hardware behind it, or unplugged a moment ago
    if not device.is_relative_to(devices):
        return None
    if entry.name.startswith("ttyS") and attribute(entry / "type") == _UART_TYPE_UNKNOWN:
        return None
    chain = list(ancestors(device, devices))
    hardware = next((path for path in chain if link_name(path / "subsystem") not in _GLUE_SUBSYSTEMS), device)
    usb = _usb_adapter(chain)
    number = attribute(device / "port_number")
    return SerialPort(
        name=entry.name,
        # usb-serial has its driver one layer above the interface; on serial-base that layer's driver is just "port".
        driver=link_name(hardware / "driver") or link_name(device / "driver"),
        hardware=hardware.name,
        usb=usb,
        port_number=int(number) if number is not None and number.isdecimal() else None,
        id_path=id_path(chain) if usb is not None else None,
    )


def _usb_adapter(chain: list[Path]) -> UsbAdapter | None:
    interface = ""
    for path in chain:
        if link_name(path / "subsystem") != "usb":
            continue
        interface = interface or (attribute(path / "bInterfaceNumber") or "")
        vendor, product = attribute(path / "idVendor"), attribute(path / "idProduct")
        if vendor is not None and product is not None:
            serial = attribute(path / "serial") or None
            return UsbAdapter(vendor.lower(), product.lower(), serial, interface or "00", path.name)
    return None
