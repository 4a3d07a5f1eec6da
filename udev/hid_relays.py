"""Relay boards that are USB HID devices, and Yepkit's hubs, as sysfs shows them. No board is asked.

Ids alone prove nothing: 16c0:05df is V-USB's number for hobby devices, so there the product string decides, too.
Sources: usbrelay (dcttech), labgrid's usb_hid_relay agent (LCUS), Yepkit's ykushcmd.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from udev.device_path import attribute

SYSFS_ROOT = Path("/sys")
_DEVICE = re.compile(r"[1-9][0-9]*-[1-9][0-9]*(\.[1-9][0-9]*)*", re.ASCII)
_MAX_RELAYS = 8


@dataclass(frozen=True, slots=True)
class HidKind:
    """One kind of board. `outlets` is None where the product string, or nobody, tells."""

    maker: str
    driver: str
    """The word behind `driver =` in the agent's settings."""
    protocol: str | None = None
    product: re.Pattern[str] | None = None
    """What the product string must be; its group is the number of relays."""
    outlets: int | None = None
    own_serial: bool = False
    """Whether the serial number that USB tells is the one that settings name."""


KINDS: Mapping[tuple[str, str], HidKind] = MappingProxyType(
    {
        ("16c0", "05df"): HidKind("dcttech", "hid_relay", "dcttech", re.compile(r"USBRelay([1-8])", re.ASCII)),
        ("5131", "2007"): HidKind("LCUS", "hid_relay", "lcus"),
        ("04d8", "f2f7"): HidKind("Yepkit YKUSH", "ykush", outlets=3, own_serial=True),
        ("04d8", "f11b"): HidKind("Yepkit YKUSH3", "ykush", outlets=3, own_serial=True),
        ("04d8", "f0cd"): HidKind("Yepkit YKUSH XS", "ykush", outlets=1, own_serial=True),
    }
)
"""(vendor, product) -> kind."""


@dataclass(frozen=True, slots=True)
class HidRelay:
    """One board that is plugged in."""

    path: str
    """Bus and ports, `1-1.4`, as settings name it. The bus number may change when the host's USB controllers do."""
    kind: HidKind
    vendor: str
    product: str
    label: str
    """Its product string, written by a stranger; may be empty."""
    serial: str | None
    outlets: int | None
    node: str
    """Its node for libusb, `/dev/bus/usb/001/005`."""
    only_one: bool = True
    """No other board here is of its driver and protocol, so settings need not say which is meant."""
    serial_is_shared: bool = False
    """Another board of its kind says the same serial number."""


def hid_relays(sysfs_root: Path = SYSFS_ROOT) -> list[HidRelay]:
    """All known boards, by path. One that is unplugged during the scan is left out; no USB is no board.

    Raises:
        OSError: there is no sysfs at `sysfs_root`.
    """
    (sysfs_root / "devices").resolve(strict=True)
    folder = sysfs_root / "bus" / "usb" / "devices"
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [board for board in map(_read, entries) if board is not None]
    alike = Counter((board.kind.driver, board.kind.protocol) for board in found)
    serials = Counter((board.kind.driver, board.serial) for board in found)
    return [
        replace(
            board,
            only_one=alike[board.kind.driver, board.kind.protocol] == 1,
            serial_is_shared=board.serial is not None and serials[board.kind.driver, board.serial] > 1,
        )
        for board in found
    ]


def _read(entry: Path) -> HidRelay | None:
    if _DEVICE.fullmatch(entry.name) is None:
        return None
    vendor, product = (attribute(entry / "idVendor") or "").lower(), (attribute(entry / "idProduct") or "").lower()
    kind = KINDS.get((vendor, product))
    label = attribute(entry / "product") or ""
    said = kind.product.fullmatch(label) if kind is not None and kind.product is not None else None
    if kind is None or (kind.product is not None and said is None):
        return None
    bus, device = attribute(entry / "busnum"), attribute(entry / "devnum")
    if bus is None or device is None or not (bus.isdecimal() and device.isdecimal()):
        return None  # unplugged a moment ago
    return HidRelay(
        path=entry.name,
        kind=kind,
        vendor=vendor,
        product=product,
        label=label,
        serial=attribute(entry / "serial") or None,
        outlets=kind.outlets if said is None else min(int(said[1]), _MAX_RELAYS),
        node=f"/dev/bus/usb/{int(bus):03d}/{int(device):03d}",
    )
