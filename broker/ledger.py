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
)
from broker.job import Job, JobEvent
from wire.payloads import StepResult, WorkOutcome
from wire.phases import JobState, Outcome

# Boards that never came up cost no attempt of the job, but a farm where five in a row fail is not worth a sixth boot.
MAX_START_FAULTS = 5
# The board's own step timeouts end a job; the lease outlasts them by the time an outcome may need to arrive.
LEASE_MARGIN_S = 30.0
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
    lost_grace_s: float = 60.0
    absent_grace_s: float = 15.0
    bench_s: float = 120.0
    max_queued: int = 10_000


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
    """Leases by board."""
    tokens: dict[str, int] = field(default_factory=dict)
    benched: dict[str, float] = field(default_factory=dict)
    """Boards that failed to take work, and until when they are given none."""
    last_holder: dict[str, tuple[str, int]] = field(default_factory=dict)
    powering: dict[str, float] = field(default_factory=dict)
    """Boards whose lease ended while they were being switched on, and until when that may still take effect."""
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
        return held

    def extend(self, held: Held, now: Moment, lasts_s: float) -> None:
        held.expires = now.mono + lasts_s
        held.job.expires = now.after(lasts_s)
        self.put_lease(held)

    def put_lease(self, held: Held) -> None:
        expires = held.job.expires
        if expires is not None:
            self.out.append(PutLease(held.board, held.token, f"{self.policy.name}/{held.job.id}", expires))

    def offer(self, held: Held, now: Moment) -> None:
        """Offer the work, for the first time or again; the token makes a repetition harmless."""
        job = held.job
        if job.state is not JobState.OFFERED:
            job.step(JobEvent.OFFER)
            job.reason = None
            held.missing_since = None
            self.extend(held, now, self.policy.offer_timeout_s * self.policy.max_offers + job.spec.timeout_s)
            self.save(job)
        held.offers += 1
        held.deadline = now.mono + self.policy.offer_timeout_s
        expires = now.after(self.policy.offer_timeout_s)
        steps = job.spec.wire_steps()
        self.out.append(SendOffer(held.board, job.id, held.token, expires, job.spec.name, steps, dict(job.spec.env)))

    def accept(self, held: Held, boot_id: str | None, now: Moment) -> None:
        """The board has the job. Saying so twice changes nothing."""
        job = held.job
        if job.state is not JobState.OFFERED:
            return
        job.step(JobEvent.ACCEPT)
        held.boot_id, held.missing_since = boot_id, None
        job.started = now.wall
        self.extend(held, now, job.spec.timeout_s + LEASE_MARGIN_S)
        self.save(job)

    def outcome(self, held: Held, report: WorkOutcome, now: Moment) -> None:
        """The board says how it ended."""
        self.accept(held, held.boot_id, now)
        job = held.job
        job.steps = list(report.steps)
        self.remember_outcome(held.board, job.id, held.token)
        if report.outcome is Outcome.ERROR:
            self.fault(held, report.problem or "the board could not run it", now, report=report)
            return
        self._close(held, report.outcome.value, now, report)
        job.step(JobEvent.PASS if report.outcome is Outcome.PASSED else JobEvent.FAIL)
        self._end(job, report.problem or _failed_step(report.steps), now)

    def fault(self, held: Held, why: str, now: Moment, *, report: WorkOutcome | None = None) -> None:
        """The farm failed the job on this board: try again while attempts are left.

        `report` is the board's own word, where the fault is told by it.
        """
        job = held.job
        ran = job.state is JobState.RUNNING
        job.run_faults += ran
        job.start_faults += not ran
        job.last_fault = f"attempt {job.attempt} on {held.board}: {why}"
        job.avoid.add(held.board)
        if not ran:
            self.benched[held.board] = now.mono + self.policy.bench_s
        self._close(held, f"fault: {why}", now, report)
        if job.run_faults >= job.spec.attempts:
            self.give_up(job, f"{job.last_fault}; all {job.spec.attempts} attempts are used", now)
        elif job.start_faults >= MAX_START_FAULTS:
            self.give_up(job, f"{job.last_fault}; {MAX_START_FAULTS} boards in a row did not take it", now)
        else:
            job.step(JobEvent.RETRY)
            job.board = job.token = job.expires = None
            job.started = None
            job.reason = job.last_fault
            self.save(job)

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
            if job.state is not JobState.WAKING:
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


def _failed_step(steps: list[StepResult]) -> str | None:
    for step in steps:
        if step.problem or step.exit_code:
            return f"{step.name}: " + (step.problem or f"exit code {step.exit_code}")
    return None
