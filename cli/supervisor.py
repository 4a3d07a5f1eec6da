"""Which child process of `boardhand up` is started, stopped or killed when: a core without processes or clock.

Two rules. A child that ends by itself is started again after a pause that doubles with each quick end; one that ends
because of its settings, or that never lived, ends everything. Stopping goes by stages, the highest first, so that
the daemons can still say goodbye to the MQTT server.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

PAUSE_FIRST_S = 0.5
PAUSE_MOST_S = 30.0
STEADY_S = 60.0  # a child that lived this long is healthy: its next end is a new story
QUICK_ENDS_MOST = 6  # about 15 s of trying; a child that never lives longer will not do so by itself
EXIT_SETTINGS = 2  # by contract of our daemons: bad settings, the same at every start


class State(StrEnum):
    """Where a child is."""

    WAITING = "waiting"
    """To be started when its pause is over."""
    RUNNING = "running"
    STOPPING = "stopping"
    """Was sent SIGTERM."""
    KILLED = "killed"
    """Was sent SIGKILL."""
    ENDED = "ended"
    """Ended, and will not be started again."""


class Trigger(StrEnum):
    """What can happen to a child."""

    DUE = "due"
    EXITED = "exited"
    HOPELESS = "hopeless"
    """It exited, and another start would be no better."""
    STOP = "stop"
    DEADLINE = "deadline"


class Do(StrEnum):
    """What is to be done with a child."""

    START = "start"
    TERMINATE = "terminate"
    KILL = "kill"
    GIVE_UP = "give-up"
    """Nothing more with this child: everything is to be stopped."""


class Action(NamedTuple):
    name: str
    do: Do


TABLE: dict[tuple[State, Trigger], tuple[State, Do | None]] = {
    (State.WAITING, Trigger.DUE): (State.RUNNING, Do.START),
    (State.WAITING, Trigger.STOP): (State.ENDED, None),
    (State.RUNNING, Trigger.EXITED): (State.WAITING, None),
    (State.RUNNING, Trigger.HOPELESS): (State.ENDED, Do.GIVE_UP),
    (State.RUNNING, Trigger.STOP): (State.STOPPING, Do.TERMINATE),
    (State.STOPPING, Trigger.EXITED): (State.ENDED, None),
    (State.STOPPING, Trigger.HOPELESS): (State.ENDED, None),
    (State.STOPPING, Trigger.DEADLINE): (State.KILLED, Do.KILL),
    (State.STOPPING, Trigger.STOP): (State.STOPPING, None),
    (State.KILLED, Trigger.EXITED): (State.ENDED, None),
    (State.KILLED, Trigger.HOPELESS): (State.ENDED, None),
    (State.KILLED, Trigger.STOP): (State.KILLED, None),
    (State.ENDED, Trigger.STOP): (State.ENDED, None),
}


class UnexpectedTriggerError(Exception):
    """A trigger that cannot happen in this state: a fault of the caller."""


@dataclass(frozen=True, slots=True)
class ChildRule:
    """How a child is treated. `stop_deadline_s` is what it may take to end after SIGTERM."""

    name: str
    stage: int
    stop_deadline_s: float


@dataclass(slots=True)
class _Child:
    rule: ChildRule
    state: State
    due_s: float
    started_s: float = 0.0
    quick_ends: int = 0


class Supervisor:
    """All children. `now` is monotonic seconds everywhere."""

    def __init__(self) -> None:
        self._children: dict[str, _Child] = {}
        self._stopping = False

    def add(self, rule: ChildRule, now: float) -> None:
        """A new child, due at once; after `stop` it is never started."""
        self._children[rule.name] = _Child(rule, State.ENDED if self._stopping else State.WAITING, now)

    def state(self, name: str) -> State:
        return self._children[name].state

    @property
    def ended(self) -> bool:
        """Whether a stop is complete."""
        return self._stopping and all(child.state is State.ENDED for child in self._children.values())

    def next_due(self) -> float | None:
        """When `poll` has something to do next, or None."""
        timed = (State.WAITING, State.STOPPING)
        return min((child.due_s for child in self._children.values() if child.state in timed), default=None)

    def poll(self, now: float) -> list[Action]:
        """What is due."""
        actions: list[Action] = []
        for child in self._children.values():
            if now < child.due_s:
                continue
            if child.state is State.WAITING:
                child.started_s = now
                actions += self._step(child, Trigger.DUE)
            elif child.state is State.STOPPING:
                actions += self._step(child, Trigger.DEADLINE)
        return actions

    def exited(self, name: str, status: int, now: float) -> list[Action]:
        """A child has ended with exit code `status` (negative: by that signal)."""
        child = self._children[name]
        if now - child.started_s >= STEADY_S:
            child.quick_ends = 0
        child.quick_ends += 1
        hopeless = status == EXIT_SETTINGS or child.quick_ends >= QUICK_ENDS_MOST
        actions = self._step(child, Trigger.HOPELESS if hopeless else Trigger.EXITED)
        if child.state is State.WAITING:
            child.due_s = now + min(PAUSE_FIRST_S * 2.0 ** (child.quick_ends - 1), PAUSE_MOST_S)
        return actions + self._next_stage(now)

    def stop(self, now: float) -> list[Action]:
        """Stop everything, stage by stage. More than once is harmless."""
        self._stopping = True
        for child in self._children.values():
            if child.state is State.WAITING:
                self._step(child, Trigger.STOP)
        return self._next_stage(now)

    def _next_stage(self, now: float) -> list[Action]:
        if not self._stopping:
            return []
        left = [child for child in self._children.values() if child.state is not State.ENDED]
        highest = max((child.rule.stage for child in left), default=0)
        actions: list[Action] = []
        for child in left:
            if child.rule.stage == highest and child.state is State.RUNNING:
                child.due_s = now + child.rule.stop_deadline_s
                actions += self._step(child, Trigger.STOP)
            elif child.state is State.WAITING:
                self._step(child, Trigger.STOP)
        return actions

    @staticmethod
    def _step(child: _Child, trigger: Trigger) -> list[Action]:
        try:
            child.state, do = TABLE[child.state, trigger]
        except KeyError:
            raise UnexpectedTriggerError(f"{child.rule.name}: {trigger} while {child.state}") from None
        return [Action(child.rule.name, do)] if do else []
