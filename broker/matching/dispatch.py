"""Keeps boards and waiting jobs sorted as ledger and farm change, gives out boards, and tells jobs why they wait.

It learns of every change to a job or a lease from the actions that the ledger leaves behind, so nothing is looked at
twice: what an event costs does not grow with the queue.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice

from broker.farm_view import BoardPicture, FarmView
from broker.happenings import (
    Action,
    Announce,
    ClearLease,
    Moment,
    PutLease,
    SaveAttempt,
    SaveBoot,
    SaveJob,
    SaveOtherBoot,
)
from broker.jobs.life import Job
from broker.ledger import Ledger
from broker.matching.assignment import Give, Matcher
from broker.matching.board_pool import BoardPool
from broker.matching.fairness import Shares
from broker.matching.standing import Standing
from broker.matching.waiting import Line, Needs, WaitingJobs
from broker.matching.why_waiting import why_waits
from broker.sleep.idle_policy import IdlePolicy
from broker.sleep.wake_room import WakeRoom
from wire.phases import JobState, Phase, PowerAction

# Why it waits is told to so many jobs per event, and to so many more per tick: a reason that changes for 10,000 jobs
# must not hold up an offer.
TOLD_AT_ONCE = 20
TOLD_PER_TICK = 200
# Reasons looked at anew per tick, after boards have come, gone or changed.
RENEWED_PER_TICK = 50


@dataclass(slots=True)
class Dispatch:
    """The scheduler's index of boards and jobs. Times are those of `Moment`."""

    ledger: Ledger
    farm: FarmView
    idle: IdlePolicy
    room: WakeRoom
    pool: BoardPool = field(default_factory=BoardPool)
    shares: Shares = field(default_factory=Shares)
    touched: set[str] = field(default_factory=set)
    """Boards about which something changed since they were last looked at."""
    waiting: WaitingJobs = field(init=False)
    matcher: Matcher = field(init=False)
    _leased: dict[int, tuple[str, float]] = field(default_factory=dict)
    """Jobs with a lease: their submitter, and since when."""
    _overdue: list[tuple[float, int]] = field(default_factory=list)
    _new: list[int] = field(default_factory=list)
    """Jobs that wait since the last look, and were told no reason yet."""
    _changed: dict[Line, None] = field(default_factory=dict)
    """Lines whose reason changed, and whose jobs were not all told."""
    _telling: deque[int] = field(default_factory=deque)
    """Jobs of the one of them that is being told."""
    _absorbed: int = 0

    def __post_init__(self) -> None:
        self.waiting = WaitingJobs(self.pool)
        self.matcher = Matcher(self.pool, self.waiting, self.shares, self.room)
        self.pool.ask_for(self.room.labels)

    # --- keeping up ------------------------------------------------------------------------------------------

    def restore(self, now: Moment) -> None:
        """Take in what the ledger was restored with."""
        for job in self.ledger.jobs.values():
            self._job_changed(job)
        for held in self.ledger.held.values():
            self._lease_began(held.job.number, now)

    def begin(self) -> None:
        """The ledger's list of actions starts anew."""
        self._absorbed = 0

    def absorb(self, now: Moment) -> None:
        """Take in the actions that the ledger has left since the last time."""
        out = self.ledger.out
        while self._absorbed < len(out):
            action = out[self._absorbed]
            self._absorbed += 1
            match action:
                case SaveJob(job):
                    self._job_changed(job)
                case SaveAttempt(job=number, result=None):
                    self._lease_began(number, now)
                case SaveAttempt(job=number):
                    self._lease_ended(number, now)
                case PutLease(board) | ClearLease(board) | SaveOtherBoot(board):
                    self.touched.add(board)
                case _:
                    pass

    def _job_changed(self, job: Job) -> None:
        if job.state is not JobState.QUEUED or job.group is not None or job.number in self.ledger.checks:
            self.waiting.remove(job.number)
            return
        if job.number in self.waiting:
            return
        line = self.waiting.add(job.number, job.needs, frozenset(job.avoid), job.spec.priority, job.submitter)
        self.matcher.job_waits(line)
        self._new.append(job.number)
        if job.spec.queue_timeout_s is not None:
            heappush(self._overdue, (job.submitted.timestamp() + job.spec.queue_timeout_s, job.number))

    def _lease_began(self, number: int, now: Moment) -> None:
        job = self.ledger.jobs.get(f"job-{number}")
        if job is not None:
            self.took(number, job.submitter, now)

    # --- people: their leases have numbers as jobs have, and wait in the same lines ------------------------------

    def wait(self, number: int, needs: Needs, holder: str) -> None:
        """A person waits for a board."""
        self.matcher.job_waits(self.waiting.add(number, needs, frozenset(), 0, holder))

    def took(self, number: int, holder: str, now: Moment) -> None:
        """A lease of this number began."""
        if number not in self._leased:
            self._leased[number] = (holder, now.mono)
            self.shares.began(holder)

    def gave_back(self, number: int, now: Moment) -> None:
        """A lease of this number ended."""
        self._lease_ended(number, now)

    def reason(self, number: int) -> str | None:
        """Why whoever has this number waits."""
        line = self.waiting.line_of(number)
        if line is None:
            return None
        if line.reason is None or line.reason_service != self.pool.service:
            self._renew(line)
        return line.reason

    def _lease_ended(self, number: int, now: Moment) -> None:
        submitter, since = self._leased.pop(number, ("", None))
        if since is not None:
            self.shares.ended(submitter, now.mono - since, now.mono)

    # --- boards ----------------------------------------------------------------------------------------------

    def touch_all(self) -> None:
        """Look at every board: the picture began anew."""
        self.touched.update(self.farm.names(), self.pool.entries)

    def touch_timed(self) -> None:
        """Look at the boards whose standing may change because time has passed."""
        self.touched.update(self.ledger.benched, self.ledger.other_boots, self.room.booting)
        if any(rule.min_off_s > 0 for rule in self.idle.rules.rules):
            self.touched.update(name for name, entry in self.pool.entries.items() if entry.standing is Standing.TAKEN)

    def free_boards(self) -> list[BoardPicture]:
        """Boards that could be given work, and those that are being switched outside of a lease, by name."""
        names = {rank[2] for kind in self.pool.free_kinds for ranks in kind.free.values() for rank in ranks}
        names |= self.idle.switching()
        return [self.farm.board(name) for name in sorted(names)]

    def look(self, now: Moment) -> list[Action]:
        """Sort the touched boards in anew."""
        actions: list[Action] = []
        powering = self.ledger.being_switched_on(now)
        for board in sorted(self.touched):
            picture = self.farm.board(board)
            took_s = self.idle.forecast.look(picture, now.mono)
            if took_s is not None:
                actions.append(SaveBoot(board, took_s, now.wall))
            self.room.note(board, picture.labels, booting=self._booting(picture, powering))
            if not self.farm.knows(board):
                self.pool.drop(board)
                continue
            standing, why = self.standing(picture, now)
            boot_s = self.idle.forecast.typical_s(board) or 0.0
            if self.pool.put(board, picture.labels, standing, why, boot_s):
                self.matcher.board_freed(board)
        self.touched.clear()
        return actions

    def _booting(self, picture: BoardPicture, powering: set[str]) -> bool:
        """Whether the board fills a boot slot: it comes up, whoever switched it on."""
        board = picture.name
        held = self.ledger.held.get(board)
        waking = held is not None and held.job.state is JobState.WAKING and held.gate is None
        if held is not None and (held.ready or held.waits_for_room):
            waking = False
        person = self.ledger.people.get(board)
        if person is not None and not person.woken and picture.asleep:
            return True
        if picture.coming_up or waking or self.idle.pending(board) is PowerAction.ON:
            return True
        return board in powering and (picture.phase is None or picture.asleep)

    def standing(self, picture: BoardPicture, now: Moment) -> tuple[Standing, str]:
        """How near the board is to taking work, and why not if it cannot."""
        why = self.ledger.out_of_work.get(picture.name)
        if why is not None and picture.out_of_service is None:
            return Standing.OUT, why
        return self.own_standing(picture, now)

    def own_standing(self, picture: BoardPicture, now: Moment) -> tuple[Standing, str]:  # noqa: PLR0911  # a ladder
        """The same, whether or not the board is trusted."""
        name = picture.name
        if (why := picture.out_of_service) is not None:
            return Standing.OUT, why
        if name in self.ledger.held or self.idle.pending(name) is not None or name in self.ledger.other_boots:
            return Standing.TAKEN, ""
        if name in self.ledger.people:
            return Standing.TAKEN, ""
        if self.ledger.benched_until(name, now) is not None:
            return Standing.TAKEN, ""
        if picture.ready:
            return Standing.READY, ""
        if picture.phase is Phase.READY and not picture.online:
            return Standing.OUT, "ready by its agent's word, but it does not answer"
        if picture.coming_up:
            return Standing.COMING, ""
        if not picture.asleep:
            return Standing.TAKEN, ""
        if self.idle.rests_until(picture, now) is not None:
            return Standing.TAKEN, "it went to sleep less than its min_off_s ago"
        return Standing.ASLEEP, ""

    # --- jobs ------------------------------------------------------------------------------------------------

    def match(self, give: Give, now: Moment, *, ticked: bool) -> None:
        """Give out boards, and tell jobs that wait on why they do."""
        self.matcher.run(give, now.mono, ticked=ticked)
        self.absorb(now)
        for line in self.matcher.unserved:
            if line.jobs and (line.reason is None or line.starved != line.reason_starved):
                self._renew(line)
        self._tell_new()
        if ticked:
            self._renew_some()
            self._tell_some()

    def overdue(self, now: Moment) -> list[Job]:
        """Jobs whose time in the queue is over."""
        found = []
        while self._overdue and self._overdue[0][0] <= now.wall.timestamp():
            _, number = heappop(self._overdue)
            job = self.ledger.jobs.get(f"job-{number}")
            if job is not None and number in self.waiting:
                self.explain(job)
                found.append(job)
        return found

    def explain(self, job: Job) -> None:
        """Bring a waiting job's reason up to date."""
        line = self.waiting.line_of(job.number)
        if line is not None:
            if line.reason is None or line.reason_service != self.pool.service:
                self._renew(line)
            job.reason = _told(job, line)

    def _renew(self, line: Line) -> None:
        reason = why_waits(line, self.waiting, self.pool)
        line.reason_service, line.reason_starved = self.pool.service, line.starved
        if reason != line.reason:
            line.reason = reason
            self._changed[line] = None
            for number in list(islice(line.jobs, TOLD_AT_ONCE)):
                self._tell(number)

    def _renew_some(self) -> None:
        left = RENEWED_PER_TICK
        for line in self.waiting.lines.values():
            if line.reason_service != self.pool.service:
                self._renew(line)
                left -= 1
                if left == 0:
                    return

    def _tell_new(self) -> None:
        """Those beyond the first are left to the ticks."""
        new, self._new = self._new, []
        for number in new[:TOLD_PER_TICK]:
            self._tell(number)
        for number in new[TOLD_PER_TICK:]:
            if (line := self.waiting.line_of(number)) is not None:
                self._changed[line] = None

    def _tell_some(self) -> None:
        most = TOLD_PER_TICK
        while most > 0:
            if not self._telling:
                if not self._changed:
                    return
                line = next(iter(self._changed))
                del self._changed[line]
                self._telling.extend(line.jobs)
            while self._telling and most > 0:
                most -= self._tell(self._telling.popleft())

    def _tell(self, number: int) -> bool:
        line = self.waiting.line_of(number)
        if line is None or line.reason is None:
            return False
        job = self.ledger.jobs.get(f"job-{number}")
        if job is None:  # a person, who asks
            return False
        told = _told(job, line)
        if told == job.reason:
            return False
        job.reason = told
        self.ledger.out.append(Announce(job.summary()))
        return True


def _told(job: Job, line: Line) -> str | None:
    return f"{line.reason} (before: {job.last_fault})" if job.last_fault else line.reason
