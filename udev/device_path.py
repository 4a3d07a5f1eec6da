"""How a device of sysfs is named by what it hangs off: the way upward, and udev's ID_PATH."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def id_path(chain: Iterable[Path]) -> str | None:
    """The same text as udev's path_id builtin: of each run of devices on one bus the lowest gives a USB part, the
    lowest gives a PCI part, and so on upward. The bus number is not in it, since it changes between boots."""
    parts: list[str] = []
    last = None
    for path in chain:
        subsystem = link_name(path / "subsystem")
        if subsystem == last:
            continue
        last = subsystem
        if subsystem == "usb":
            _, dash, ports = path.name.partition("-")
            if dash:
                parts.append(f"usb-0:{ports}")
        elif subsystem in {"pci", "platform", "acpi"}:
            parts.append(f"{subsystem}-{path.name}")
    return "-".join(reversed(parts)) or None


def ancestors(device: Path, devices: Path) -> Iterator[Path]:
    """`device` and what it hangs off, upward, without `devices`, the root of the tree. Both are resolved paths."""
    while device != devices:
        yield device
        device = device.parent


def link_name(link: Path) -> str | None:
    """The last part of what a symbolic link names, or None where there is no link."""
    try:
        return os.path.basename(os.readlink(link))  # noqa: PTH115, PTH119  # the target's text; it need not exist
    except OSError:
        return None


def attribute(path: Path) -> str | None:
    """A sysfs attribute without trailing blanks, as udev compares it; None when the device has none or has gone."""
    try:
        return path.read_bytes().decode("utf-8", "replace").rstrip()
    except OSError:
        return None
