"""Whether the devices that the settings name are there, may be opened by the daemon's user, and are not in use."""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.console.holders import Holder, holders
from cli.doctor.finding import Finding, unseen, well, wrong
from cli.doctor.identity import READ, WRITE, Identity, mend_access, reached
from cli.doctor.wants import DeviceWant
from udev.usb_hub_lookup import HubLookupError, find_hub
from udev.usb_hubs import UsbHub, machine_model, usb_hubs

RW = READ | WRITE
_INSTALL = "boardhand udev install"
Stat = Callable[[str], os.stat_result]
Held = Callable[[str], Sequence[Holder]]


def check(
    wants: Sequence[DeviceWant],
    who: Identity,
    *,
    ours: frozenset[int] = frozenset(),
    sysfs: Path = Path("/sys"),
    dev: Path = Path("/dev"),
    held: Held = holders,
) -> list[Finding]:
    """Findings for each device. `ours`: the agent's processes, which may have them open."""
    found: list[Finding] = []
    hubs: list[UsbHub] | None = None
    for want in wants:
        if want.path:
            found.append(reached(by_path(want, who, ours=ours, held=held), Path(want.path), who))
        elif want.hub:
            hubs = usb_hubs(sysfs) if hubs is None else hubs
            found.append(hub(want, who, hubs, machine_model(sysfs), dev))
        else:
            found.append(usb(want, who, sysfs, dev))
    return found


def by_path(want: DeviceWant, who: Identity, *, ours: frozenset[int], held: Held, look: Stat = os.stat) -> Finding:
    """A serial port, or a UNIX socket."""
    subject = f"{want.owner}: {want.path}"
    try:
        status = look(want.path)
    except PermissionError:
        return unseen("devices", subject, "a folder above it is closed to you", "run it as root")
    except OSError:
        mend = "plug it in, or change the settings: see 'boardhand serial'; names below /dev/boards: 'boardhand udev'"
        return wrong("devices", subject, "is not there", mend)
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
        return wrong("devices", subject, "is neither a device nor a socket", "change the settings: 'boardhand serial'")
    if not who.may(status, RW):
        mend = mend_access(Path(want.path), status, who, RW)
        return wrong("devices", subject, f"{who.name} may not open it ({stat.filemode(status.st_mode)})", mend)
    others = [one for one in held(want.path) if one.pid not in ours] if stat.S_ISCHR(status.st_mode) else []
    if others:
        mend = (
            "systemctl disable --now ModemManager" if others[0].program == "ModemManager" else f"kill {others[0].pid}"
        )
        return wrong("devices", subject, f"{others[0]} has it open", mend)
    return well("devices", subject, f"{who.name} may open it")


def hub(want: DeviceWant, who: Identity, hubs: Sequence[UsbHub], machine: str, dev: Path) -> Finding:
    """A USB hub: the `disable` files of its ports, or its node where the kernel has none or the settings want it."""
    subject = f"{want.owner}: USB hub {want.hub}"
    try:
        there = find_hub(hubs, want.hub, machine=machine)
    except HubLookupError as error:
        return wrong("devices", subject, error.problem, error.do)
    files = [port.disable for port in there.ports if port.switchable and want.hub_method != "usb"]
    files = files or [dev / f"bus/usb/{there.bus:03}/{there.device:03}"]
    closed = [path for path in files if not _opens(path, who)]
    if closed:
        return wrong("devices", subject, f"{who.name} may not write {closed[0]}", _mend(closed[0], who))
    return well("devices", subject, f"{who.name} may switch its ports")


def usb(want: DeviceWant, who: Identity, sysfs: Path, dev: Path) -> Finding:
    """A HID relay or a YKUSH, driven through its USB node."""
    place = f" at {want.place}" if want.place else f" {want.serial}" if want.serial else ""
    subject = f"{want.owner}: USB device{place}"
    fitting = [
        folder
        for folder in sorted((sysfs / "bus/usb/devices").glob("*"))
        if (_word(folder / "idVendor"), _word(folder / "idProduct")) in want.usb_ids
        and want.place in {None, folder.name}
    ]
    if not fitting:
        ids = ", ".join(f"{vendor}:{product}" for vendor, product in want.usb_ids)
        return wrong("devices", subject, f"is not there ({ids})", "plug it in, or change the settings: see lsusb")
    # Serial numbers of some are told by a report alone: each that fits has to be open to the agent.
    for folder in fitting:
        node = dev / f"bus/usb/{_word(folder / 'busnum').zfill(3)}/{_word(folder / 'devnum').zfill(3)}"
        if not _opens(node, who):
            return wrong("devices", subject, f"{who.name} may not open {node}", _mend(node, who))
    return well("devices", subject, f"{who.name} may open it")


def _opens(path: Path, who: Identity) -> bool:
    try:
        return who.may(path.stat(), _wanted(path))
    except OSError:
        return False


def _wanted(path: Path) -> int:
    return WRITE if path.name == "disable" else RW


def _mend(path: Path, who: Identity) -> str:
    """Rules give it to a group; where they have, the user lacks the group."""
    try:
        status = path.stat()
    except OSError:
        return _INSTALL
    in_group = status.st_mode >> 3 & _wanted(path) == _wanted(path) and status.st_gid != 0
    return mend_access(path, status, who, _wanted(path)) if in_group else _INSTALL


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
