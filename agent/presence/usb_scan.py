"""USB devices that sysfs lists: at the start, and when uevents were lost. Reading can stall while a device is being
set up (its lock is held), so callers run this in a thread."""

from pathlib import Path

from agent.presence.observations import USB_PATH, UsbSeen

DEVICES = Path("bus/usb/devices")
"""Below sysfs (Documentation/ABI/stable/sysfs-bus-usb)."""
MAX_ATTRIBUTE_BYTES = 512


def scan(sysfs: Path) -> list[UsbSeen]:
    """All devices, without root hubs and interfaces. A kernel without USB has none."""
    try:
        names = sorted(entry.name for entry in (sysfs / DEVICES).iterdir())
    except FileNotFoundError:
        return []
    found = (device(sysfs, name) for name in names if USB_PATH.fullmatch(name))
    return [seen for seen in found if seen is not None]


def device(sysfs: Path, path: str) -> UsbSeen | None:
    """The device at `path`, None where there is none (any more)."""
    folder = sysfs / DEVICES / path
    vendor, product_id = _attribute(folder / "idVendor"), _attribute(folder / "idProduct")
    if not vendor or not product_id:
        return None
    return UsbSeen(
        path,
        present=True,
        ids=f"{vendor}:{product_id}".lower(),
        product=_attribute(folder / "product"),
        serial=_attribute(folder / "serial"),
    )


def _attribute(path: Path) -> str:
    """Empty where the device has none, or has gone meanwhile."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_ATTRIBUTE_BYTES)
    except OSError:
        return ""
    return raw.decode("utf-8", "backslashreplace").strip()
