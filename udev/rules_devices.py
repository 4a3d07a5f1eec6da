"""Devices that a farm's agent opens without being root: USB hubs, HID relays, SD muxes, boards in their boot loader.

The rules stand in files beside this module, ready for /usr/lib/udev/rules.d; the tables here say the same to programs,
and a test compares the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from udev.device_path import attribute
from udev.rules import DEFAULT_GROUP, checked_group
from udev.serial_ports import SYSFS_ROOT

HUB_RULES_FILE_NAME = "70-boardhand-hubs.rules"
DEVICE_RULES_FILE_NAME = "70-boardhand-devices.rules"

_LOADERS = {("fe", "01", "*"): "DFU", ("ff", "42", "03"): "fastboot"}
"""(bInterfaceClass, bInterfaceSubClass, bInterfaceProtocol): USB DFU 1.1, table 4.1; fastboot's protocol document."""
_CLASSES = ("hidraw", "scsi_generic", "block")


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """What the rules tell apart, by USB ids and, where many devices share them, by strings (udev's patterns)."""

    what: str
    vendor: str
    product: str
    manufacturer_is: str = ""
    product_is: str = ""
    below: tuple[str, ...] = ()
    """Subsystems of the nodes behind it that are opened, too."""
    opens_usb: bool = True

    def terms(self, key: str) -> list[str]:
        """The comparisons, with `key` ATTR or ATTRS."""
        values = {"idVendor": self.vendor, "idProduct": self.product}
        values |= {"manufacturer": self.manufacturer_is, "product": self.product_is}
        return [f'{key}{{{name}}}=="{value}"' for name, value in values.items() if value]

    def fits(self, folder: Path) -> bool:
        """Whether the USB device at `folder` of sysfs is one."""
        if (attribute(folder / "idVendor"), attribute(folder / "idProduct")) != (self.vendor, self.product):
            return False
        wanted = {"manufacturer": self.manufacturer_is, "product": self.product_is}
        return all(_meets(attribute(folder / name) or "", pattern) for name, pattern in wanted.items() if pattern)


_CARD = ("scsi_generic", "block")
_MUX_MAKERS = "Linux Automation GmbH|Pengutronix"
DEVICE_KINDS = (
    # These ids V-USB lends to every hobbyist: the product string decides, as it does for our driver.
    DeviceKind("HID relay", "16c0", "05df", product_is="USBRelay[1-8]", below=("hidraw",)),
    DeviceKind("HID relay", "5131", "2007", below=("hidraw",)),
    DeviceKind("YKUSH", "04d8", "f2f7", below=("hidraw",)),
    DeviceKind("YKUSH3", "04d8", "f11b", below=("hidraw",)),
    DeviceKind("YKUSH XS", "04d8", "f0cd", below=("hidraw",)),
    # A plain card reader's ids; only the muxes have these makers.
    DeviceKind("USB-SD-Mux", "0424", "4041", manufacturer_is=_MUX_MAKERS, product_is="usb-sd-mux*", below=_CARD),
    DeviceKind("SDWire", "04e8", "6001", manufacturer_is="SRPOL"),
    # The hub chip of SDWire and SDWireC with its card reader behind it.
    DeviceKind("SDWire's card", "0424", "2640", below=_CARD, opens_usb=False),
    DeviceKind("SDWire3", "0bda", "0316", manufacturer_is="Badgerd Technologies", below=_CARD),
)


@dataclass(frozen=True, slots=True)
class FarmDevice:
    """A device of this host that the rules open."""

    what: str
    name: str
    """The kernel's name of the USB device, `1-1.4`."""
    nodes: dict[str, Path]
    """Name of the node below /dev -> the folder in sysfs by which udev knows it."""


def hub_rules(*, group: str = DEFAULT_GROUP) -> str:
    """The text of a rules file that lets `group` switch the ports of USB hubs: by the kernel's `disable` attribute,
    which udev can only open with chgrp and chmod, and by the hub's node for class requests.

    Raises:
        RuleError: `group` is no group name.
    """
    return _shipped(HUB_RULES_FILE_NAME, group)


def device_rules(*, group: str = DEFAULT_GROUP) -> str:
    """The text of a rules file that lets `group` use the devices of `DEVICE_KINDS`, and flash boards by DFU and
    fastboot.

    Raises:
        RuleError: `group` is no group name.
    """
    return _shipped(DEVICE_RULES_FILE_NAME, group)


def farm_devices(sysfs_root: Path = SYSFS_ROOT) -> list[FarmDevice]:
    """The devices of this host that `device_rules` is for, by the kernel's names."""
    folder = sysfs_root / "bus" / "usb" / "devices"
    found = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if ":" in entry.name:
            continue
        kind = next((kind for kind in DEVICE_KINDS if kind.fits(entry)), None)
        loader = None if kind is not None else _loader(entry)
        if kind is None and loader is None:
            continue
        nodes = _usb_node(entry) if kind is None or kind.opens_usb else {}
        nodes |= dict(_nodes_below(sysfs_root, entry.resolve(), kind.below)) if kind is not None else {}
        found.append(FarmDevice(kind.what if kind is not None else f"a board's {loader}", entry.name, nodes))
    return found


def _shipped(name: str, group: str) -> str:
    text = (Path(__file__).parent / name).read_text(encoding="ascii")
    checked_group(group)
    for word in ('GROUP="{}"', "chgrp {} "):
        text = text.replace(word.format(DEFAULT_GROUP), word.format(group))
    return text


def _meets(value: str, pattern: str) -> bool:
    return any(fnmatchcase(value, choice) for choice in pattern.split("|"))


def _loader(folder: Path) -> str | None:
    for interface in sorted(folder.glob("*:*")):
        names = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
        codes = [attribute(interface / name) or "" for name in names]
        for wanted, word in _LOADERS.items():
            if all(fnmatchcase(code, pattern) for code, pattern in zip(codes, wanted, strict=True)):
                return word
    return None


def _usb_node(folder: Path) -> dict[str, Path]:
    bus, device = attribute(folder / "busnum"), attribute(folder / "devnum")
    if not (bus or "").isdecimal() or not (device or "").isdecimal():
        return {}  # unplugged a moment ago
    return {f"bus/usb/{int(bus or 0):03d}/{int(device or 0):03d}": folder.resolve()}


def _nodes_below(sysfs_root: Path, device: Path, subsystems: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for subsystem in _CLASSES:
        links = sysfs_root / "class" / subsystem
        if subsystem not in subsystems or not links.is_dir():
            continue
        for link in sorted(links.iterdir()):
            folder = link.resolve()
            if folder.is_relative_to(device):
                yield link.name, folder
