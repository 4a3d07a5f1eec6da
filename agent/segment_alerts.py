"""Alerts about the board network: what the watch of the segment finds becomes an alert of a board, or of the agent.

Pure: events and `now` in, changes out. The watch repeats what goes on, so an alert ends when it is not repeated.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.unit import Moment
from netboot.dhcp_events import (
    AddressConflict,
    ClientTooFast,
    DuplicateMac,
    OtherAddress,
    RogueDhcpServer,
    SegmentEvent,
)
from netboot.segment_watch import REPEAT_S
from wire.payloads import Alert

ROGUE_DHCP, DUPLICATE_MAC, ADDRESS_CONFLICT, OTHER_ADDRESS = (
    "rogue-dhcp",
    "duplicate-mac",
    "address-conflict",
    "other-address",
)
NAMES = (ROGUE_DHCP, DUPLICATE_MAC, ADDRESS_CONFLICT, OTHER_ADDRESS)
ENDS_AFTER_S = 2.5 * REPEAT_S
"""An alert that was not repeated for so long is over; a foreign DHCP server is also said to be gone."""
MAX_TOLD = 8
"""Findings that one alert names; the log has all."""

_ADVICE = {
    ROGUE_DHCP: 'find it by its MAC address and switch it off, or set [netboot] dhcp = "proxy" if it is to stay',
    DUPLICATE_MAC: "look for a second machine with this MAC address: a cloned VM, an adapter that was set by hand",
    ADDRESS_CONFLICT: "give the machine with that MAC address another address, or reserve this one for it",
    OTHER_ADDRESS: "mend that server ('boardhand netboot advice' says what it has to say), or the board's address here",
}


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert to publish; `alert` None: it is over. `board` None: it is the agent's."""

    board: str | None
    name: str
    alert: Alert | None
    is_new: bool = True
    """False: it stood already and says more now, or nothing is known of it."""

    @property
    def details(self) -> dict[str, object]:
        """As the details of an event of type `alert`."""
        said: dict[str, object] = {"cleared": True} if self.alert is None else {"what": self.alert.what}
        return {"name": self.name, **said}


@dataclass(slots=True)
class _Finding:
    what: str
    until: float


class SegmentAlerts:
    """What stands now. `boards` are the agent's; nothing is told of others'."""

    def __init__(self, boards: Iterable[str]) -> None:
        self._boards = frozenset(boards)
        self._standing: dict[tuple[str | None, str], dict[str, _Finding]] = {}
        self._since: dict[tuple[str | None, str], Moment] = {}

    def follow(self, boards: Iterable[str]) -> None:
        """Other boards are the agent's from now on. What stands of one that is gone ends without a word: its topics
        are cleared by whoever took it out."""
        self._boards = frozenset(boards)
        for place in [place for place in self._standing if place[0] is not None and place[0] not in self._boards]:
            del self._standing[place]
            self._since.pop(place, None)

    def none_yet(self) -> list[AlertChange]:
        """All that another life of this agent may have left at the MQTT server, as over."""
        places: list[str | None] = [None, *sorted(self._boards)]
        return [
            AlertChange(board, name, None, is_new=False)
            for board in places
            for name in NAMES
            if (board, name) not in self._since
        ]

    def heard(self, event: SegmentEvent, now: Moment) -> list[AlertChange]:
        """What an event changes."""
        told = _told(event)
        if told is None:
            return []
        name, board, finding, what = told
        place = (board if board in self._boards else None, name)
        findings = self._standing.setdefault(place, {})
        if isinstance(event, RogueDhcpServer) and not event.present:
            findings.pop(finding, None)
            return self._changed(place, now)
        before = findings.get(finding)
        findings[finding] = _Finding(what, now.monotonic + ENDS_AFTER_S)
        return [] if before is not None and before.what == what else self._changed(place, now)

    def tick(self, now: Moment) -> list[AlertChange]:
        """What has ended."""
        changes = []
        for place, findings in list(self._standing.items()):
            over = [name for name, finding in findings.items() if finding.until <= now.monotonic]
            for name in over:
                del findings[name]
            if over:
                changes += self._changed(place, now)
        return changes

    def _changed(self, place: tuple[str | None, str], now: Moment) -> list[AlertChange]:
        board, name = place
        findings = self._standing[place]
        if not findings:
            del self._standing[place]
            return [AlertChange(board, name, None)] if self._since.pop(place, None) is not None else []
        is_new = place not in self._since
        since = self._since.setdefault(place, now)
        what = "; ".join(finding.what for finding in list(findings.values())[:MAX_TOLD])
        more = len(findings) - MAX_TOLD
        what += f"; and {more} more" if more > 0 else ""
        return [AlertChange(board, name, Alert(what=what, since=since.wall, do=_ADVICE[name]), is_new=is_new)]


def _told(event: SegmentEvent) -> tuple[str, str | None, str, str] | None:
    """The alert's name, its board, the finding's own name, and what it is in words."""
    match event:
        case RogueDhcpServer():
            what = f"another DHCP server answers on {event.interface}: {event.server} (MAC {event.mac})"
            return ROGUE_DHCP, None, event.server, what
        case DuplicateMac():
            who = f"MAC {event.mac}" + (f" of board {event.board}" if event.board is not None else "")
            return DUPLICATE_MAC, event.board, event.mac, f"two machines on {event.interface} use {who}: {event.reason}"
        case AddressConflict():
            whose = f"board {event.board}" if event.board is not None else "this agent or one of its leases"
            user = f"{event.mac} uses" if event.mac else "somebody else uses"
            what = f"{user} {event.address} on {event.interface}, which belongs to {whose}"
            return ADDRESS_CONFLICT, event.board, f"{event.address} {event.mac}", what
        case OtherAddress():
            what = f"the DHCP server on {event.interface} gives it {event.address}; our settings say {event.expected}"
            return OTHER_ADDRESS, event.board, event.mac, what
        case ClientTooFast():
            return None  # in the log; it harms nobody else
