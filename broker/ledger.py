"""Jobs, leases and tokens: the bookkeeping of the scheduler, and the few changes that may be made to it.

A lease is the only right to use a board. Each takes the board's next token, so whatever an earlier holder still says
is told apart by its number. Every change leaves the actions that save and tell it in `out`, the saving first in
effect: whoever carries them out commits before it sends.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime

from broker.happenings import (
    Action,
    Announce,
    ClearLease,
    Moment,
    PutLease,
    SaveAttempt,
    SaveJob,
    SaveToken,
    SendOffer,
    SendStop,
    TimelineEntry,
)
from broker.health.trust import HealthRule
from broker.jobs.life import Job, JobEvent
from broker.jobs.steps import wire_steps
from broker.jobs.verdict import Kind, OutputWatch, judge, judged
from broker.leases.lease import LeaseRules, PersonLease
from broker.leases.phases import BootStage as BootStage  # noqa: PLC0414  # part of a lease, so found here too
from broker.leases.phases import BootWait as BootWait  # noqa: PLC0414  # part of a lease, so found here too
from broker.leases.phases import GateWait as GateWait  # noqa: PLC0414  # part of a lease, so found here too
from broker.sleep.policy import SleepRule
from broker.sleep.wake_room import Shelf
from wire.payloads import WorkOutcome
from wire.phases import JobState, Outcome

# Boards that never came up cost no attempt of the job, but a farm where five in a row fail is not worth a sixth boot.
MAX_START_FAULTS = 5
# The board's own step timeouts end a job; the lease outlasts them by the time an outcome may need to arrive.
LEASE_MARGIN_S = 30.0
# The slowest board sends its artifacts at about this rate (busybox, emulated: 36 KB and 15 processes each time).
ARTIFACT_BYTES_PER_S = 50_000
# Retained leases set the floor for tokens after a lost store; beyond this a stranger wrote it.
MAX_SEEN_TOKEN = 2**52
# Outcomes are repeated every 5 s for as long as their board is up; these many are recognised again.
REMEMBERED_OUTCOMES = 10_000


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of a farm. Seconds unless the name says otherwise; settings.py explains each."""

    name: str = "broker"
    idle_s: float = 300.0
    min_on_s: float = 120.0
    booting_cap: int = 2
    offer_timeout_s: float = 10.0
    max_offers: int = 3
    wake_timeout_s: float = 900.0
    power_timeout_s: float = 60.0
    hook_timeout_s: float = 120.0
    lost_grace_s: float = 60.0
    absent_grace_s: float = 15.0
    bench_s: float = 120.0
    max_queued: int = 10_000
    min_off_s: float = 0.0
    sleep: tuple[SleepRule, ...] = ()
    shelves: tuple[Shelf, ...] = ()
    health: tuple[HealthRule, ...] = ()
    leases: LeaseRules = field(default_factory=LeaseRules)


@dataclass(slots=True)
class Held:
    """A lease under way. Times are monotonic seconds."""

    job: Job
    board: str
    token: int
    began: datetime
    expires: float
    deadline: float = 0.0
    """When to offer again, or to repeat the power command."""
    wake_until: float = 0.0
    offers: int = 0
    commanded: bool = False
    """We switched the board on for this lease, rather than found it coming up."""
    missing_since: float | None = None
    boot_id: str | None = None
    log_letters: int = 0
    boot: BootWait | None = None
    gate: GateWait | None = None
    together: bool = False
    """Of a group: offered when all of its boards are ready, and not before."""
    ready: bool = False
    """Its board came up, has given its boot slot away, and waits for the others."""
    ready_boot: str | None = None
    """The boot in which that was."""
    waits_for_room: bool = False
    """To be woken when there is room; until then it fills no boot slot."""
    env: dict[str, str] = field(default_factory=dict)
    """What the group adds to the environment."""
    watch: OutputWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = OutputWatch.of(self.job.spec)

    @property
    def wake_id(self) -> str:
        """Id of its power command: the same after our restart, so the agent does it once."""
        return f"wake-{self.board}-{self.token}"[:64] if len(self.board) < 40 else f"wake-{self.job.id}-{self.token}"


@dataclass(slots=True)
class Ledger:
    policy: Policy
    jobs: dict[str, Job] = field(default_factory=dict)
    """Jobs that have not ended."""
    held: dict[str, Held] = field(default_factory=dict)
    """Leases of jobs by board."""
    people: dict[str, PersonLease] = field(default_factory=dict)
    """Leases of people by board; changed by `broker.leases.person_leases` alone, as the two below."""
    asked: dict[int, PersonLease] = field(default_factory=dict)
    """People who wait, by number."""
    closing: dict[str, PersonLease] = field(default_factory=dict)
    """Boards that a person has done with, and that are still to be switched off."""
    tokens: dict[str, int] = field(default_factory=dict)
    benched: dict[str, float] = field(default_factory=dict)
    """Boards that failed to take work, and until when they are given none."""
    last_holder: dict[str, tuple[str, int]] = field(default_factory=dict)
    powering: dict[str, float] = field(default_factory=dict)
    """Boards whose lease ended while they were being switched on, and until when that may still take effect."""
    other_boots: dict[str, float] = field(default_factory=dict)
    """Boards that a job had boot something else, and when they are next asked to go back to their standing profile."""
    out_of_work: dict[str, str] = field(default_factory=dict)
    """Boards that take no work, and why; this and the three below are changed by `broker.health.desk` alone."""
    retired: set[str] = field(default_factory=set)
    """Boards that nobody is given, persons neither."""
    unhealthy: set[str] = field(default_factory=set)
    """Boards that failed too often."""
    checks: dict[int, str] = field(default_factory=dict)
    """Numbers of health jobs, and their boards: they wait in no line."""
    next_number: int = 1
    out: list[Action] = field(default_factory=list)
    _told: OrderedDict[tuple[str, str, int], None] = field(default_factory=OrderedDict)

    # --- queries ---------------------------------------------------------------------------------------------

    def queue(self) -> list[Job]:
        """Jobs that wait, most urgent first."""
        return sorted((job for job in self.jobs.values() if job.state is JobState.QUEUED), key=lambda job: job.urgency)

    def current(self, board: str, job: str, token: int) -> Held | None:
        """The lease that these three name, or None when it is not, or no longer, this one."""
        held = self.held.get(board)
        return held if held is not None and held.job.id == job and held.token == token else None

    def outcome_is_stored(self, board: str, job: str, token: int) -> bool:
        return (board, job, token) in self._told

    def remember_outcome(self, board: str, job: str, token: int) -> None:
        self._told[(board, job, token)] = None
        while len(self._told) > REMEMBERED_OUTCOMES:
            self._told.popitem(last=False)

    def benched_until(self, board: str, now: Moment) -> float | None:
        until = self.benched.get(board)
        if until is not None and until <= now.mono:
            del self.benched[board]
            return None
        return until

    def being_switched_on(self, now: Moment) -> set[str]:
        """Boards that may come up although no lease waits for them any more."""
        self.powering = {board: until for board, until in self.powering.items() if until > now.mono}
        return set(self.powering)

    # --- changes ---------------------------------------------------------------------------------------------

    def save(self, job: Job) -> None:
        self.out += [SaveJob(job), Announce(job.summary())]

    def lease(self, job: Job, board: str, now: Moment, lasts_s: float) -> Held:
        """Give the board to the job under a new token. The caller moves the job on and saves it."""
        token = self.tokens.get(board, 0) + 1
        self.tokens[board] = token
        held = Held(job, board, token, now.wall, now.mono + lasts_s)
        self.held[board] = held
        job.attempt += 1
        job.board, job.token, job.expires = board, token, now.after(lasts_s)
        self.out += [SaveToken(board, token), SaveAttempt(job.number, job.attempt, board, token, now.wall)]
        self.put_lease(held)
        self.tell(held, f"leased {board}, token {token}", now)
        return held

    def tell(self, held: Held, what: str, now: Moment) -> None:
        """Write a line of the job's timeline."""
        self.out.append(TimelineEntry(held.job.number, held.job.attempt, now.wall, what))

    def extend(self, held: Held, now: Moment, lasts_s: float) -> None:
        held.expires = now.mono + lasts_s
        held.job.expires = now.after(lasts_s)
        self.put_lease(held)

    def put_lease(self, held: Held) -> None:
        expires = held.job.expires
        if expires is not None:
            holder = f"{self.policy.name}/{held.job.id}"
            self.out.append(PutLease(held.board, held.token, holder, expires, since=held.began))

    def offer(self, held: Held, now: Moment) -> None:
        """Offer the work, for the first time or again; the token makes a repetition harmless."""
        job = held.job
        if held.together:
            held.ready = True
            return
        if job.state is not JobState.OFFERED:
            job.step(JobEvent.OFFER)
            job.reason = None
            held.missing_since = None
            self.extend(held, now, self.policy.offer_timeout_s * self.policy.max_offers + job.spec.timeout_s)
            self.save(job)
            self.tell(held, f"offered to {held.board}", now)
        held.offers += 1
        held.deadline = now.mono + self.policy.offer_timeout_s
        expires = now.after(self.policy.offer_timeout_s)
        steps = wire_steps(job.spec)
        artifacts = job.spec.artifacts.wish() if job.spec.artifacts is not None else None
        env = {**held.env, **job.spec.env}
        self.out.append(SendOffer(held.board, job.id, held.token, expires, job.spec.name, steps, env, artifacts))

    def accept(self, held: Held, boot_id: str | None, now: Moment) -> None:
        """The board has the job. Saying so twice changes nothing."""
        job = held.job
        if job.state is not JobState.OFFERED:
            return
        job.step(JobEvent.ACCEPT)
        held.boot_id, held.missing_since = boot_id, None
        job.started = now.wall
        self.extend(held, now, job.spec.timeout_s + LEASE_MARGIN_S + _artifacts_s(job))
        self.save(job)
        self.tell(held, f"{held.board} began to work", now)

    def outcome(self, held: Held, report: WorkOutcome, now: Moment) -> None:
        """The board says how it ended."""
        self.accept(held, held.boot_id, now)
        job = held.job
        job.steps = judged(job.spec, report, held.watch)
        self.remember_outcome(held.board, job.id, held.token)
        if report.outcome is Outcome.ERROR:
            self.fault(held, report.problem or "the board could not run it", now, report=report)
            return
        verdict = judge(job.spec, report, held.watch)
        if verdict.kind is Kind.FAULT:
            self.fault(held, verdict.reason or "", now, report=report)
            return
        self._close(held, verdict.kind.value, now, report)
        job.step(JobEvent.PASS if verdict.kind is Kind.PASSED else JobEvent.FAIL)
        self._end(job, verdict.reason, now)

    def fault(
        self, held: Held, why: str, now: Moment, *, report: WorkOutcome | None = None, bench: bool = True
    ) -> None:
        """The farm failed the job on this board: try again while attempts are left.

        `report` is the board's own word, where the fault is told by it. With `bench`, a board that did not take the
        work is given none for a while.
        """
        job = held.job
        ran = job.state is JobState.RUNNING
        job.run_faults += ran
        job.start_faults += not ran
        job.last_fault = f"attempt {job.attempt} on {held.board}: {why}"
        job.avoid.add(held.board)
        if not ran and bench:
            self.benched[held.board] = now.mono + self.policy.bench_s
        self._close(held, f"fault: {why}", now, report)
        if job.run_faults >= job.spec.attempts:
            self.give_up(job, f"{job.last_fault}; all {job.spec.attempts} attempts are used", now)
        elif job.start_faults >= MAX_START_FAULTS:
            self.give_up(job, f"{job.last_fault}; {MAX_START_FAULTS} boards in a row did not take it", now)
        else:
            _again(job)
            job.board = job.token = job.expires = None
            job.started = None
            job.reason = job.last_fault
            self.save(job)

    def withdraw(self, held: Held, why: str, now: Moment) -> None:
        """Take the board back without blame; the job waits again."""
        job = held.job
        if job.state in (JobState.OFFERED, JobState.RUNNING):
            self.stop(held, why)
        self._close(held, f"withdrawn: {why}", now)
        _again(job)
        job.board = job.token = job.expires = job.started = None
        job.reason = why
        self.save(job)

    def end(self, job: Job, event: JobEvent, reason: str | None, now: Moment) -> None:
        """End a job that was never leased itself: a group's."""
        job.step(event)
        self._end(job, reason, now)

    def give_back(self, held: Held, why: str, now: Moment) -> None:
        """The job is wrong and would be on any board; the board is free again."""
        self._close(held, f"refused: {why}", now)
        self.give_up(held.job, why, now)

    def stop(self, held: Held, why: str) -> None:
        """Tell the board to end the job. It is told again if it shows that it did not hear."""
        self.out.append(SendStop(held.board, held.job.id, held.token, why))

    def overran(self, held: Held, now: Moment) -> None:
        why = f"ran longer than its timeout_s of {held.job.spec.timeout_s:g} s"
        self.stop(held, why)
        self._close(held, "timeout", now)
        self.give_up(held.job, why, now)

    def cancel(self, job: Job, now: Moment) -> None:
        held = self.held.get(job.board) if job.board is not None else None
        if held is not None:
            if job.state in (JobState.OFFERED, JobState.RUNNING):
                self.stop(held, "cancelled")
            self._close(held, "cancelled", now)
        job.step(JobEvent.CANCEL)
        self._end(job, "cancelled", now)

    def give_up(self, job: Job, why: str, now: Moment) -> None:
        job.step(JobEvent.GIVE_UP)
        self._end(job, why, now)

    def _close(self, held: Held, result: str, now: Moment, report: WorkOutcome | None = None) -> None:
        job = held.job
        closed = SaveAttempt(
            job.number,
            job.attempt,
            held.board,
            held.token,
            held.began,
            now.wall,
            result,
            told=report is not None,
            log_chunks=report.log_chunks if report is not None else None,
        )
        self.out.append(closed)
        self.tell(held, f"{held.board} ended: {result}", now)
        self._release(held, now)

    def _release(self, held: Held, now: Moment) -> None:
        del self.held[held.board]
        if held.commanded and held.job.state is JobState.WAKING:
            self.powering[held.board] = now.mono + self.policy.power_timeout_s
        self.last_holder[held.board] = (held.job.id, held.token)
        self.out.append(ClearLease(held.board))

    def _end(self, job: Job, reason: str | None, now: Moment) -> None:
        job.reason, job.ended, job.expires = reason, now.wall, None
        del self.jobs[job.id]
        self.save(job)


def _again(job: Job) -> None:
    """One of a group, whose board waits for room to wake, is queued still."""
    if job.state is not JobState.QUEUED:
        job.step(JobEvent.RETRY)


def _artifacts_s(job: Job) -> float:
    """What sending its artifacts may take, in seconds."""
    wish = job.spec.artifacts
    return 60.0 + wish.wish().max_bytes / ARTIFACT_BYTES_PER_S if wish is not None else 0.0
