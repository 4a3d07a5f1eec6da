"""Which names of boards are in DNS and which should be: the next update, and when. No I/O, no clock.

What may stand in DNS because of us is known before it is sent, and forgotten when the server has said that it is gone
or somebody else's: the owner stores `state()` before it sends an update.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, TypeAlias

import dns.exception
import dns.name

from netboot.dns_records import (
    ADVICE,
    Address,
    Answer,
    Entry,
    Kind,
    Step,
    Trouble,
    Update,
    Verdict,
    ZoneSettings,
    entries_of,
)
from wire.names import is_id

FIRST_RETRY_S = 2.0
MAX_RETRY_S = 300.0
"""A DNS server that is being restarted is found again in seconds, one that is gone is asked twelve times an hour."""
TAKEN_RETRY_S = 300.0
"""A name that somebody else holds becomes free by a person, or by the agent that had the board before."""
REFRESH_S = 3600.0
"""How often a name is put there again: a server that was restored from an old copy has it back after this."""
OF_ONE_NAME = frozenset({Trouble.REFUSED, Trouble.NOT_ZONE, Trouble.SERVER})
"""Troubles that other names of the zone may not have; any other trouble is the whole zone's, and one question at a time
is enough to see that it is over."""
STATE_VERSION = 1

State: TypeAlias = dict[str, object]


class DnsStateError(ValueError):
    """What was stored about names in DNS cannot be read."""


@dataclass(slots=True)
class _Slot:
    """One owner name: what is wanted of it, and what may stand there because of us."""

    wanted: Entry | None = None
    known: Entry | None = None
    marks: tuple[str, ...] = ()
    """All that `known` may carry: after a kill nobody knows which of two was the last one that arrived."""
    steps: list[tuple[Step, str]] = field(default_factory=list)
    due: float = 0.0
    failures: int = 0
    trouble: Answer | None = None


def _pause_s(failures: int) -> float:
    """How long to wait after so many failures before this one."""
    return min(FIRST_RETRY_S * 2.0 ** min(failures, 16), MAX_RETRY_S)


@dataclass(slots=True)
class _Zone:
    failures: int = 0
    due: float = 0.0


class DnsNames:
    """What is wanted, what is known, and which update comes next. `now` is monotonic, in seconds.

    Raises:
        DnsStateError: `state` is not what `state()` gave.
    """

    def __init__(self, settings: ZoneSettings, state: State | None) -> None:
        self._settings = settings
        self._slots: dict[str, _Slot] = {}
        self._zones: dict[str, _Zone] = {}
        self._told = False
        self.unsaved = False
        """Whether `state()` has changed; the owner stores it before it sends, and sets this back."""
        if state is not None:
            self._restore(state)

    # --- what the owner says ---

    def want(self, boards: Mapping[str, Iterable[Address]], now: float) -> None:
        """All boards there are, with their addresses. One without addresses keeps what it has; one that is not here
        is retired, and its names go.

        Raises:
            ValueError: a board's name is no id.
        """
        wanted: dict[str, Entry] = {}
        for board, addresses in boards.items():
            if not is_id(board):
                raise ValueError(f"{board!r} is not an id: use a-z, 0-9 and '-', at most 63 characters")
            entries = entries_of(self._settings, board, list(addresses) or self._last_known(board))
            wanted |= {entry.name: entry for entry in entries}
        self._told = True
        for name in wanted.keys() | self._slots.keys():
            slot = self._slots.setdefault(name, _Slot())
            if slot.wanted != wanted.get(name):
                slot.wanted = wanted.get(name)
                self._plan(slot, now)
        self._tidy()

    def _last_known(self, board: str) -> list[Address]:
        """The addresses under which a board is, or was going to be, in DNS."""
        for slot in self._slots.values():
            entry = slot.wanted or slot.known
            if entry is not None and entry.board == board and entry.kind is Kind.FORWARD:
                return [ip_address(text) for text in entry.values]
        return []

    def _plan(self, slot: _Slot, now: float) -> None:
        """Which updates are tried for this name, in turn, until one's prerequisite holds."""
        wanted, slot.due, slot.trouble = slot.wanted, now, None
        if wanted is None:
            slot.steps = [(Step.REMOVE, mark) for mark in slot.marks]
            return
        create, marks = (Step.CREATE, ""), dict.fromkeys((wanted.mark, *slot.marks))
        renew = [(Step.RENEW, mark) for mark in marks]
        slot.steps = [create, *renew] if slot.known is None else [*renew, create]

    def _tidy(self) -> None:
        for name in [name for name, slot in self._slots.items() if slot.wanted is None and slot.known is None]:
            del self._slots[name]

    # --- updates and answers ---

    def next_update(self, now: float) -> Update | None:
        """The next update to send, None where nothing is due. `unsaved` says whether to store `state()` first."""
        name = min(self._slots, key=self._order, default=None)
        if not self._told or name is None or self._due(self._slots[name]) > now:
            return None
        slot = self._slots[name]
        if not slot.steps:
            self._plan(slot, now)
        step, mark = slot.steps[0]
        entry = slot.wanted if step is not Step.REMOVE else slot.known
        if entry is None:
            raise RuntimeError(f"{name}: {step} of nothing")
        if step is not Step.REMOVE and (slot.known is None or entry.mark not in slot.marks):
            # From here on it may stand there, whatever becomes of the answer.
            slot.known = slot.known or entry
            slot.marks = (*slot.marks, entry.mark)
            self.unsaved = True
        return Update(step, entry, mark)

    def _order(self, name: str) -> tuple[float, bool, str]:
        """Removals first: an address that goes from one board to another must be free."""
        slot = self._slots[name]
        return self._due(slot), slot.wanted is not None, name

    def _due(self, slot: _Slot) -> float:
        entry = slot.wanted or slot.known
        zone = self._zones.get(entry.zone) if entry is not None else None
        return slot.due if zone is None else max(slot.due, zone.due)

    def next_due(self) -> float | None:
        """When `next_update` has something again; None: never, unless something is wanted."""
        return min((self._due(slot) for slot in self._slots.values()), default=None)

    def answered(self, update: Update, answer: Answer, now: float) -> None:
        """What became of `update`."""
        entry = update.entry
        zone = self._zones.setdefault(entry.zone, _Zone())
        slot = self._slots.get(entry.name)
        if answer.verdict is Verdict.FAILED:
            if slot is not None:
                slot.trouble = answer
            if slot is not None and answer.trouble in OF_ONE_NAME:
                slot.due = now + _pause_s(slot.failures)
                slot.failures += 1
            else:
                zone.due = now + _pause_s(zone.failures)
                zone.failures += 1
            return
        self._zones[entry.zone] = _Zone()
        if slot is None:
            return
        slot.failures = 0
        gone = update.step is Step.REMOVE
        current = slot.known if gone else slot.wanted
        if current != entry or not slot.steps or slot.steps[0] != (update.step, update.mark):
            # Something else was wanted meanwhile. What this one did or did not, the next prerequisites find out.
            self._plan(slot, now)
        elif answer.verdict is Verdict.UNMET:
            self._unmet(slot, now, gone=gone)
        else:
            self._done(slot, None if gone else entry, now)
        self._tidy()

    def _unmet(self, slot: _Slot, now: float, *, gone: bool) -> None:
        del slot.steps[0]
        if slot.steps:
            return
        # Every prerequisite failed: nothing there is ours.
        slot.known, slot.marks, self.unsaved = None, (), True
        if not gone:
            slot.trouble = Answer(Verdict.FAILED, Trouble.TAKEN)
            slot.due = now + TAKEN_RETRY_S

    def _done(self, slot: _Slot, entry: Entry | None, now: float) -> None:
        marks = () if entry is None else (entry.mark,)
        if (slot.known, slot.marks) != (entry, marks):
            slot.known, slot.marks, self.unsaved = entry, marks, True
        slot.steps, slot.trouble, slot.due = [], None, now + REFRESH_S

    # --- what is known ---

    def troubles(self) -> dict[str, str]:
        """Owner name to why it is not as wanted, and what to do."""
        found = {}
        for name, slot in self._slots.items():
            if slot.trouble is not None and slot.trouble.trouble is not None:
                seen = f" ({slot.trouble.text})" if slot.trouble.text else ""
                found[name] = f"{ADVICE[slot.trouble.trouble]}{seen}"
        return found

    def state(self) -> State:
        """What may stand in DNS because of us, as plain JSON values."""
        names = {}
        for name, slot in self._slots.items():
            if slot.known is not None:
                known = slot.known
                names[name] = {
                    "kind": known.kind.value,
                    "zone": known.zone,
                    "board": known.board,
                    "marks": list(slot.marks),
                    "values": list(known.values),
                }
        return {"version": STATE_VERSION, "names": names}

    def _restore(self, state: State) -> None:
        if state.get("version") != STATE_VERSION or not isinstance(state.get("names"), dict):
            raise DnsStateError("the stored names in DNS are of another version: remove them, and remove by hand what "
                                "is still in DNS of boards that are gone")  # fmt: skip
        names: dict[str, Any] = state["names"]  # type: ignore[assignment]  # checked above
        for name, stored in names.items():
            try:
                kind, marks, values = Kind(stored["kind"]), tuple(stored["marks"]), tuple(stored["values"])
                if not marks or not all(isinstance(text, str) for text in (name, *marks, *values)):
                    raise TypeError("no marks")  # noqa: TRY301  # one way out for all that can be wrong
                zone, board = str(stored["zone"]), str(stored["board"])
                dns.name.from_text(name)
                dns.name.from_text(zone)
                if kind is Kind.FORWARD:
                    [ip_address(text) for text in values]
            except (KeyError, TypeError, ValueError, dns.exception.DNSException) as error:
                raise DnsStateError(f"the stored name {name!r} in DNS cannot be read: {error!r}") from None
            self._slots[name] = _Slot(known=Entry(kind, zone, name, board, marks[-1], values, 0), marks=marks)
