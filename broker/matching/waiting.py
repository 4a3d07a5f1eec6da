"""Jobs that wait, sorted so that the next one for a board is found without walking the queue. Pure: no I/O, no clock.

Jobs with equal needs stand in one line; within it, each priority and submitter has a lane, oldest first. What an event
costs grows with the lines that it touches, never with the jobs in them.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush

from broker.jobs.labels import Want
from broker.matching.board_pool import BoardPool, Entry, Kind
from broker.matching.fairness import Share, Shares

HeadKey = tuple[int, Share, int]
"""Priority (negated), share of the submitter, number: the smallest goes first."""
_Lane = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job wants of a board. Equal needs are matched once."""

    board: str | None = None
    wants: tuple[Want, ...] = ()
    boots: bool = False
    """It brings its own boot: the board is started for it, whatever it runs now."""
    still: bool = False
    """The board is taken as it is: one that sleeps is not started."""


@dataclass(eq=False, slots=True)
class Line:
    """Waiting jobs with equal needs that the same boards have failed: `avoid`, taken only when nothing else is left."""

    number: int
    needs: Needs
    avoid: frozenset[str]
    jobs: dict[int, _Lane] = field(default_factory=dict)
    reason: str | None = None
    """Why its jobs wait."""
    reason_service: int = -1
    """`BoardPool.service` when that was found."""
    starved: str | None = None
    """A sleeping board would do, and this stands against waking it."""
    reason_starved: str | None = None
    """`starved` when the reason was found."""
    _lanes: dict[_Lane, list[int]] = field(default_factory=dict)

    def head(self, shares: Shares) -> HeadKey | None:
        """Sort key of the job that goes first, its number last; None when nobody waits."""
        if not self._lanes:
            return None
        urgent = min(lane[0] for lane in self._lanes)
        return min(
            (urgent, shares.share(lane[1]), self._oldest(lane, numbers))
            for lane, numbers in self._lanes.items()
            if lane[0] == urgent
        )

    def _oldest(self, lane: _Lane, numbers: list[int]) -> int:
        while self.jobs.get(numbers[0]) != lane:
            heappop(numbers)
        return numbers[0]

    def add(self, job: int, priority: int, submitter: str) -> None:
        lane = (-priority, submitter)
        self.jobs[job] = lane
        heappush(self._lanes.setdefault(lane, []), job)

    def remove(self, job: int) -> None:
        lane = self.jobs.pop(job)
        numbers = self._lanes[lane]
        # A job that came back stands in its heap twice; the one that is left over is met here.
        while numbers and self.jobs.get(numbers[0]) != lane:
            heappop(numbers)
        if not numbers:
            del self._lanes[lane]

    def wants_entry(self, entry: Entry) -> bool:
        """Whether the board could do it, were it free."""
        if self.needs.board is not None and self.needs.board != entry.name:
            return False
        return all(want.met_by(entry.labels) for want in self.needs.wants)


@dataclass(slots=True)
class WaitingJobs:
    """All lines in which a job waits."""

    pool: BoardPool
    lines: dict[tuple[Needs, frozenset[str]], Line] = field(default_factory=dict)
    by_kind: dict[Kind, dict[Line, None]] = field(default_factory=dict)
    """Lines that any board of the kind would serve."""
    named: dict[str, dict[Line, None]] = field(default_factory=dict)
    """Lines that want this one board."""
    _where: dict[int, Line] = field(default_factory=dict)
    _count: int = 0

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, job: int) -> bool:
        return job in self._where

    def line_of(self, job: int) -> Line | None:
        return self._where.get(job)

    def add(self, job: int, needs: Needs, avoid: frozenset[str], priority: int, submitter: str) -> Line:
        """The job waits from now on; in which line. Adding it again changes nothing."""
        known = self._where.get(job)
        if known is not None:
            return known
        line = self.lines.get((needs, avoid))
        if line is None:
            line = self._open(needs, avoid)
        line.add(job, priority, submitter)
        self._where[job] = line
        return line

    def remove(self, job: int) -> None:
        """The job no longer waits. A job that does not is passed over."""
        line = self._where.pop(job, None)
        if line is None:
            return
        line.remove(job)
        if not line.jobs:
            self._close(line)

    def fit_kinds(self) -> None:
        """Sort the lines by kinds anew, after kinds have come or gone."""
        self.pool.kinds_changed = False
        self.by_kind.clear()
        for line in self.lines.values():
            self._fit(line)

    def _open(self, needs: Needs, avoid: frozenset[str]) -> Line:
        self._count += 1
        line = self.lines[needs, avoid] = Line(self._count, needs, avoid)
        if needs.board is not None:
            self.named.setdefault(needs.board, {})[line] = None
        else:
            self.pool.ask_for(want.label for want in needs.wants)
            self._fit(line)
        return line

    def _fit(self, line: Line) -> None:
        if line.needs.board is not None:
            return
        for kind in self.pool.kinds():
            if kind.has(line.needs.wants):
                self.by_kind.setdefault(kind, {})[line] = None

    def _close(self, line: Line) -> None:
        del self.lines[line.needs, line.avoid]
        if line.needs.board is not None:
            named = self.named[line.needs.board]
            del named[line]
            if not named:
                del self.named[line.needs.board]
            return
        for lines in self.by_kind.values():
            lines.pop(line, None)
