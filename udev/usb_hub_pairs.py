"""The two halves of one USB 3 hub. The host sees a USB 2 hub and a USB 3 hub on two buses; a socket loses its power
only when both have switched it off (uhubctl README, "USB 3.0 duality note"), so who switches one has to find the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from udev.usb_hubs import HubPort, UsbHub

MIN_COMMON_PORTS = 3  # halves with fewer ports in sum may differ: a dock with 2 USB 2 and 1 USB 3 socket

_PI4_HUB = ("2109", "3431")  # VIA VL805's USB 2 side on a Raspberry Pi 4
_PI4_SOCKETS = 4


class PairedBy(StrEnum):
    """Why two hubs are believed to be one."""

    PEER = "peer"
    """The kernel says of a port which one of the other bus is the same socket (drivers/usb/core/port.c)."""
    CONTAINER = "container"
    """Both carry one container id, and ports, serial numbers and places agree."""
    RASPBERRY_PI_4 = "raspberry-pi-4"
    """The hub soldered to a Raspberry Pi 4, whose USB 3 half is the controller's own root hub."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The other half of a hub, and how that is known."""

    other: UsbHub
    by: PairedBy


def other_half(hub: UsbHub, hubs: Sequence[UsbHub], machine: str = "") -> Pair | None:
    """The other half of `hub` among `hubs`, or None where it has none or nothing tells which it is. `machine` is what
    the device tree calls this machine, as `udev.usb_hubs.machine_model` says."""
    others = [other for other in hubs if other.id.usb3 != hub.id.usb3 and other.id.controller == hub.id.controller]
    soldered = next((other for other in others if _pi4(hub, other, machine) or _pi4(other, hub, machine)), None)
    if soldered is not None:
        return Pair(soldered, PairedBy.RASPBERRY_PI_4)
    peers = {port.peer for port in hub.ports if port.peer is not None}
    by_kernel = next((other for other in others if any(port.folder in peers for port in other.ports)), None)
    if by_kernel is not None:
        return Pair(by_kernel, PairedBy.PEER)
    scored = [(_score(hub, other), other) for other in hubs if other.id.usb3 != hub.id.usb3]
    best = max((score for score, _ in scored), default=0)
    winners = [other for score, other in scored if score == best and best > 0]
    # Two that fit equally well: to pick one is to switch a stranger's board.
    return Pair(winners[0], PairedBy.CONTAINER) if len(winners) == 1 else None


def same_socket(port: HubPort, pair: Pair) -> HubPort | None:
    """The port of the other half that is the same socket as `port`, if it has one."""
    if pair.by is PairedBy.PEER:
        return next((other for other in pair.other.ports if other.folder == port.peer), None)
    return pair.other.port(port.number)


def _pi4(usb2: UsbHub, usb3: UsbHub, machine: str) -> bool:
    """The kernel pairs the two root hubs by port number, which is wrong here: `1-1` and `usb2` have the sockets."""
    return (
        machine.startswith("Raspberry Pi 4 Model B")
        and (usb2.vendor, usb2.product) == _PI4_HUB
        and usb2.id.ports == "1"
        and not usb2.id.usb3
        and usb3.is_root
        and usb3.id.usb3
        and len(usb3.ports) == _PI4_SOCKETS
        and usb2.id.controller == usb3.id.controller
    )


def _score(hub: UsbHub, other: UsbHub) -> int:
    """How well two hubs fit, 0 for not at all; the ladder of uhubctl, which grew on many users' hubs."""
    if hub.container is None or hub.container != other.container:
        return 0
    if len(hub.ports) != len(other.ports) and len(hub.ports) + len(other.ports) > MIN_COMMON_PORTS:
        return 0
    if hub.own_serial and other.own_serial and hub.own_serial != other.own_serial:
        return 0
    score = 1
    if hub.id.ports == other.id.ports:
        usb2, usb3 = sorted((hub, other), key=lambda half: half.id.usb3)
        same_controller = hub.id.controller == other.id.controller
        # A controller's USB 3 bus comes right after its USB 2 bus on Linux.
        score = 5 if same_controller and usb3.bus == usb2.bus + 1 else 4
    elif hub.id.ports.partition(".")[2] == other.id.ports.partition(".")[2] != "":
        score = 2  # the same below the controller's own port, whose numbers differ between its buses
    return score


def with_containers(hubs: Sequence[UsbHub], containers: Mapping[Path, str]) -> list[UsbHub]:
    """`hubs` with the container ids that were asked of the devices, by folder, where sysfs shows none."""
    return [replace(hub, container=containers.get(hub.folder)) if hub.container is None else hub for hub in hubs]
