"""The work of a board without a client, as its agent says it for the board: every decision, no I/O and no clock.

It says on `board/<board>/work/result` what the client on a board would say, so the broker knows no difference. Whether
the board is there at all, its owner decides (`agent.console_steps`); how far its work is stands in `steps_table.WORK`.
A result is made before it is needed: what is stored while a step runs is what is to be reported if the agent is killed
in it.
"""

import codecs
from collections import deque
from dataclasses import dataclass, field

from agent.console.steps_table import (
    WORK,
    Action,
    Announce,
    JobOver,
    Keep,
    KillStep,
    Obey,
    Report,
    RunStep,
    Word,
    Work,
)
from wire.payloads import (
    BoardOrder,
    Step,
    StepResult,
    WorkAccept,
    WorkAck,
    WorkArtifact,
    WorkAsk,
    WorkLog,
    WorkMessage,
    WorkOffer,
    WorkOutcome,
    WorkStop,
)
from wire.phases import Outcome

ASK_AGAIN_S = 30.0
"""The broker may have been away when we asked."""
OUTCOME_AGAIN_S = 5.0
"""A lost outcome holds the board's lease."""
LOG_CHUNK_CHARACTERS = 8192
LOG_DELAY_S = 0.5
"""Someone may be reading along."""
MAX_LOG_BACKLOG = 512
"""Pieces kept while the MQTT server is away: 4 MiB of each board."""
REMEMBERED_OUTCOMES = 16
NO_ARTIFACTS = "artifacts need a client on the board; this one's steps ran on its console"


@dataclass(slots=True)
class _Job:
    offer: WorkOffer
    results: list[StepResult] = field(default_factory=list)
    failed: StepResult | None = None
    error: bool = False
    """A step could not be run, or was ended."""
    stopped: str = ""
    log_seq: int = 0
    lost_characters: int = 0
    outcome: WorkOutcome | None = None

    @property
    def key(self) -> tuple[str, int]:
        return (self.offer.job, self.offer.token)

    @property
    def step(self) -> Step:
        return self.offer.steps[min(len(self.results), len(self.offer.steps) - 1)]


class StepsSession:
    """One boot of a board that is there. The owner tells what it heard, does what `take` gives, and publishes what
    `outgoing` gives, one by one, with `sent` after each acknowledgement."""

    def __init__(self, boot_id: str) -> None:
        self.boot_id = boot_id
        self.work = Work.IDLE
        self._now = 0.0
        self._due: float | None = None
        self._job: _Job | None = None
        self._out: list[Action] = []
        self._reports: deque[Report] = deque()
        self._finished: dict[tuple[str, int], WorkOutcome] = {}
        self._offered: WorkOffer | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._text_since: float | None = None

    # --- what the owner asks --------------------------------------------------------------------------------------

    def take(self) -> list[Action]:
        actions, self._out = self._out, []
        return actions

    def outgoing(self) -> Report | None:
        return self._reports[0] if self._reports else None

    def sent(self, report: Report) -> None:
        """`report` was acknowledged; it may have been dropped meanwhile."""
        if self._reports and self._reports[0] is report:
            self._reports.popleft()

    def deadline(self) -> float | None:
        """When `tick` is wanted."""
        flush = None if self._text_since is None else self._text_since + LOG_DELAY_S
        return min((at for at in (self._due, flush) if at is not None), default=None)

    # --- what the owner tells -------------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """The MQTT server is there (again): everything is said anew but the log, which has waited."""
        self._now = now
        logs = [report for report in self._reports if isinstance(report, WorkLog | WorkArtifact)]
        self._reports.clear()
        self._announce()
        if self.work in (Work.RUNNING, Work.STOPPING):
            self._accept()
        self._reports.extend(logs)
        self._repeat()

    def tick(self, now: float) -> None:
        self._now = now
        if self._text_since is not None and now >= self._text_since + LOG_DELAY_S:
            self._flush()
        if self._due is not None and now >= self._due:
            self._due = None
            self._repeat()

    def heard(self, message: WorkMessage, now: float) -> None:
        """A message on `board/<board>/work` that is not retained."""
        self._now = now
        match message:
            case WorkOffer():
                self._take_offer(message)
            case WorkStop() if self._is_ours(message):
                self._running().stopped = f"stopped: {message.reason or 'no reason given'}"
                self._on(Word.STOP)
            case WorkAck() if self._is_ours(message):
                self._on(Word.TAKEN if message.ok else Word.REFUSED)
            case BoardOrder():
                self._out.append(Obey(message))
            case _:
                pass  # of a job that is not ours any more

    def output(self, data: bytes, now: float) -> None:
        """Output of the running step."""
        self._now = now
        if self.work not in (Work.RUNNING, Work.STOPPING):
            return
        self._text += self._decoder.decode(data)
        self._text_since = now if self._text_since is None else self._text_since
        while len(self._text) >= LOG_CHUNK_CHARACTERS:
            self._cut(LOG_CHUNK_CHARACTERS)
        if not self._text:
            self._text_since = None

    def step_ended(self, exit_code: int | None, problem: str, took_s: float, now: float, *, timed_out: bool) -> None:
        """The running step is over. `exit_code` is None when it did not come to its own end; `problem` says why."""
        self._now = now
        if self._job is None:
            return
        job, step = self._job, self._job.step
        self._text += self._decoder.decode(b"", final=True)
        self._decoder.reset()
        self._flush()
        problem = job.stopped or problem
        code = None if problem else exit_code
        result = StepResult(name=step.name, took_s=round(took_s, 3), exit_code=code, problem=problem[:4096] or None)
        job.results.append(result)
        passed = not problem and code in (step.exit_codes or [0])
        if not passed:
            job.failed = job.failed or result
            job.error |= bool(job.stopped) or (code is None and not timed_out)
        goes_on = passed or (step.continue_on_fail and not job.error)
        self._on(Word.PASSED if goes_on and len(job.results) < len(job.offer.steps) else Word.OVER)

    def end(self, why: str, now: float) -> WorkOutcome | None:
        """The boot is over: `why`. Returns what is to be said of a job that was under way."""
        self._now = now
        if self._job is None or self.work is Work.DROPPING:
            return None
        if self.work is Work.DONE:
            return self._job.outcome
        return self._interrupted(self._job, why)

    # --- decisions ------------------------------------------------------------------------------------------------

    def _is_ours(self, message: WorkStop | WorkAck) -> bool:
        return self._job is not None and (message.job, message.token) == self._job.key

    def _take_offer(self, offer: WorkOffer) -> None:
        self._offered = offer
        key = (offer.job, offer.token)
        if self._job is not None and key == self._job.key:
            self._on(Word.SAME)
        else:
            self._on(Word.OLD if key in self._finished else Word.OFFER)

    def _on(self, word: Word) -> None:
        what, self.work = WORK.get((self.work, word), ("", self.work))
        if what:
            getattr(self, f"_{what}")()

    def _running(self) -> _Job:
        if self._job is None:
            raise LookupError(f"there is no job in state {self.work}")
        return self._job

    def _begin(self) -> None:
        if self._offered is None:
            raise LookupError("nothing was offered")
        self._job, self._due = _Job(self._offered), None
        self._accept()
        self._announce()
        self._next()

    def _accept(self) -> None:
        offer = self._running().offer
        self._reports.append(WorkAccept(job=offer.job, token=offer.token, boot_id=self.boot_id))

    def _next(self) -> None:
        job = self._running()
        self._out.append(Keep(self._interrupted(job, f"the agent was stopped while step {job.step.name} ran")))
        self._out.append(RunStep(job.offer, job.step, first=not job.results))

    def _kill(self) -> None:
        self._out.append(KillStep(self._running().stopped or "the job is not this board's any more"))

    def _finish(self) -> None:
        job = self._running()
        self._note_lost(job)
        last, failed = job.results[-1], job.failed
        for step in job.offer.steps[len(job.results) :]:
            job.results.append(StepResult(name=step.name, problem=f"not run: step {last.name} did not pass"))
        if job.offer.artifacts is not None:
            for n, path in enumerate(job.offer.artifacts.paths):
                self._reports.append(
                    WorkArtifact(
                        job=job.offer.job, token=job.offer.token, n=n, name=path, offset=0, problem=NO_ARTIFACTS
                    )
                )
        outcome = Outcome.FAILED if failed else Outcome.PASSED
        problem = None if failed is None or failed.problem is None else f"step {failed.name}: {failed.problem}"
        if job.stopped or job.error:
            outcome, problem = Outcome.ERROR, problem or job.stopped
        job.outcome = self._outcome(job, outcome, problem)
        self._remember(job)
        self._out += [Keep(job.outcome), JobOver()]
        self._report()

    def _outcome(self, job: _Job, outcome: Outcome, problem: str | None) -> WorkOutcome:
        return WorkOutcome(
            job=job.offer.job,
            token=job.offer.token,
            outcome=outcome,
            steps=list(job.results),
            problem=None if problem is None else problem[:4096],
            log_chunks=job.log_seq,
        )

    def _interrupted(self, job: _Job, why: str) -> WorkOutcome:
        return self._outcome(job, Outcome.ERROR, why)

    def _drop(self) -> None:
        job = self._running()
        job.outcome = self._outcome(job, Outcome.ERROR, "dropped: the token was old")
        self._remember(job)
        self._out.append(JobOver())
        self._forget()

    def _remember(self, job: _Job) -> None:
        if job.outcome is not None:
            self._finished[job.key] = job.outcome
        if len(self._finished) > REMEMBERED_OUTCOMES:
            del self._finished[next(iter(self._finished))]

    def _report(self) -> None:
        outcome = self._running().outcome
        if outcome is not None:
            self._reports.append(outcome)
        self._due = self._now + OUTCOME_AGAIN_S

    def _report_again(self) -> None:
        if self._offered is not None:
            self._reports.append(self._finished[self._offered.job, self._offered.token])

    def _forget(self) -> None:
        self._job, self._text, self._text_since = None, "", None
        self._reports.clear()
        self._out.append(Keep(None))
        self._announce()
        self._repeat()

    def _repeat(self) -> None:
        if self.work is Work.IDLE:
            self._reports.append(WorkAsk(boot_id=self.boot_id))
            self._due = self._now + ASK_AGAIN_S
        elif self.work is Work.DONE:
            self._report()

    def _announce(self) -> None:
        work = None if self._job is None or self.work is Work.IDLE else self._job.offer.job
        self._out.append(Announce(work))

    # --- the log --------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._text:
            self._cut(len(self._text))
        self._text_since = None

    def _cut(self, length: int) -> None:
        piece, self._text = self._text[:length], self._text[length:]
        self._text_since = self._now if self._text else None
        job = self._running()
        if len(self._reports) >= MAX_LOG_BACKLOG:
            job.lost_characters += len(piece)
            return
        self._note_lost(job)
        self._log(job, piece)

    def _note_lost(self, job: _Job) -> None:
        if job.lost_characters:
            lost, job.lost_characters = job.lost_characters, 0
            self._log(job, f"\n[boardhand: {lost} characters of output lost, the server was away]\n")

    def _log(self, job: _Job, text: str) -> None:
        offer = job.offer
        self._reports.append(WorkLog(job=offer.job, token=offer.token, seq=job.log_seq, text=text, step=job.step.name))
        job.log_seq += 1
