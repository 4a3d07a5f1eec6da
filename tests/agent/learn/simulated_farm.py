"""A farm in virtual time: outlets, boards that say things after delays of their own, and things that talk by
themselves. Drives an `Experiment` to its end without a clock."""

import heapq
import random
from dataclasses import dataclass, field

from agent.learn.experiment import Experiment
from agent.learn.findings import Findings, findings
from agent.learn.signs import Action, Drawn, Ended, Linked, Present, Sign, Subject, Switch, Switched, Tell

MAX_EVENTS = 400_000


@dataclass
class SimBoard:
    """What a board shows of itself, and after how long. `fed_by`: each of these outlets alone keeps it running."""

    name: str
    fed_by: list[str]
    says: dict[Subject, float] = field(default_factory=dict)
    """Subject -> seconds until its first sign."""
    shows: dict[Subject, float] = field(default_factory=dict)
    """Subjects that are there or not."""
    ready: tuple[Subject, float] | None = None
    links: list[tuple[Subject, Subject]] = field(default_factory=list)
    chatter_s: float = 0.0
    """Mean time between later signs; 0 for none."""
    watts: float = 0.0
    back_powered: bool = False
    """It runs from its console's cable, whatever its outlet does."""
    needs_all: bool = False
    running: int = 0
    """Counts its starts; 0 while it is off."""


class SimFarm:
    """Boards, noise, and the clock."""

    def __init__(self, outlets: dict[str, bool], boards: list[SimBoard], seed: int) -> None:
        self.random = random.Random(seed)
        self.on = dict(outlets)
        self.boards = boards
        self.now = 1000.0
        self._queue: list[tuple[float, int, object]] = []
        self._count = 0
        self.noise: list[tuple[Subject, float]] = []
        self.broken: set[str] = set()
        self.switched: list[tuple[float, str, bool]] = []
        self.told: list[Tell] = []
        self.moves: list[tuple[float, str, list[str]]] = []
        """(time, board, its new outlets)."""
        self._starts = 0

    def at(self, delay: float, what: object) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay, self._count, what))

    def jitter(self, delay: float) -> float:
        return delay * self.random.uniform(0.92, 1.12) + self.random.uniform(0, 0.1)

    def run(self, experiment: Experiment, *, stop_at: float | None = None) -> Findings:
        for board in self.boards:
            self._power(board)
        for subject, every in self.noise:
            self.at(self.random.uniform(0, every), ("noise", subject, every))
        for when, name, outlets in self.moves:
            self.at(when, ("move", name, outlets))
        self._do(experiment.begin(self.now))
        stopped = False
        for _ in range(MAX_EVENTS):
            if experiment.ended:
                return findings(experiment, self.now)
            deadline = experiment.next_deadline
            upcoming = self._queue[0][0] if self._queue else float("inf")
            if stop_at is not None and not stopped and min(upcoming, deadline or 1e18) > 1000 + stop_at:
                stopped = True
                self._do(experiment.stop("a person stopped it", self.now))
            elif deadline is not None and deadline <= upcoming:
                self.now = max(self.now, deadline)
                self._do(experiment.tick(self.now))
                assert experiment.ended or experiment.next_deadline != deadline, "it wants the same tick again"
            else:
                assert upcoming < float("inf"), "nothing will ever happen"
                self.now, _, what = heapq.heappop(self._queue)
                self._happen(experiment, what)
        raise AssertionError("it does not end")

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Switch):
                self.at(self.random.uniform(0.05, 0.3), ("switch", action))
            elif isinstance(action, Tell):
                self.told.append(action)
            else:
                assert isinstance(action, Ended)

    def _happen(self, experiment: Experiment, what: object) -> None:  # noqa: PLR0912  # one arm per thing that can happen
        match what:
            case ("switch", Switch(outlet, on)):
                if outlet in self.broken:
                    self._do(experiment.take(Switched(outlet, on, "did not switch"), self.now))
                    return
                self.on[outlet] = on
                self.switched.append((self.now, outlet, on))
                for board in self.boards:
                    self._power(board)
                self.at(0.05, Switched(outlet, on))
                watts = sum(board.watts for board in self.boards if outlet in board.fed_by and board.running)
                if on:
                    self.at(2.0, Drawn(outlet, watts))
            case ("noise", subject, every):
                self._do(experiment.take(Sign(subject), self.now))
                self.at(self.random.expovariate(1 / every), what)
            case ("move", name, outlets):
                board = next(board for board in self.boards if board.name == name)
                board.fed_by = outlets
                self._power(board)
            case ("say", board, start, subject, ready):
                if board.running == start:
                    self._do(experiment.take(Sign(subject, ready=ready), self.now))
                    if ready:
                        for one, other in board.links:
                            self._do(experiment.take(Linked(one, other), self.now))
                    if board.chatter_s:
                        self.at(self.random.expovariate(1 / board.chatter_s), ("say", board, start, subject, False))
            case ("show", board, start, subject):
                if board.running == start:
                    self._do(experiment.take(Present(subject, here=True), self.now))
            case event:
                self._do(experiment.take(event, self.now))  # type: ignore[arg-type]

    def _power(self, board: SimBoard) -> None:
        states = [self.on[outlet] for outlet in board.fed_by]
        on = board.back_powered or (all(states) if board.needs_all else any(states))
        if on and not board.running:
            self._starts += 1
            board.running = self._starts
            for subject, delay in board.says.items():
                self.at(self.jitter(delay), ("say", board, board.running, subject, False))
            for subject, delay in board.shows.items():
                self.at(self.jitter(delay), ("show", board, board.running, subject))
            if board.ready:
                self.at(self.jitter(board.ready[1]), ("say", board, board.running, board.ready[0], True))
        elif not on and board.running:
            board.running = 0
            for subject in board.shows:
                self.at(self.random.uniform(0.1, 0.5), Present(subject, here=False))
