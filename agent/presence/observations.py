"""What was seen of links, neighbours and USB devices, and what it means for a board. No I/O and no clock.

The book keeps what is; a `Sign` comes out only where that changed. One table says what each change means.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from agent.life import LifeEvent
from wire.ids import normal_mac

USB_PATH = re.compile(r"[0-9]{1,4}-[0-9]{1,3}(\.[0-9]{1,3})*")
"""A device's place as sysfs names it: bus, dash, ports from the root hub on."""
USB_IDS = re.compile(r"([0-9a-f]{4}:[0-9a-f]{4})(?::([!-~]{1,126}))?", re.IGNORECASE)
"""Vendor and product as lsusb prints them, and maybe a serial number (USB 2.0 section 9.6.7: at most 126 units)."""


MOST_ADDRESSES = 64
"""Entries of one MAC address that are kept: IPv4, IPv6 with its temporary addresses, bridges."""


class Source(StrEnum):
    """By what a board is seen."""

    LINK = "link"
    NEIGHBOUR = "neighbour"
    USB = "usb"


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """A network interface of this host has carrier, or has none (any more). `others` are its alternative names."""

    interface: str
    up: bool
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NeighbourSeen:
    """A MAC address on a segment of this host. `answers` None: the kernel has forgotten it, which says nothing of it.
    `address` is empty where a bridge saw its frames."""

    mac: str
    address: str
    interface: str
    answers: bool | None


@dataclass(frozen=True, slots=True)
class UsbSeen:
    """A USB device. `ids` as `0525:a4a2`, empty where unknown."""

    path: str
    present: bool
    ids: str = ""
    product: str = ""
    serial: str = ""


Observation: TypeAlias = LinkSeen | NeighbourSeen | UsbSeen


@dataclass(frozen=True, slots=True)
class UsbMark:
    """How a board's USB device is known: by `path`, or by `ids` and maybe `serial`."""

    path: str = ""
    ids: str = ""
    serial: str = ""

    @classmethod
    def parse(cls, text: str) -> "UsbMark":
        """From a setting: `1-1.4`, `0525:a4a2` or `0525:a4a2:SERIAL`.

        Raises:
            ValueError: it is neither.
        """
        if USB_PATH.fullmatch(text):
            return cls(path=text)
        found = USB_IDS.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is neither a USB path as 1-1.4 nor ids as 0525:a4a2 or 0525:a4a2:SERIAL")
        return cls(ids=found.group(1).lower(), serial=found.group(2) or "")

    def fits(self, device: UsbSeen) -> bool:
        """Whether `device` is the one that is meant."""
        if self.path:
            return device.path == self.path
        return device.ids == self.ids and (not self.serial or device.serial == self.serial)


@dataclass(frozen=True, slots=True)
class BoardMarks:
    """By what one board is seen."""

    macs: frozenset[str] = frozenset()
    link: str | None = None
    usb: UsbMark | None = None
    netboots: bool = False
    """It boots from this agent, which then hears from DHCP and TFTP, and better, how far it is."""


@dataclass(frozen=True, slots=True)
class Sign:
    """Something of `board` came or went. `first`: it was so when we began to look. `moves`: it may move its phase."""

    board: str
    source: Source
    alive: bool
    words: str
    details: dict[str, object] = field(default_factory=dict)
    first: bool = False
    moves: bool = True

    @property
    def life(self) -> LifeEvent | None:
        """What it means for the board's phase."""
        return MEANING.get((self.source, self.alive)) if self.moves else None


MEANING: dict[tuple[Source, bool], LifeEvent] = {
    # A link comes up with the supply of its PHY, and a USB device may be the boot ROM's: neither is more than power.
    (Source.NEIGHBOUR, True): LifeEvent.ANSWERS,
}
"""Where a sign is absent, the board stays in its phase. That something went moves no phase: a boot loader hands its
link to the kernel and resets it, a quiet board is forgotten; a client's will and the power's read-back tell the end."""


class PresenceBook:
    """What is seen of all boards now."""

    def __init__(self, boards: Mapping[str, BoardMarks]) -> None:
        self._links: dict[str, LinkSeen] = {}
        self._neighbours: dict[str, dict[tuple[str, str], NeighbourSeen]] = {}
        self._usb: dict[str, UsbSeen] = {}
        self._said: dict[tuple[str, Source], int] = {}
        """How strong the sign was that was told: 0 for none any more, 1, or 2 for a neighbour with an IP address."""
        self.follow(boards)

    def follow(self, boards: Mapping[str, BoardMarks]) -> list[Sign]:
        """Other boards, or other marks, from now on. What is seen of new ones comes out as their first signs."""
        self._marks = dict(boards)
        self._by_mac = {mac: board for board, marks in boards.items() for mac in marks.macs}
        self._by_link = {marks.link: board for board, marks in boards.items() if marks.link is not None}
        self._by_usb = [(marks.usb, board) for board, marks in boards.items() if marks.usb is not None]
        self._neighbours = {mac: seen for mac, seen in self._neighbours.items() if mac in self._by_mac}
        self._said = {key: strength for key, strength in self._said.items() if key[0] in boards}
        signs: list[Sign] = []
        for board in boards:
            for source in Source:
                signs += self._look(board, source, first=True)
        return signs

    @property
    def wants_serials(self) -> frozenset[str]:
        """Ids of USB devices whose serial number matters."""
        return frozenset(mark.ids for mark, _ in self._by_usb if mark.serial)

    @property
    def sources(self) -> frozenset[Source]:
        """What there is to look at."""
        wanted = {Source.NEIGHBOUR: self._by_mac, Source.LINK: self._by_link, Source.USB: self._by_usb}
        return frozenset(source for source, marks in wanted.items() if marks)

    @property
    def usb_devices(self) -> list[UsbSeen]:
        """All that there are now, boards' or not."""
        return list(self._usb.values())

    def alive(self, board: str) -> dict[Source, bool]:
        """What is known of `board` now."""
        return {source: bool(self._said[board, source]) for source in Source if (board, source) in self._said}

    def take(self, seen: Observation, *, first: bool = False) -> list[Sign]:
        """What an observation changes."""
        match seen:
            case LinkSeen():
                names = (seen.interface, *seen.others)
                for name in names:
                    self._links[name] = seen
                boards = {self._by_link[name] for name in names if name in self._by_link}
                return self._looked(boards, Source.LINK, first=first)
            case NeighbourSeen():
                board = self._by_mac.get(seen.mac)
                if board is None:
                    return []  # whoever invents MAC addresses does not fill our memory
                entries = self._neighbours.setdefault(seen.mac, {})
                entries.pop((seen.interface, seen.address), None)
                if seen.answers is not None:
                    entries[seen.interface, seen.address] = seen
                    if len(entries) > MOST_ADDRESSES:
                        del entries[next(iter(entries))]
                return self._looked({board}, Source.NEIGHBOUR, first=first)
            case UsbSeen():
                boards = {board for mark, board in self._by_usb if mark.fits(seen)}
                before = self._usb.pop(seen.path, None)
                if before is not None:  # a device that goes says less of itself than it did
                    boards |= {board for mark, board in self._by_usb if mark.fits(before)}
                if seen.present:
                    self._usb[seen.path] = seen
                return self._looked(boards, Source.USB, first=first)

    def usb_now(self, devices: Iterable[UsbSeen], *, first: bool = False) -> list[Sign]:
        """All USB devices that there are: those that are not among them have gone."""
        found = {device.path: device for device in devices}
        signs: list[Sign] = []
        for path, old in list(self._usb.items()):
            if path not in found:
                signs += self.take(UsbSeen(path, present=False, ids=old.ids), first=first)
        for device in found.values():
            if self._usb.get(device.path) != device:
                signs += self.take(device, first=first)
        if first:
            signs += self._looked({board for _, board in self._by_usb}, Source.USB, first=True)
        return signs

    def _looked(self, boards: Iterable[str], source: Source, *, first: bool) -> list[Sign]:
        return [sign for board in sorted(boards) for sign in self._look(board, source, first=first)]

    def _look(self, board: str, source: Source, *, first: bool) -> list[Sign]:
        found = self._now(board, source)
        if found is None:
            self._said.pop((board, source), None)
            return []
        alive, words, details = found
        key = (board, source)
        before = self._said.get(key, 0)
        # Frames of a board come through a bridge before it has an address: the address is told, too, but not its loss.
        strength = 0 if not alive else 2 if details.get("address") else 1
        self._said[key] = max(strength, before) if alive else 0
        if strength <= before if alive else not before:
            return []
        moves = not self._marks[board].netboots and (source is not Source.NEIGHBOUR or strength != 1)
        return [Sign(board, source, alive, words, {"what": source.value, **details}, first=first, moves=moves)]

    def _now(self, board: str, source: Source) -> tuple[bool, str, dict[str, object]] | None:
        """Whether the board is seen, in words and as an event's details; None where nobody can tell."""
        marks = self._marks[board]
        if source is Source.LINK:
            return self._link_now(marks)
        if source is Source.USB:
            return self._usb_of(marks)
        return self._neighbour_now(marks)

    def _link_now(self, marks: BoardMarks) -> tuple[bool, str, dict[str, object]] | None:
        seen = self._links.get(marks.link or "")
        if seen is None:
            return None
        state = "up" if seen.up else "down"
        return seen.up, f"link {state} on {marks.link}", {"interface": marks.link, "state": state}

    def _neighbour_now(self, marks: BoardMarks) -> tuple[bool, str, dict[str, object]] | None:
        told = [seen for mac in sorted(marks.macs) for seen in self._neighbours.get(mac, {}).values()]
        if not told:
            return None
        # One with an IP address says more than a frame that a bridge saw.
        best = max(told, key=lambda seen: (seen.answers or False, bool(seen.address)))
        alive = bool(best.answers)
        where = f"{best.address or best.mac} on {best.interface}"
        details: dict[str, object] = {
            "mac": best.mac,
            "address": best.address or None,
            "interface": best.interface,
            "state": "answers" if alive else "silent",
        }
        return alive, f"answers as {where}" if alive else f"answers no more as {where}", details

    def _usb_of(self, marks: BoardMarks) -> tuple[bool, str, dict[str, object]] | None:
        if marks.usb is None:
            return None
        device = next((seen for seen in self._usb.values() if marks.usb.fits(seen)), None)
        if device is None:
            name = marks.usb.path or marks.usb.ids
            return False, f"USB device {name} is gone", {"usb": name, "state": "gone"}
        details: dict[str, object] = {"usb": device.path, "ids": device.ids, "state": "plugged"}
        if device.product:
            details["product"] = device.product
        return True, f"USB device {device.path} ({device.product or device.ids})", details


def marks(macs: Iterable[str], link: str | None, usb: str | None, *, netboots: bool = False) -> BoardMarks:
    """From what the settings say of a board."""
    device = None if usb is None else UsbMark.parse(usb)
    return BoardMarks(frozenset(normal_mac(mac) for mac in macs), link, device, netboots)
