"""Which job gets which board. Pure: the queue and the farm in, assignments and reasons out.

The queue is served by priority, then age. A job takes a ready board if there is one, else one that is coming up, else
one that sleeps. Among equals the board with the fewest labels goes first, so that the special ones stay free for the
jobs that need them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from broker.labels import LabelValue, Want

# Names in a reason: enough to recognise the shelf, short enough for a table.
SHOWN_NAMES = 4


class Standing(IntEnum):
    """How near a board is to taking work; smaller is nearer."""

    READY = 0
    COMING = 1
    ASLEEP = 2
    TAKEN = 3
    """Works, or was given away; will be free again by itself."""
    OUT = 4
    """Takes nothing until somebody does something."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job wants of a board. Equal needs are matched once."""

    board: str | None = None
    wants: tuple[Want, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A board as matching sees it. `why` explains `OUT`."""

    name: str
    labels: Mapping[str, LabelValue]
    standing: Standing
    why: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """A queued job. `avoid` are boards that have failed it: taken only when nothing else is left."""

    job: str
    needs: Needs
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Assignment:
    job: str
    board: str
    standing: Standing


@dataclass(slots=True)
class Plan:
    """What to do now, and for every other job why it waits."""

    assignments: list[Assignment] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


def names_shown(names: Sequence[str]) -> str:
    """`b1, b2, b3, b4 and 12 more`."""
    shown = ", ".join(names[:SHOWN_NAMES])
    return shown if len(names) <= SHOWN_NAMES else f"{shown} and {len(names) - SHOWN_NAMES} more"


def fits(needs: Needs, candidate: Candidate) -> bool:
    """Whether the board could do it, were it free."""
    if needs.board is not None and needs.board != candidate.name:
        return False
    return all(want.met_by(candidate.labels) for want in needs.wants)


def what_is_missing(needs: Needs, candidates: Sequence[Candidate]) -> str:
    """Why no known board can ever do this, said so that the user finds the typo."""
    if not candidates:
        return "no board is known yet: no agent has announced one"
    if needs.board is not None:
        named = [candidate for candidate in candidates if candidate.name == needs.board]
        if not named:
            return f"board {needs.board} is not known: no agent has announced it"
        missing = [str(want) for want in needs.wants if not want.met_by(named[0].labels)]
        return f"board {needs.board} does not have {', '.join(missing)}"
    nowhere = [str(w) for w in needs.wants if not any(w.met_by(candidate.labels) for candidate in candidates)]
    if nowhere:
        return f"no known board has {', '.join(nowhere)}"
    return f"no known board has all of {', '.join(map(str, needs.wants))} together"


class _Pass:
    """One walk through the queue. Fitting boards are found once per kind of need."""

    def __init__(self, candidates: Sequence[Candidate], boot_slots: int) -> None:
        self._candidates = sorted(candidates, key=lambda c: (c.standing, len(c.labels), c.name))
        self._free = {c.name for c in candidates if c.standing < Standing.TAKEN}
        self._slots = boot_slots
        self._fitting: dict[Needs, list[Candidate]] = {}
        self._exhausted: dict[Needs, str] = {}

    def place(self, wish: Wish) -> Assignment | str:
        if not wish.avoid and (reason := self._exhausted.get(wish.needs)) is not None:
            return reason
        fitting = self._fitting.get(wish.needs)
        if fitting is None:
            fitting = [candidate for candidate in self._candidates if fits(wish.needs, candidate)]
            self._fitting[wish.needs] = fitting
        free = [candidate for candidate in fitting if candidate.name in self._free]
        free.sort(key=lambda c: c.name in wish.avoid)  # stable: the order by standing stays within each half
        for candidate in free:
            if candidate.standing is Standing.ASLEEP:
                if self._slots <= 0:
                    continue
                self._slots -= 1
            self._free.discard(candidate.name)
            return Assignment(wish.job, candidate.name, candidate.standing)
        reason = self._why_not(wish.needs, fitting, slots_are_short=bool(free))
        self._exhausted[wish.needs] = reason
        return reason

    def _why_not(self, needs: Needs, fitting: Sequence[Candidate], *, slots_are_short: bool) -> str:
        if not fitting:
            return what_is_missing(needs, self._candidates)
        if slots_are_short:
            return "waits for its turn to wake a board: as many as may are booting"
        in_service = sorted(c.name for c in fitting if c.standing is not Standing.OUT)
        if in_service:
            return f"waits for {'one of ' if len(in_service) > 1 else ''}{names_shown(in_service)} to be free"
        out = sorted((c for c in fitting), key=lambda c: c.name)
        told = "; ".join(f"{c.name}: {c.why}" for c in out[:SHOWN_NAMES])
        more = f"; and {len(out) - SHOWN_NAMES} more" if len(out) > SHOWN_NAMES else ""
        return f"no fitting board is in service: {told}{more}"


def plan(wishes: Sequence[Wish], candidates: Sequence[Candidate], boot_slots: int) -> Plan:
    """Give boards to jobs.

    Args:
        wishes: the queue, most urgent first.
        candidates: every known board.
        boot_slots: how many sleeping boards may be woken now.
    """
    made = Plan()
    walk = _Pass(candidates, boot_slots)
    for wish in wishes:
        found = walk.place(wish)
        if isinstance(found, Assignment):
            made.assignments.append(found)
        else:
            made.reasons[wish.job] = found
    return made
