"""Whether a board is trusted with work: the table of its states, the farm's rules, and the record of one board.

The table is the whole truth about which change may follow which; nothing else sets `Record.state`. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from broker.jobs.labels import LabelValue, Want
from broker.jobs.spec import JobSpec

MOST_EVIDENCE = 5
MAX_TAIL_LETTERS = 2000
KEPT_BOOTS = 20


class Health(StrEnum):
    """How far a board is trusted."""

    TRAINING = "training"
    """It is booted cold, again and again, before anything is run on it."""
    DUE = "due"
    """Its health job is to run before anything else does."""
    CHECKING = "checking"
    TRUSTED = "trusted"
    FAULT = "fault"
    """It failed too often; only a person brings it back."""
    RETIRED = "retired"
    """A person took it out for good."""

    @property
    def takes_work(self) -> bool:
        return self is Health.TRUSTED


class HealthEvent(StrEnum):
    """What can happen to a board's trust."""

    BOOTED = "booted"
    """All its cold boots in a row came up."""
    BEGIN = "begin"
    """Its health job has the board."""
    PASS = "pass"  # noqa: S105  # an event, no secret
    FAIL = "fail"
    """Once more; not too often yet."""
    GIVE_UP = "give-up"
    """Failed too often."""
    ASK = "ask"
    """Its time has come, it was in fault, or a person wants to know."""
    ACCEPT = "accept"
    """A person trusts it."""
    RETIRE = "retire"


_ANYWHERE = {HealthEvent.ACCEPT: Health.TRUSTED, HealthEvent.RETIRE: Health.RETIRED}
_TABLE: dict[Health, dict[HealthEvent, Health]] = {
    Health.TRAINING: {
        **_ANYWHERE,
        HealthEvent.BOOTED: Health.DUE,
        HealthEvent.FAIL: Health.TRAINING,
        HealthEvent.GIVE_UP: Health.FAULT,
        HealthEvent.ASK: Health.TRAINING,
    },
    Health.DUE: {
        **_ANYWHERE,
        HealthEvent.BEGIN: Health.CHECKING,
        HealthEvent.ASK: Health.DUE,
    },
    Health.CHECKING: {
        **_ANYWHERE,
        HealthEvent.PASS: Health.TRUSTED,
        HealthEvent.FAIL: Health.DUE,
        HealthEvent.GIVE_UP: Health.FAULT,
        HealthEvent.ASK: Health.CHECKING,
    },
    Health.TRUSTED: {**_ANYWHERE, HealthEvent.ASK: Health.DUE},
    Health.FAULT: {**_ANYWHERE, HealthEvent.ASK: Health.DUE},
    Health.RETIRED: {HealthEvent.ACCEPT: Health.TRUSTED},
}
TABLE: Mapping[Health, Mapping[HealthEvent, Health]] = MappingProxyType(_TABLE)


class HealthError(Exception):
    """A change that the table does not have."""


@dataclass(frozen=True, slots=True)
class HealthRule:
    """What boards have to do to be trusted. The first rule that fits a board holds for it."""

    spec: JobSpec
    """Its health job; names no board."""
    wants: tuple[Want, ...] = ()
    boards: frozenset[str] = frozenset()
    """Empty: whatever has the labels."""
    every_s: float | None = None
    """A trusted board is checked again after so long."""
    on_new: bool = True
    on_fault: bool = True
    limit: int = 3
    """So many failures in a row, and it goes to fault."""
    train_boots: int = 0
    """A new board is first booted cold so many times in a row."""
    retry_s: float = 60.0

    def fits(self, board: str, labels: Mapping[str, LabelValue]) -> bool:
        """Whether the rule is for this board."""
        return (not self.boards or board in self.boards) and all(want.met_by(labels) for want in self.wants)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One failure."""

    at: datetime
    why: str
    job: str | None = None
    log: str = ""
    """The last lines that its health job printed."""
    diagnosis: str = ""
    """What its agent says of the boot."""


@dataclass(slots=True)
class Record:
    """One board. `failures` counts those in a row; `boots_s` are its measured cold boots of the training."""

    board: str
    state: Health
    since: datetime
    failures: int = 0
    boots_s: list[float] = field(default_factory=list)
    passed: datetime | None = None
    job: str | None = None
    """The health job that runs, or ran last."""
    why: str = ""
    evidence: list[Evidence] = field(default_factory=list)

    def step(self, event: HealthEvent, now: datetime, why: str = "") -> None:
        """Change state by the table.

        Raises:
            HealthError: the table has no such change.
        """
        after = TABLE[self.state].get(event)
        if after is None:
            raise HealthError(f"{self.board} is {self.state.value} and cannot {event.value}")
        if after is not self.state:
            self.since = now
        self.state, self.why = after, why
        if after is Health.TRUSTED:
            self.failures, self.passed, self.evidence = 0, now, []
        elif event is HealthEvent.ASK:
            self.failures = 0

    def failed(self, evidence: Evidence, limit: int, now: datetime) -> None:
        """It failed once more: again, or fault."""
        self.failures += 1
        self.evidence = [*self.evidence, evidence][-MOST_EVIDENCE:]
        event = HealthEvent.GIVE_UP if self.failures >= limit else HealthEvent.FAIL
        self.step(event, now, evidence.why)

    def diagnosed(self, diagnosis: str) -> None:
        """Its agent knows more of the last failure."""
        if self.evidence and diagnosis:
            last = self.evidence[-1]
            self.evidence[-1] = Evidence(last.at, last.why, last.job, last.log, diagnosis[:MAX_TAIL_LETTERS])

    def why_not(self, rule: HealthRule | None) -> str | None:
        """Why the board takes no work, or None."""
        match self.state:
            case Health.TRAINING:
                wanted = rule.train_boots if rule is not None else 0
                return f"training: {len(self.boots_s)} of {wanted} cold boots in a row came up"
            case Health.DUE:
                return f"a health job comes first ({self.why})" if self.why else "a health job comes first"
            case Health.CHECKING:
                return f"health job {self.job} has it"
            case Health.FAULT:
                return (
                    f"failed its health checks {self.failures} times ({self.why}); see 'boardhand board {self.board}'"
                )
            case Health.RETIRED:
                return "is retired"
            case _:
                return None
