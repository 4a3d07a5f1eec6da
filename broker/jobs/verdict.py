"""What counts as success: step results and the job's output in, the verdict out. Pure.

Patterns are text with `*` for anything within a line, not regular expressions: a line is looked at once, whatever a
user or a board makes up, and the broker's loop never waits for a pattern.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from broker.jobs.lava_signals import SIGNAL, Signals
from broker.jobs.spec import JobSpec
from broker.jobs.steps import BRING_NAME, bring_count
from wire.payloads import StepResult, WorkOutcome
from wire.phases import Outcome

# A line that never ends is looked at in parts of this size; a pattern across two of them is not found.
MAX_LINE_LETTERS = 64 * 1024


@dataclass(slots=True)
class _Sought:
    """A pattern; `step` is None for the whole job's output."""

    written: str
    step: str | None
    wanted: bool
    parts: tuple[str, ...] = ()
    found: bool = False

    def look(self, text: str) -> None:
        """Look through whole lines."""
        if self.parts[0] not in text:
            return
        self.found = len(self.parts) == 1 or any(self._in_line(line) for line in text.split("\n"))

    def _in_line(self, line: str) -> bool:
        at = 0
        for part in self.parts:
            at = line.find(part, at)
            if at < 0:
                return False
            at += len(part)
        return True


@dataclass(slots=True)
class OutputWatch:
    """Looks for a job's patterns in its output while that comes in. `next_seq` is the piece of log that comes next."""

    next_seq: int = 0
    missing: int = 0
    """Pieces that never came."""
    signals: Signals | None = None
    """The test cases that the output tells, where the job has LAVA's programs."""
    _sought: list[_Sought] = field(default_factory=list)
    _line: str = ""
    _step: str | None = None

    @classmethod
    def of(cls, spec: JobSpec) -> "OutputWatch":
        sought = [_Sought(pattern, None, wanted=True) for pattern in spec.success.output]
        sought += [_Sought(pattern, None, wanted=False) for pattern in spec.success.not_output]
        for name, step in zip(spec.step_names(), spec.steps, strict=True):
            sought += [_Sought(pattern, name, wanted=True) for pattern in step.output]
        for one in sought:
            one.parts = tuple(part for part in one.written.split("*") if part)
        return cls(_sought=sought, signals=Signals() if spec.with_lava else None)

    @property
    def idle(self) -> bool:
        """There is nothing to look for."""
        return not self._sought and self.signals is None

    def feed(self, seq: int, step: str | None, text: str) -> None:
        """A piece of log. One that came already is passed over."""
        if seq < self.next_seq:
            return
        self.missing += seq - self.next_seq
        self.next_seq = seq + 1
        if self.idle:
            return
        if step != self._step:
            self.flush()
            self._step = step
        whole, newline, rest = (self._line + text).rpartition("\n")
        self._line = rest
        if newline:
            self._look(whole)
        if len(self._line) > MAX_LINE_LETTERS:
            self.flush()

    def flush(self) -> None:
        """What stands there is a whole line: nothing more follows."""
        line, self._line = self._line, ""
        if line:
            self._look(line)

    def _look(self, text: str) -> None:
        if step_of_ours(self._step):
            return
        if self.signals is not None and SIGNAL in text:
            for line in text.split("\n"):
                self.signals.look(line)
        for sought in self._sought:
            if not sought.found and sought.step in (None, self._step):
                sought.look(text)

    def not_found(self, step: str | None) -> list[str]:
        return [one.written for one in self._sought if one.wanted and one.step == step and not one.found]

    def unwanted(self) -> list[str]:
        return [one.written for one in self._sought if not one.wanted and one.found]


def step_of_ours(name: str | None) -> bool:
    return name == BRING_NAME


class Kind(Enum):
    """How a job ended that the board could run."""

    PASSED = "passed"
    FAILED = "failed"
    FAULT = "fault"
    """Not the job but the farm: it may be tried again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    kind: Kind
    reason: str | None = None


def passed(result: StepResult, exit_codes: Iterable[int] = (0,)) -> bool:
    """Whether a step of these allowed exit codes has passed."""
    return result.problem is None and result.exit_code is not None and result.exit_code in set(exit_codes)


def what_failed(result: StepResult) -> str:
    return f"{result.name}: " + (result.problem or f"exit code {result.exit_code}")


def judged(spec: JobSpec, report: WorkOutcome, watch: OutputWatch) -> list[StepResult]:
    """The results, each with whether it has passed."""
    watch.flush()
    ours = bring_count(spec)
    made = [result.model_copy(update={"passed": passed(result)}) for result in report.steps[:ours]]
    own = list(zip(report.steps[ours:], spec.step_names(), spec.steps, strict=False))
    for result, name, step in own:
        good = passed(result, step.exit_codes) and not watch.not_found(name)
        made.append(result.model_copy(update={"passed": good}))
    told = watch.signals.cases if watch.signals is not None else []
    return made + list(report.steps[ours + len(own) :]) + told


def judge(spec: JobSpec, report: WorkOutcome, watch: OutputWatch) -> Verdict:
    """The verdict on an outcome that is not `error`. A board that tells no steps is believed."""
    watch.flush()
    ours = bring_count(spec)
    bringing, own = report.steps[:ours], report.steps[ours:]
    for result in bringing:
        if not passed(result):
            return Verdict(Kind.FAULT, f"the files could not be brought: {what_failed(result)}")
    reasons: list[str] = []
    required = spec.success.steps
    for n, (name, step) in enumerate(zip(spec.step_names(), spec.steps, strict=True)):
        if (required is not None and name not in required) or not report.steps:
            continue
        if n >= len(own):
            reasons.append(f"{name}: the board told nothing of it")
        elif not passed(own[n], step.exit_codes):
            reasons.append(what_failed(own[n]))
        elif missing := watch.not_found(name):
            reasons.append(f"{name}: its output lacks {missing[0]!r}")
    if not report.steps and report.outcome is not Outcome.PASSED:
        reasons.append(report.problem or "the board says that it failed")
    by_output = not reasons
    if watch.signals is not None and (failure := watch.signals.failure()) is not None:
        reasons.append(failure)
    reasons += [f"the output lacks {pattern!r}" for pattern in watch.not_found(None)]
    reasons += [f"the output holds {pattern!r}" for pattern in watch.unwanted()]
    lost = watch.missing + max(0, report.log_chunks - watch.next_seq)
    if not watch.idle and lost and by_output and not watch.unwanted():
        return Verdict(Kind.FAULT, f"{lost} pieces of its output were lost, so it cannot be judged by it")
    return Verdict(Kind.FAILED, reasons[0]) if reasons else Verdict(Kind.PASSED)
