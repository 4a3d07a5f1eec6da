"""Which job gets which board. Pure: queue, farm and what changed in; assignments out.

The order of jobs: priority, then the submitter who has the smaller share (`broker.matching.fairness`), then age. A job
takes, of the boards that fit:
  1. one that has not failed it before;
  2. one that no other waiting job is left without by it: scarce boards are kept for jobs that only they can do;
  3. a ready one before one that is coming up, and that before one that sleeps; a job that brings its own boot takes a
     sleeping one first, for the board has to start anyway;
  4. the one that the fewest other queued needs ask for;
  5. the one with the fewest labels, then the one that boots quickest, then by name.
A job of higher priority is never kept waiting for the sake of a lower one.

Between two calls of `Matcher.run` no waiting job could have been served; so each looks only at the lines that a change
touches: new jobs, boards that became free, room to wake.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from broker.matching.board_pool import FREE, BoardPool, Entry, Kind, Rank
from broker.matching.fairness import Shares
from broker.matching.standing import Standing
from broker.matching.waiting import HeadKey, Line, WaitingJobs
from broker.matching.waiting import Needs as Needs  # noqa: PLC0414  # part of matching, so found here too
from broker.sleep.wake_room import WakeRoom

Give = Callable[[int, str, Standing], None]
"""Carries an assignment out: number of the job, board, and how near the board was."""
_Cost = tuple[bool, bool, int, int, Rank]
_BOOTS_ORDER = {Standing.ASLEEP: 0, Standing.READY: 1, Standing.COMING: 2}


@dataclass(slots=True)
class Matcher:
    """Gives boards to jobs. Whoever changes a board's standing says so by `board_freed`, a new job by `job_waits`."""

    pool: BoardPool
    waiting: WaitingJobs
    shares: Shares
    room: WakeRoom
    unserved: dict[Line, None] = field(default_factory=dict)
    """Lines in which somebody waits on after the last run that looked at them."""
    _touched: dict[Line, None] = field(default_factory=dict)
    _freed: dict[str, None] = field(default_factory=dict)
    _starved: dict[Line, None] = field(default_factory=dict)
    _slack: dict[Line, int] = field(default_factory=dict)

    def job_waits(self, line: Line) -> None:
        """A job was added to this line."""
        self._touched[line] = None

    def board_freed(self, board: str) -> None:
        """A board became free, or nearer to being ready."""
        self._freed[board] = None

    def run(self, give: Give, now: float, *, ticked: bool = False) -> None:
        """Serve whom a change since the last run lets be served. With `ticked`, time has passed: wakes may be due."""
        if self.pool.kinds_changed:
            self.waiting.fit_kinds()
        lines = self._to_look_at(ticked=ticked)
        self.unserved = {}
        self._slack = {}
        queue: list[tuple[HeadKey, int, Line]] = [
            (key, line.number, line) for line in lines if (key := line.head(self.shares)) is not None
        ]
        heapify(queue)
        while queue:
            key, _, line = heappop(queue)
            current = line.head(self.shares)
            if current is None:
                continue
            if current != key:  # its submitter was given a board meanwhile
                heappush(queue, (current, line.number, line))
                continue
            entry = self._choose(line, now)
            if entry is None:
                self.unserved[line] = None
                if line.starved is not None:
                    self._starved[line] = None
                continue
            self._give(line, key[2], entry, give, now)
            if (following := line.head(self.shares)) is not None:
                heappush(queue, (following, line.number, line))

    def _to_look_at(self, *, ticked: bool) -> Iterable[Line]:
        lines = self._touched
        self._touched = {}
        if self.room.freed or ticked:
            self.room.freed = False
            lines.update(self._starved)
            self._starved = {}
        for board in self._freed:
            entry = self.pool.entries.get(board)
            if entry is not None and entry.standing < Standing.TAKEN:
                lines.update(self.waiting.by_kind.get(entry.kind, {}))
                lines.update(self.waiting.named.get(board, {}))
        self._freed = {}
        return lines

    def _give(self, line: Line, job: int, entry: Entry, give: Give, now: float) -> None:
        standing, labels = entry.standing, entry.labels
        for other in self.waiting.by_kind.get(entry.kind, {}):
            if other in self._slack:
                self._slack[other] -= 1
        if line in self._slack:
            self._slack[line] += 1  # one job fewer waits in it
        self.pool.put(entry.name, labels, Standing.TAKEN, boot_s=entry.rank[1])
        if _wakes(line, standing):
            self.room.woke(entry.name, labels, now)
        self.waiting.remove(job)
        give(job, entry.name, standing)

    def _choose(self, line: Line, now: float) -> Entry | None:
        line.starved = None
        if line.needs.board is not None:
            return self._named(line, now)
        best: tuple[_Cost, Kind] | None = None
        for kind in self.pool.free_kinds:
            lines = self.waiting.by_kind.get(kind)
            if lines is None or line not in lines:
                continue
            required = any(other is not line and self._spare(other) <= 0 for other in lines)
            for standing in FREE:
                ranks = kind.free[standing]
                if not ranks or (_wakes(line, standing) and self._refused(line, kind, now)):
                    continue
                avoided, named, rank = self._first(line, ranks)
                order = _BOOTS_ORDER[standing] if line.needs.boots else int(standing)
                cost = (avoided, required or named, order, len(lines), rank)
                if best is None or cost < best[0]:
                    best = cost, kind
        if best is None:
            return None
        line.starved = None
        return self.pool.entries[best[0][4][2]]

    def _named(self, line: Line, now: float) -> Entry | None:
        entry = self.pool.entries.get(line.needs.board or "")
        if entry is None or entry.standing >= Standing.TAKEN or not line.wants_entry(entry):
            return None
        if _wakes(line, entry.standing) and self._refused(line, entry.kind, now):
            return None
        return entry

    def _refused(self, line: Line, kind: Kind, now: float) -> bool:
        refusal = self.room.refusal(kind.labels, now)
        line.starved = refusal or line.starved
        return refusal is not None

    def _first(self, line: Line, ranks: list[Rank]) -> tuple[bool, bool, Rank]:
        """The board to take of some that are alike: whether it failed before, whether a job asks for it by name."""
        if not line.avoid and not self.waiting.named:
            return False, False, ranks[0]
        best: tuple[bool, bool, Rank] | None = None
        for rank in ranks:
            cost = rank[2] in line.avoid, rank[2] in self.waiting.named, rank
            if cost[:2] == (False, False):
                return cost
            if best is None or cost < best:
                best = cost
        return best or (False, False, ranks[0])

    def _spare(self, line: Line) -> int:
        """Free boards that the line would have left if all its jobs were served; kept for the length of a run."""
        known = self._slack.get(line)
        if known is None:
            free = sum(k.free_count for k in self.pool.free_kinds if line in self.waiting.by_kind.get(k, {}))
            known = self._slack[line] = free - len(line.jobs)
        return known


def _wakes(line: Line, standing: Standing) -> bool:
    """Whether a job of the line makes a board of this standing start."""
    if line.needs.still:
        return False
    return standing is Standing.ASLEEP or (line.needs.boots and standing is Standing.READY)
