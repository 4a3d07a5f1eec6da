"""A job's life: the table of its states, and the record the scheduler keeps of it.

The table is the whole truth about which change may follow which; nothing else sets `Job.state`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from broker.jobs.spec import JobSpec
from broker.matching.assignment import Needs
from wire.payloads import MAX_TEXT, JobSummary, StepResult
from wire.phases import JobState

# A summary of 200 steps must fit one MQTT payload; the whole text of a problem stands in the log.
SHOWN_PROBLEM_LETTERS = 200


class JobEvent(StrEnum):
    """What can happen to a job."""

    WAKE = "wake"
    """A board that is not up yet was leased for it."""
    OFFER = "offer"
    """A leased board is ready and the work is offered to it."""
    ACCEPT = "accept"
    PASS = "pass"  # noqa: S105  # an event, no secret
    FAIL = "fail"
    RETRY = "retry"
    """The farm failed it and attempts are left."""
    GIVE_UP = "give-up"
    """The farm failed it for good, or its time is over."""
    CANCEL = "cancel"


_TABLE: dict[JobState, dict[JobEvent, JobState]] = {
    JobState.QUEUED: {
        JobEvent.WAKE: JobState.WAKING,
        JobEvent.OFFER: JobState.OFFERED,
        JobEvent.GIVE_UP: JobState.ERROR,
        JobEvent.CANCEL: JobState.CANCELLED,
    },
    JobState.WAKING: {
        JobEvent.OFFER: JobState.OFFERED,
        JobEvent.RETRY: JobState.QUEUED,
        JobEvent.GIVE_UP: JobState.ERROR,
        JobEvent.CANCEL: JobState.CANCELLED,
    },
    JobState.OFFERED: {
        JobEvent.ACCEPT: JobState.RUNNING,
        JobEvent.RETRY: JobState.QUEUED,
        JobEvent.GIVE_UP: JobState.ERROR,
        JobEvent.CANCEL: JobState.CANCELLED,
    },
    JobState.RUNNING: {
        JobEvent.PASS: JobState.PASSED,
        JobEvent.FAIL: JobState.FAILED,
        JobEvent.RETRY: JobState.QUEUED,
        JobEvent.GIVE_UP: JobState.ERROR,
        JobEvent.CANCEL: JobState.CANCELLED,
    },
    JobState.PASSED: {},
    JobState.FAILED: {},
    JobState.ERROR: {},
    JobState.CANCELLED: {},
}
TABLE: Mapping[JobState, Mapping[JobEvent, JobState]] = MappingProxyType(_TABLE)


class JobStateError(Exception):
    """The scheduler asked for a change that the table does not have: a defect of ours, never of a message."""


@dataclass(slots=True)
class Job:
    """One job. `attempt` counts leases taken for it; the two fault counters count how the farm failed it: before a
    board had accepted it, and after."""

    number: int
    spec: JobSpec
    submitted: datetime
    state: JobState = JobState.QUEUED
    board: str | None = None
    token: int | None = None
    expires: datetime | None = None
    """End of its lease."""
    attempt: int = 0
    start_faults: int = 0
    run_faults: int = 0
    reason: str | None = None
    last_fault: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    steps: list[StepResult] = field(default_factory=list)
    avoid: set[str] = field(default_factory=set)
    submitter: str = ""
    """Who handed it in, for fairness; empty when nobody said."""
    group: int | None = None
    """The number of the group's own job, of that job and of all its members."""
    needs: Needs = field(init=False)

    def __post_init__(self) -> None:
        self.needs = Needs(self.spec.board, self.spec.wants(), boots=self.spec.boot is not None)

    @property
    def id(self) -> str:
        return f"job-{self.number}"

    @property
    def urgency(self) -> tuple[int, int]:
        """Sort key of the queue: higher priority first, then the older one."""
        return (-self.spec.priority, self.number)

    def step(self, event: JobEvent) -> None:
        """Change state by the table.

        Raises:
            JobStateError: the table has no such change.
        """
        after = TABLE[self.state].get(event)
        if after is None:
            raise JobStateError(f"{self.id} is {self.state.value} and cannot {event.value}")
        self.state = after

    def summary(self) -> JobSummary:
        """The job as it is shown to people."""
        return JobSummary(
            job=self.id,
            name=self.spec.name,
            state=self.state,
            board=self.board,
            attempt=self.attempt,
            priority=self.spec.priority,
            reason=self.reason[:MAX_TEXT] if self.reason else None,
            submitted=self.submitted,
            started=self.started,
            ended=self.ended,
            steps=[_clipped(step) for step in self.steps],
        )


def _clipped(step: StepResult) -> StepResult:
    if step.problem is None or len(step.problem) <= SHOWN_PROBLEM_LETTERS:
        return step
    return step.model_copy(update={"problem": step.problem[: SHOWN_PROBLEM_LETTERS - 1] + "…"})


def job_number(job: str) -> int | None:
    """The number in `job-12`, or None if it is no id of a job of ours."""
    head, _, digits = job.partition("-")
    ours = head == "job" and digits.isascii() and digits.isdigit() and len(digits) <= 15 and digits[0] != "0"
    return int(digits) if ours else None
