"""Boards as matching sees them: sorted into kinds that are alike for every job that waits. Pure: no I/O, no clock.

A kind is what boards say to the labels that somebody asks for. A farm has thousands of boards and a handful of kinds,
so a question about labels is answered once per kind, and giving out a board costs the same in a farm of any size.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from broker.jobs.labels import LabelValue, Want
from broker.matching.standing import Standing

FREE = (Standing.READY, Standing.COMING, Standing.ASLEEP)
"""In the order in which they are taken."""
Rank = tuple[int, float, str]
"""Fewest labels first, then the board that boots quickest, then by name."""


@dataclass(eq=False, slots=True)
class Kind:
    """Boards that no waiting job can tell apart, but by name."""

    labels: dict[str, LabelValue]
    boards: set[str] = field(default_factory=set)
    free: dict[Standing, list[Rank]] = field(default_factory=lambda: {standing: [] for standing in FREE})
    free_count: int = 0

    def has(self, wants: Iterable[Want]) -> bool:
        """Whether its boards meet all these requirements."""
        return all(want.met_by(self.labels) for want in wants)


@dataclass(slots=True)
class Entry:
    """One board. `why` explains `OUT`."""

    name: str
    labels: Mapping[str, LabelValue]
    standing: Standing
    why: str
    kind: Kind
    rank: Rank


_Key = tuple[tuple[str, str, object], ...]


@dataclass(slots=True)
class BoardPool:
    """Every known board. `service` counts changes in who is known, in service, or labelled how."""

    entries: dict[str, Entry] = field(default_factory=dict)
    free_kinds: dict[Kind, None] = field(default_factory=dict)
    """Kinds with a free board."""
    service: int = 0
    kinds_changed: bool = False
    gains: int = 0
    """How often a board became free, or nearer to being ready, or of another kind."""
    _asked: set[str] = field(default_factory=set)
    _kinds: dict[_Key, Kind] = field(default_factory=dict)

    def kinds(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def ask_for(self, labels: Iterable[str]) -> None:
        """Somebody asks for these labels: boards that differ in them are of different kinds from now on."""
        new = set(labels) - self._asked
        if not new:
            return
        self._asked |= new
        if all(new.isdisjoint(entry.labels) for entry in self.entries.values()):
            return
        entries = list(self.entries.values())
        self._kinds.clear()
        self.free_kinds.clear()
        self.kinds_changed = True
        for entry in entries:
            entry.kind = self._kind_of(entry.labels)
            self._shelve(entry)

    def put(
        self, name: str, labels: Mapping[str, LabelValue], standing: Standing, why: str = "", boot_s: float = 0.0
    ) -> bool:
        """Take note of a board. Returns whether it is free to be given out and was not so, or not as near, before."""
        known = self.entries.get(name)
        if known is not None:
            if (known.labels is labels or known.labels == labels) and known.rank[1] == boot_s:
                return self._restand(known, standing, why)
            self._unshelve(known)
        else:
            self.service += 1
        rank = (len(labels), boot_s, name)
        kind = self._kind_of(labels)
        if known is not None and (known.kind is not kind or known.labels != labels or _out(known) != _is_out(standing)):
            self.service += 1
        entry = self.entries[name] = Entry(name, labels, standing, why, kind, rank)
        self._shelve(entry)
        return standing < Standing.TAKEN

    def drop(self, name: str) -> None:
        """The board is no longer known."""
        entry = self.entries.pop(name, None)
        if entry is not None:
            self._unshelve(entry)
            self.service += 1

    def _restand(self, entry: Entry, standing: Standing, why: str) -> bool:
        if standing is entry.standing:
            if why != entry.why:
                entry.why = why
                self.service += 1
            return False
        if _out(entry) != _is_out(standing):
            self.service += 1
        before = entry.standing
        self._take_out(entry)
        entry.standing, entry.why = standing, why
        self._put_in(entry)
        return standing < Standing.TAKEN and standing < before

    def _kind_of(self, labels: Mapping[str, LabelValue]) -> Kind:
        shown = {label: value for label, value in labels.items() if label in self._asked}
        key = tuple(sorted((label, type(value).__name__, value) for label, value in shown.items()))
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = Kind(shown)
            self.kinds_changed = True
        return kind

    def _shelve(self, entry: Entry) -> None:
        entry.kind.boards.add(entry.name)
        self._put_in(entry)

    def _unshelve(self, entry: Entry) -> None:
        self._take_out(entry)
        kind = entry.kind
        kind.boards.discard(entry.name)
        if not kind.boards:
            self._kinds = {key: one for key, one in self._kinds.items() if one is not kind}
            self.kinds_changed = True

    def _put_in(self, entry: Entry) -> None:
        if entry.standing < Standing.TAKEN:
            self.gains += 1
            insort(entry.kind.free[entry.standing], entry.rank)
            entry.kind.free_count += 1
            self.free_kinds[entry.kind] = None

    def _take_out(self, entry: Entry) -> None:
        if entry.standing < Standing.TAKEN:
            ranks = entry.kind.free[entry.standing]
            del ranks[bisect_left(ranks, entry.rank)]
            entry.kind.free_count -= 1
            if entry.kind.free_count == 0:
                self.free_kinds.pop(entry.kind, None)


def _is_out(standing: Standing) -> bool:
    return standing is Standing.OUT


def _out(entry: Entry) -> bool:
    return _is_out(entry.standing)
