"""From the words of a person or a settings file to the hub that is plugged in now."""

import re
from collections.abc import Sequence

from udev.usb_hub_pairs import other_half
from udev.usb_hubs import HubId, UsbHub

_KERNEL_NAME = re.compile(r"usb[0-9]{1,3}|[0-9]{1,3}-[0-9]{1,3}(\.[0-9]{1,3})*", re.ASCII)
MAX_NAMED = 6  # hubs listed in an error; more would bury it


class HubLookupError(LookupError):
    """No hub, or more than one, answers to the words.

    Attributes:
        problem: what is wrong, as a clause.
        do: what a person can do about it.
        absent: the words are right and the hub is not there now; it may come back.
    """

    def __init__(self, problem: str, do: str, *, absent: bool = False) -> None:
        super().__init__(f"{problem}; {do}")
        self.problem = problem
        self.do = do
        self.absent = absent


def find_hub(hubs: Sequence[UsbHub], words: str, *, machine: str = "", kernel_names: bool = False) -> UsbHub:
    """The hub that `words` name: its place, as `HubId`, or its serial number. Of a USB 3 hub that is named by its
    serial number, the USB 2 half. `machine` as for `other_half`; with `kernel_names` also `1-1.4`, which is never for
    settings: bus numbers change between boots.

    Raises:
        HubLookupError: there is none, there are several, or the words are of no known form.
    """
    place = _place(words)
    if place is not None:
        there = [hub for hub in hubs if hub.id == place]
        if not there:
            raise HubLookupError(f"no USB hub is plugged in at {words!r}", _known(hubs), absent=True)
        if len(there) > 1:  # a controller with two buses of one kind, which xHCI does not have
            raise HubLookupError(f"{len(there)} USB hubs are at {words!r}", "name one by its serial number")
        return there[0]
    matches = {hub.id: hub for hub in (_first_half(hub, hubs, machine) for hub in hubs if hub.own_serial == words)}
    if len(matches) == 1:
        return next(iter(matches.values()))
    if matches:
        places = " and ".join(sorted(map(str, matches)))
        raise HubLookupError(
            f"{len(matches)} USB hubs have the serial number {words!r}", f"name one by place: {places}"
        )
    by_kernel = next((hub for hub in hubs if hub.name == words), None)
    if by_kernel is not None and kernel_names:
        return by_kernel
    if _KERNEL_NAME.fullmatch(words):
        do = f"write {by_kernel.id}" if by_kernel is not None else _known(hubs)
        raise HubLookupError(f"{words!r} is a name by the kernel that changes between boots", do)
    raise HubLookupError(f"no USB hub with the serial number {words!r} is plugged in", _known(hubs), absent=True)


def split_port(words: str) -> tuple[str, str]:
    """`HUB:PORT` taken apart at the last colon; places of hubs have colons of their own.

    Raises:
        ValueError: there is no port behind a colon.
    """
    hub, colon, port = words.rpartition(":")
    if not colon or not hub or re.fullmatch(r"[1-9][0-9]{0,2}", port, re.ASCII) is None:
        raise ValueError(f"{words!r} is not HUB:PORT, as pci-0000:00:14.0-usb-0:1.4:2")
    return hub, port


def _place(words: str) -> HubId | None:
    try:
        return HubId.parse(words)
    except ValueError:
        return None


def _first_half(hub: UsbHub, hubs: Sequence[UsbHub], machine: str) -> UsbHub:
    if not hub.id.usb3:
        return hub
    pair = other_half(hub, hubs, machine)
    return hub if pair is None else pair.other


def _known(hubs: Sequence[UsbHub]) -> str:
    names = [str(hub.id) for hub in hubs if not hub.is_root and not hub.id.usb3]
    if not names:
        return "plug it in: there is no USB hub besides the root hubs"
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"plug it in, or see 'boardhand hubs'; there are {', '.join(names[:MAX_NAMED])}{more}"
