"""The kernel's uevents (NETLINK_KOBJECT_UEVENT): bytes in, events out. No I/O.

A message is `ACTION@DEVPATH`, then `KEY=value` for each property, each ended by a NUL (linux/lib/kobject_uevent.c,
Documentation/core-api/kobject.rst). What udev says to its own clients begins with `libudev` and is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.presence.observations import UsbSeen

MAX_DATAGRAM_BYTES = 16384
"""The kernel's buffer for properties is 2048 bytes (UEVENT_BUFFER_SIZE); the path before them may be long."""


class UeventError(ValueError):
    """The bytes are no uevent of the kernel's. Drop them."""


@dataclass(frozen=True, slots=True)
class Uevent:
    """`device` is the path below `/sys`, with its leading slash. `properties` has everything, also ACTION and
    DEVPATH."""

    action: str
    device: str
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The device's own name: of a USB device its path on the bus, as `1-1.4`."""
        return self.device.rpartition("/")[2]


def parse(datagram: bytes) -> Uevent:
    """The event in `datagram`.

    Raises:
        UeventError: it is none.
    """
    head, nul, rest = datagram.partition(b"\0")
    action, at, device = _text(head).partition("@")
    if not nul or not at or not action or not device.startswith("/"):
        raise UeventError(f"{datagram[:40]!r}: a uevent begins with ACTION@DEVPATH and a NUL")
    properties: dict[str, str] = {}
    for part in rest.split(b"\0"):
        key, equals, value = part.partition(b"=")
        if equals:
            properties[_text(key)] = _text(value)
    if properties.get("ACTION", action) != action or properties.get("DEVPATH", device) != device:
        raise UeventError(f"{datagram[:40]!r}: its first line and its properties disagree")
    return Uevent(action, device, properties)


def _text(raw: bytes) -> str:
    """Devices name themselves; what is no UTF-8 is shown, and can go out as JSON."""
    return raw.decode("utf-8", "backslashreplace")


def usb_device(event: Uevent) -> UsbSeen | None:
    """What `event` says of a USB device: that it was plugged in or went. None where it says neither.

    PRODUCT is `VENDOR/PRODUCT/VERSION`, hexadecimal without leading zeros (linux/drivers/usb/core/driver.c). A serial
    number is not in it.
    """
    properties = event.properties
    if properties.get("SUBSYSTEM") != "usb" or properties.get("DEVTYPE") != "usb_device":
        return None
    if event.action not in {"add", "remove"}:
        return None
    vendor, _, rest = properties.get("PRODUCT", "").partition("/")
    try:
        ids = f"{int(vendor, 16):04x}:{int(rest.partition('/')[0], 16):04x}"
    except ValueError:
        ids = ""
    return UsbSeen(event.name, present=event.action == "add", ids=ids)
