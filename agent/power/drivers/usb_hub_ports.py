"""Switching the ports of one USB hub, blocking; `usb_hub.py` brings it to a thread, `boardhand hubs prove` calls it.

With the kernel's `disable` attribute the kernel itself lets go of the device and asks the hub for the state. With class
requests through libusb it learns of nothing: the device stays in sysfs, its tty in /dev, until the power is back. So
once the hub says that the power is off the kernel is told that the device is gone (attribute `remove`), and not before,
since a hub that lies would leave a board that runs and cannot be reached. Told so, the kernel looks at the port, finds
it without power, and switches it on again (drivers/usb/core/hub.c, hub_port_connect), unless the port belongs to a
program. Hence it is claimed for as long as it is off. Where it cannot be, the device is stopped (`authorized`): it
stays listed, without drivers and ttys, and is taken for a new one when the power is back.
"""

import errno
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from agent.power.drivers.usb_requests import AsksHubs
from agent.power.errors import ConfigurationError, PowerError, RefusedError, UnreachableError
from agent.power.kinds.usb_hub import HubMethod, UsbHubSettings
from udev.usb_hub_lookup import HubLookupError, find_hub
from udev.usb_hub_pairs import Pair, other_half, same_socket, with_containers
from udev.usb_hub_truth import (
    PortTruth,
    Switching,
    Truth,
    decode_hub_descriptor,
    gang_ports,
    is_pi5_hub,
    port_truth,
    weakest,
)
from udev.usb_hubs import HubPort, UsbChild, UsbHub, container_id, machine_model, usb_hubs
from wire.phases import Power

log = logging.getLogger(__name__)

NO_PROOFS: Mapping[str, Truth] = MappingProxyType({})
ALL = "all"
"""The outlet that is every port of the hub."""
_GONE = {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN}
_MAY_NOT = ("{what} may not be used", "let the agent's user write it: 'boardhand udev hubs' prints the rules")
_LASTING = {
    errno.EACCES: _MAY_NOT,
    errno.EPERM: _MAY_NOT,
    errno.EROFS: ("{what} is on a read-only mount", "give the agent's container a writable /sys, or run it outside"),
    errno.ENOSYS: (
        "libusb cannot be loaded, which this port needs",
        "install the package libusb-1.0-0, or run Linux 6.0 or later",
    ),
}
"""What asking again cannot mend: the problem and what to do."""


Plugged = tuple[str, int, int]


class PortFiles(Protocol):
    """Reads and writes attributes of ports. Injected, so that a folder can play the kernel."""

    def read(self, path: Path) -> str:
        """The attribute's text."""

    def write(self, path: Path, text: str) -> None:
        """Write it in one call, as the kernel wants it."""


class SysfsFiles:
    """The kernel's."""

    def read(self, path: Path) -> str:
        return path.read_text("ascii", "replace")

    def write(self, path: Path, text: str) -> None:
        # Never created: a file of that name where the port has gone would be a lie of our own.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode("ascii"))
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Half:
    """One port on one bus."""

    hub: UsbHub
    port: HubPort


@dataclass(frozen=True, slots=True)
class HubView:
    """What is plugged in now: the hub that the settings name, and its other half."""

    hubs: tuple[UsbHub, ...]
    hub: UsbHub
    pair: Pair | None
    machine: str


class HubSwitch:
    """The hub of one controller of the settings. It is looked up at each call, since hubs are replugged and renumbered;
    a scan takes some milliseconds."""

    def __init__(self, name: str, settings: UsbHubSettings, sysfs: Path, files: PortFiles, requests: AsksHubs) -> None:
        self._name = name
        self._settings = settings
        self._sysfs = sysfs
        self._files = files
        self._requests = requests
        self._switching: dict[Plugged, Switching] = {}
        self._containers: dict[Plugged, str | None] = {}
        """What a hub once said of itself stays until it is replugged."""

    def look(self) -> HubView:
        """Find the hub.

        Raises:
            PowerError: it is not plugged in (`UnreachableError`), or the settings do not name one hub.
        """
        try:
            hubs = usb_hubs(self._sysfs)
        except OSError as problem:
            raise ConfigurationError(
                f"no sysfs at {self._sysfs}: {problem.strerror}", controller=self._name, do="mount it"
            ) from problem
        machine = machine_model(self._sysfs)
        try:
            hub = find_hub(hubs, self._settings.hub, machine=machine)
        except HubLookupError as problem:
            kind = UnreachableError if problem.absent else ConfigurationError
            raise kind(problem.problem, controller=self._name, do=problem.do) from problem
        pair = self._other_half(hub, hubs, machine) if self._settings.pair else None
        return HubView(tuple(hubs), hub, pair, machine)

    def truth(self, view: HubView, port: HubPort, proofs: Mapping[str, Truth] = NO_PROOFS) -> PortTruth:
        """What is known of one port, with the class descriptors of both halves if they can be read. `proofs` as for
        `port_truth`: the driver has none, since it asks the hub each time."""
        halves = [view.hub] if view.pair is None else [view.hub, view.pair.other]
        said = [word for word in map(self._ask_switching, halves) if word is not None]
        return port_truth(view.hub, port, switching=weakest(said), machine=view.machine, proofs=proofs)

    def set(self, outlet: str, *, on: bool, trial: bool = False) -> None:
        """Switch an outlet: the USB 2 half first when off and last when on, so that a USB 3 device does not come up
        on the half that is left. A `trial` is carried out whatever is known of the hub.

        Raises:
            PowerError: as for `Driver.set`; the reason, if it is known that the hub would not do it.
        """
        view = self.look()
        halves = self._outlet(view, outlet)
        if not trial:
            self._refuse(view, outlet)
        for half in sorted(halves, key=lambda half: half.hub.id.usb3, reverse=on):
            self._switch(half, outlet, on=on)

    def get(self, outlet: str) -> Power:
        """What the hub says now; `UNKNOWN` while the halves or the ports of the outlet disagree."""
        return self.get_from(self.look(), outlet)

    def get_from(self, view: HubView, outlet: str) -> Power:
        """As `get`, of a hub just looked up."""
        found = {self._is_powered(half, outlet) for half in self._outlet(view, outlet)}
        return Power.UNKNOWN if len(found) != 1 else Power.ON if found.pop() else Power.OFF

    def children(self, view: HubView, outlet: str) -> list[UsbChild]:
        """What the kernel believes to be plugged in there; of what was switched past the kernel it may be stale."""
        return [half.port.child for half in self._outlet(view, outlet) if half.port.child is not None]

    def method(self, port: HubPort) -> HubMethod:
        """How `port` is switched."""
        if self._settings.method is HubMethod.AUTO:
            return HubMethod.SYSFS if port.switchable else HubMethod.USB
        return self._settings.method

    # --- which ports an outlet is --------------------------------------------------------------------------------

    def _outlet(self, view: HubView, outlet: str) -> list[Half]:
        hub = view.hub
        if outlet == ALL:
            return self._all(view)
        port = hub.port(int(outlet)) if outlet.isascii() and outlet.isdecimal() and len(outlet) <= 3 else None
        if port is None:
            numbers = ", ".join(str(port.number) for port in hub.ports) or "none"
            do = f"write one of them, or {self._name}:{ALL}"
            raise self._configuration(outlet, f"hub {hub.id} has ports {numbers}", do)
        return with_peer(hub, port, view.pair)

    def _all(self, view: HubView) -> list[Half]:
        ports = gang_ports(view.hub, view.machine)
        if self._settings.allow_chained:
            ports = view.hub.ports
        halves = [half for port in ports for half in with_peer(view.hub, port, view.pair)]
        if is_pi5_hub(view.hub, view.machine):
            # One switch behind all root hubs of both controllers.
            halves = [Half(hub, port) for hub in view.hubs if is_pi5_hub(hub, view.machine) for port in hub.ports]
        if not halves:
            raise self._configuration(ALL, f"hub {view.hub.id} has no port that may be switched", "use another hub")
        return halves

    def _refuse(self, view: HubView, outlet: str) -> None:
        ports = gang_ports(view.hub, view.machine) if outlet == ALL else [view.hub.port(int(outlet))]
        for port in ports:
            if port is None:
                continue
            truth = self.truth(view, port)
            where = f"port {port.number} of hub {view.hub.id}"
            problem = f"{where} is {truth.word.meaning} ({truth.why})"
            if truth.word.hopeless:
                raise self._configuration(outlet, problem, "use another hub; see 'boardhand hubs'")
            if truth.word.whole_hub and outlet != ALL:
                raise self._configuration(outlet, problem, f"write {self._name}:{ALL} to switch the whole hub")
            if truth.word is Truth.CHAINED and not self._settings.allow_chained:
                do = "plug the board elsewhere, or set allow_chained = true"
                raise self._configuration(outlet, problem, do)
            if truth.word is Truth.ROOT_HUB and not self._settings.allow_root:
                raise self._configuration(outlet, problem, "use a hub of its own, or set allow_root = true")

    def _other_half(self, hub: UsbHub, hubs: list[UsbHub], machine: str) -> Pair | None:
        pair = other_half(hub, hubs, machine)
        candidates = [other for other in hubs if other.id.usb3 != hub.id.usb3 and not other.is_root]
        if pair is not None or hub.is_root or hub.container is not None or not candidates:
            return pair
        asked = ask_containers(hubs, self._requests, self._containers)
        return other_half(next(one for one in asked if one.folder == hub.folder), asked, machine)

    def _ask_switching(self, hub: UsbHub) -> Switching | None:
        key = plugged(hub)
        if key not in self._switching:
            try:
                self._switching[key] = ask_switching(hub, self._requests)
            except OSError as problem:
                log.debug("%s: hub %s does not tell how it switches: %s", self._name, hub.id, problem)
        return self._switching.get(key)

    # --- one port ------------------------------------------------------------------------------------------------

    def _switch(self, half: Half, outlet: str, *, on: bool) -> None:
        try:
            if self.method(half.port) is HubMethod.SYSFS:
                self._files.write(half.port.disable, "0" if on else "1")
                return
            self._switch_past_kernel(half, on=on)
        except OSError as problem:
            raise self._translated(problem, half, outlet) from problem

    def _switch_past_kernel(self, half: Half, *, on: bool) -> None:
        hub, number = half.hub, half.port.number
        if on:
            self._requests.release(hub, number)  # first: the kernel uses no device on a port that is claimed
            self._requests.switch(hub, number, on=True)
            return
        claimed, off = self._requests.claim(hub, number), False
        try:
            self._requests.switch(hub, number, on=False)
            off = not self._requests.is_powered(hub, number)
        finally:
            if not off:  # it failed, it lies, or it is slow: the kernel keeps what it has
                self._requests.release(hub, number)
        if half.port.child is not None and off:
            self._tell_kernel(half, half.port.child, claimed=claimed)

    def _tell_kernel(self, half: Half, child: UsbChild, *, claimed: bool) -> None:
        attribute, text = ("remove", "1") if claimed else ("authorized", "0")
        try:
            self._files.write(half.hub.folder / child.name / attribute, text)
        except OSError as problem:
            if problem.errno not in _GONE:
                log.info("%s: the kernel keeps %s, which has no power: %s", self._name, child.name, problem)

    def _is_powered(self, half: Half, outlet: str) -> bool:
        try:
            if self.method(half.port) is HubMethod.USB:
                return self._requests.is_powered(half.hub, half.port.number)
            text = self._files.read(half.port.disable).strip()
        except OSError as problem:
            raise self._translated(problem, half, outlet) from problem
        if text not in {"0", "1"}:
            path = half.port.disable
            raise RefusedError(f"{path} says {text!r}", controller=self._name, outlet=outlet, do="update the kernel")
        return text == "0"

    def _translated(self, problem: OSError, half: Half, outlet: str) -> PowerError:
        by_sysfs = self.method(half.port) is HubMethod.SYSFS
        what = str(half.port.disable) if by_sysfs else f"/dev/bus/usb/{half.hub.bus:03}/{half.hub.device:03}"
        number = problem.errno or errno.EIO
        if by_sysfs and number == errno.ENOENT and half.port.folder.exists():
            do = 'set method = "usb", or run Linux 6.0 or later'
            return self._configuration(outlet, f"this kernel has no {what}", do)
        if number in _GONE:
            text = f"hub {half.hub.id} ({half.hub.name}) went away: {problem.strerror}"
            return UnreachableError(text, controller=self._name, outlet=outlet, do="plug it in again")
        if number == errno.EINVAL:
            text, do = f"the kernel refused to switch {what}", "update the kernel, or set another method"
            return RefusedError(text, controller=self._name, outlet=outlet, do=do)
        if number in _LASTING:
            text, do = _LASTING[number]
            return self._configuration(outlet, text.format(what=what), do)
        text = f"{what} cannot be used: {problem.strerror or problem}"
        return UnreachableError(text, controller=self._name, outlet=outlet, do="look at the hub, then replug it")

    def _configuration(self, outlet: str, problem: str, do: str) -> ConfigurationError:
        return ConfigurationError(problem, controller=self._name, outlet=outlet, do=do)


def ask_switching(hub: UsbHub, requests: AsksHubs) -> Switching:
    """What the hub's class descriptor says.

    Raises:
        OSError: it could not be read, or is damaged.
    """
    try:
        return decode_hub_descriptor(requests.hub_descriptor(hub)).switching
    except ValueError as problem:
        raise OSError(errno.EPROTO, str(problem)) from problem


def ask_containers(hubs: list[UsbHub], requests: AsksHubs, known: dict[Plugged, str | None]) -> list[UsbHub]:
    """`hubs` with the container ids that they say themselves, for kernels before 6.9 that do not show them. What was
    said goes to `known`, and nobody is asked twice."""
    for hub in hubs:
        # What is older than USB 2.01 has no such descriptor (USB 3.2 specification 9.6.2).
        if hub.container is not None or hub.usb_version < "2.01" or plugged(hub) in known:
            continue
        try:
            known[plugged(hub)] = container_id(requests.bos(hub))
        except OSError as problem:
            log.debug("%s does not tell its container id: %s", hub.name, problem)
    said = {hub.folder: known.get(plugged(hub)) for hub in hubs}
    return with_containers(hubs, {folder: container for folder, container in said.items() if container is not None})


def plugged(hub: UsbHub) -> Plugged:
    """One plugging-in of a hub: it has a new device number the next time."""
    return str(hub.id), hub.bus, hub.device


def with_peer(hub: UsbHub, port: HubPort, pair: Pair | None) -> list[Half]:
    """The socket of `port`: one half, or both."""
    peer = None if pair is None else same_socket(port, pair)
    halves = [Half(hub, port)]
    if pair is not None and peer is not None:
        halves.append(Half(pair.other, peer))
    return halves
