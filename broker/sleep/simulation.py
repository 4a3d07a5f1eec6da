"""A day replayed against a policy in virtual time, by the scheduler that runs the farm: the same code decides.

The boards are made up: they boot in the times that were measured, draw the watts that were measured, and never fail.
A job's own boot is not replayed. Everything else (matching, fairness, caps, sleep) is the broker's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from heapq import heappop, heappush
from math import ceil
from statistics import median

from broker import happenings as h
from broker.ledger import Policy
from broker.matching.why_waiting import can_ever
from broker.scheduler import Scheduler
from broker.sleep.day_recording import Day, DayBoard, DayJob
from wire.payloads import AgentState, BoardInfo, BoardSelf, BoardState, PowerResult, StepResult, WorkAccept, WorkOutcome
from wire.phases import JobState, Outcome, Phase, Power, PowerAction, Presence

TICK_S = 5.0
"""Coarser than the broker's, so that a day takes seconds; idle times and spacings are seen that late."""
SWITCH_S = 0.5
"""From a power command to the board having power, or not."""
ACCEPT_S = 0.1
OVERTIME_S = 2 * 86400.0
"""How long after the day's end the last jobs may take; energy is counted to the day's end only."""
AGENT = "simulated"
WH_PER_KWH, S_PER_H = 1000.0, 3600.0


@dataclass(frozen=True, slots=True)
class Tally:
    """What a policy did with a day. Waits are from submitting a job to a board taking it, in s."""

    policy: str
    energy_kwh: float
    always_on_kwh: float
    jobs: int
    done: int
    """Jobs that ran to their end, passed or failed."""
    left: dict[str, str]
    """Jobs that never ran, and why."""
    wait_median_s: float
    wait_p95_s: float
    wait_max_s: float
    cycles: int
    """Times that a board was switched on."""
    most_booting: int
    """Boards that came up at the same time."""

    @property
    def saved(self) -> float:
        """The share of the energy that always-on would have used and this did not."""
        return 1 - self.energy_kwh / self.always_on_kwh if self.always_on_kwh else 0.0


@dataclass(slots=True)
class _Board:
    """A board of the day, as it is now."""

    made: DayBoard
    on: bool = False
    ready: bool = False
    busy: bool = False
    boots: int = 0
    seq: int = 0
    epoch: int = 0
    """Counts power changes: what was under way before one is void after it."""
    work: str | None = None
    wh: float = 0.0
    since: float = 0.0

    @property
    def watts(self) -> float:
        watts = self.made.watts
        if not self.on:
            return watts.off
        return watts.busy if self.busy else watts.idle if self.ready else watts.boot

    @property
    def phase(self) -> Phase:
        if not self.on:
            return Phase.SLEEPING
        return Phase.BUSY if self.busy else Phase.READY if self.ready else Phase.STARTING

    @property
    def boot_id(self) -> str:
        return f"{self.made.name}-{self.boots}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed (nearest rank); 0 where there is none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0


@dataclass(slots=True)
class Simulation:
    """One day against one policy. `watch` is shown every action with its time, for tests."""

    day: Day
    policy: Policy
    always_on: bool = False
    tick_s: float = TICK_S
    watch: Callable[[h.Action, float], None] | None = None
    _now: float = 0.0
    _later: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0
    _boards: dict[str, _Board] = field(default_factory=dict)
    _jobs: dict[str, tuple[DayJob, float]] = field(default_factory=dict)
    _waits: dict[str, float] = field(default_factory=dict)
    _ended: dict[str, JobState] = field(default_factory=dict)
    _cycles: int = 0
    _most_booting: int = 0
    _scheduler: Scheduler = field(init=False)

    def run(self, name: str) -> Tally:
        """Replay the day to its end, and on until every job that can be done is done."""
        self._scheduler = Scheduler(replace(self.policy, max_queued=max(self.policy.max_queued, len(self.day.jobs))), 1)
        self._boards = {made.name: _Board(made, on=self.always_on, ready=self.always_on) for made in self.day.boards}
        self._begin()
        for job in self.day.jobs:
            self._at(job.at_s, lambda job=job: self._submit(job))  # type: ignore[misc]  # binds the job of this turn
        self._at(self.tick_s, self._tick)
        while self._later and not self._over():
            self._now, _, what = heappop(self._later)
            what()
        return self._tally(name)

    def _over(self) -> bool:
        if self._later[0][0] <= self.day.length_s:
            return False
        return self._later[0][0] > self.day.length_s + OVERTIME_S or not self._can_end()

    def _can_end(self) -> bool:
        """Whether a job is left that a board could do."""
        dispatch, ledger = self._scheduler.dispatch, self._scheduler.ledger
        if ledger.held:
            return True
        return any(can_ever(line, dispatch.waiting, dispatch.pool) for line in dispatch.waiting.lines.values())

    # --- time ------------------------------------------------------------------------------------------------

    def _moment(self) -> h.Moment:
        return h.Moment(self._now, self.day.begin + timedelta(seconds=self._now))

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._later, (when, self._count, what))

    def _on_board(self, board: _Board, after_s: float, what: Callable[[], None]) -> None:
        """Do it later, unless the board's power changes before."""
        epoch = board.epoch
        self._at(self._now + after_s, lambda: what() if board.epoch == epoch else None)

    def _tick(self) -> None:
        self._tell(h.Tick())
        self._at(self._now + self.tick_s, self._tick)

    # --- the farm --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        begin = self.day.begin
        self._tell(h.AgentSeen(AGENT, AgentState(state=Presence.ONLINE, session=1, since=begin)))
        for board in self._boards.values():
            labels = {k: ",".join(v) if isinstance(v, list) else v for k, v in board.made.labels.items()}
            several = {k: v for k, v in board.made.labels.items() if isinstance(v, list)}
            info = BoardInfo(labels=labels, compatible=several.get("compatible", []))
            self._tell(h.InfoSeen(board.made.name, info))
            self._say(board)
        self._tell(h.Settled())

    def _say(self, board: _Board) -> None:
        """The board's state and its own word, as on MQTT."""
        board.seq += 1
        made, up = board.made, board.ready or board.busy
        word = BoardSelf(state=Presence.ONLINE if up else Presence.OFFLINE, boot_id=board.boot_id, work=board.work)
        self._tell(h.SelfSeen(made.name, word))
        said = BoardState(
            power=Power.ON if board.on else Power.OFF,
            phase=board.phase,
            since=self._moment().wall,
            agent=AGENT,
            session=1,
            seq=board.seq,
        )
        self._tell(h.StateSeen(made.name, said))

    def _count_energy(self, board: _Board) -> None:
        until = min(self._now, self.day.length_s)
        board.wh += max(0.0, until - board.since) * board.watts / S_PER_H
        board.since = until

    def _switch(self, board: _Board, action: h.SendPower) -> None:
        on = action.power is not PowerAction.OFF
        if on != board.on:
            self._count_energy(board)
            board.epoch += 1
            board.on, board.ready, board.busy, board.work = on, False, False, None
            if on:
                self._cycles += 1
                boot_s = board.made.boot_s[board.boots % len(board.made.boot_s)]
                board.boots += 1
                self._on_board(board, boot_s, lambda: self._up(board))
            self._say(board)
        power = Power.ON if on else Power.OFF
        result = PowerResult(id=action.id, ok=True, power=power, took_ms=SWITCH_S * 1000)
        self._tell(h.PowerReported(board.made.name, result))
        booting = sum(one.on and not one.ready and not one.busy for one in self._boards.values())
        self._most_booting = max(self._most_booting, booting)

    def _up(self, board: _Board) -> None:
        self._count_energy(board)
        board.ready = True
        self._say(board)

    # --- jobs ------------------------------------------------------------------------------------------------

    def _submit(self, job: DayJob) -> None:
        tag = f"t{len(self._jobs)}"
        self._jobs[f"job-{len(self._jobs) + 1}"] = job, self._now
        self._tell(h.Submit(tag, job.spec(), job.submitter))

    def _accept(self, board: _Board, offer: h.SendOffer) -> None:
        if board.work is not None or not board.ready:
            return
        self._count_energy(board)
        job, submitted = self._jobs[offer.job]
        self._waits[offer.job] = self._now - submitted
        board.ready, board.busy, board.work = False, True, offer.job
        accept = WorkAccept(job=offer.job, token=offer.token, boot_id=board.boot_id)
        self._tell(h.Reported(board.made.name, accept))
        self._say(board)
        self._on_board(board, job.took_s, lambda: self._finish(board, offer, job))

    def _finish(self, board: _Board, offer: h.SendOffer, job: DayJob) -> None:
        self._count_energy(board)
        board.ready, board.busy, board.work = True, False, None
        outcome = WorkOutcome(
            job=offer.job,
            token=offer.token,
            outcome=Outcome.FAILED if job.failed else Outcome.PASSED,
            steps=[StepResult(name="step 1", exit_code=int(job.failed), took_s=job.took_s)],
        )
        self._tell(h.Reported(board.made.name, outcome))
        self._say(board)

    # --- the scheduler ---------------------------------------------------------------------------------------

    def _tell(self, happening: h.Happening) -> None:
        for action in self._scheduler.handle(happening, self._moment()):
            if self.watch is not None:
                self.watch(action, self._now)
            match action:
                case h.SendPower():
                    board = self._boards[action.board]
                    self._at(self._now + SWITCH_S, lambda b=board, a=action: self._switch(b, a))  # type: ignore[misc]
                case h.SendOffer():
                    board = self._boards[action.board]
                    self._on_board(board, ACCEPT_S, lambda b=board, a=action: self._accept(b, a))  # type: ignore[misc]
                case h.Announce(summary) if summary.state.ended:
                    self._ended[summary.job] = summary.state
                case _:
                    pass

    def _tally(self, name: str) -> Tally:
        self._now = max(self._now, self.day.length_s)
        for board in self._boards.values():
            self._count_energy(board)
        waits = list(self._waits.values())
        left = {}
        for job in self._scheduler.ledger.jobs.values():
            self._scheduler.explain(job)
            left[job.id] = job.reason or job.state.value
        return Tally(
            policy=name,
            energy_kwh=sum(board.wh for board in self._boards.values()) / WH_PER_KWH,
            always_on_kwh=0.0,
            jobs=len(self.day.jobs),
            done=sum(state in {JobState.PASSED, JobState.FAILED} for state in self._ended.values()),
            left=left,
            wait_median_s=median(waits) if waits else 0.0,
            wait_p95_s=percentile(waits, 0.95),
            wait_max_s=max(waits, default=0.0),
            cycles=self._cycles,
            most_booting=self._most_booting,
        )


ALWAYS_ON = "always on"


def compare(day: Day, policies: dict[str, Policy], tick_s: float = TICK_S) -> list[Tally]:
    """The day against always-on, and against each policy by its name, looking at idle times every `tick_s`."""
    base = Simulation(day, Policy(idle_s=0), always_on=True, tick_s=tick_s).run(ALWAYS_ON)
    tallies = [base, *(Simulation(day, policy, tick_s=tick_s).run(name) for name, policy in policies.items())]
    return [replace(tally, always_on_kwh=base.energy_kwh) for tally in tallies]
