"""Whatever happens in whatever order: the rules in `World.obey` hold, and in a farm that was healed every job ends,
exactly once."""

import os

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Search
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker import happenings as h
from broker.jobs.store import _recover
from broker.ledger import Policy
from broker.matching.standing import Standing
from tests.broker.conftest import OFF_PHASES, World
from wire.payloads import WorkAccept, WorkLog, WorkOutcome
from wire.phases import JobState, Outcome, Phase, Presence

NAMES = ("b1", "b2", "b3", "b4")
POLICY = Policy(idle_s=100, min_on_s=30, booting_cap=2, bench_s=40, wake_timeout_s=300)


class Farm(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.w = World(POLICY, NAMES)
        self.submitted = []
        self.old = []  # (board, job, token) of every offer ever made
        self.passed = []

    def teardown(self):
        try:
            self.heal_and_drain()
        finally:
            self.w.db.close()

    # --- people

    @rule(board=st.sampled_from([None, *NAMES]), priority=st.integers(-2, 2), attempts=st.integers(1, 3))
    def submit(self, board, priority, attempts):
        where = f"board: {board}\n" if board else ""
        yaml = f"name: t\n{where}priority: {priority}\nattempts: {attempts}\ntimeout_s: 200\nsteps: [a]"
        job = self.w.submit(yaml)
        assert job is not None
        self.submitted.append(job)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def cancel(self, data):
        self.w.cancel(data.draw(st.sampled_from(self.submitted)))

    @rule(board=st.sampled_from(NAMES))
    def take_into_maintenance(self, board):
        self.w.phase(board, Phase.MAINTENANCE)

    @rule(board=st.sampled_from(NAMES), power=st.sampled_from(["on", "off"]))
    def by_hand(self, board, power):
        self.w.tell(h.PowerAsked("p", board, h.PowerAction(power)))

    @rule(seconds=st.sampled_from([0, 1, 5, 20, 61, 400]))
    def wait(self, seconds):
        self.w.wait(seconds)

    @rule(more=st.booleans())
    def messages_come_together(self, more):
        self.w.more = more
        if not more:
            self.w.wait(0)  # the last of them

    # --- boards and agents

    @precondition(lambda self: self.w.powers)
    @rule(data=st.data(), ok=st.booleans())
    def obey_power(self, data, ok):
        command = data.draw(st.sampled_from(self.w.powers))
        if command.token is not None and self.w.leases.get(command.board) != command.token:
            self.w.powers.remove(command)  # the agent refuses an old token
        elif command.expires <= self.w.now().wall or (command.token is None and command.board in self.w.leases):
            self.w.powers.remove(command)
        else:
            self.w.obey_power(command, ok)

    @precondition(lambda self: self.w.powers)
    @rule()
    def lose_power_command(self):
        self.w.powers.pop(0)

    @rule(board=st.sampled_from(NAMES))
    def comes_up(self, board):
        if self.w.boards[board].phase is Phase.STARTING:
            self.w.up(board)

    @rule(board=st.sampled_from(NAMES))
    def breaks(self, board):
        self.w.down(board, Phase.FAULT)

    @rule(board=st.sampled_from(NAMES))
    def is_mended(self, board):
        if self.w.boards[board].phase in {Phase.FAULT, Phase.MAINTENANCE}:
            self.w.down(board, Phase.OFF)

    @rule(board=st.sampled_from(NAMES))
    def drops_from_mqtt_and_returns(self, board):
        paper = self.w.boards[board]
        if paper.online:
            paper.online = False
            self.w.tell_self(paper)
            self.w.wait(30)
            paper.online = True
            self.w.tell_self(paper)

    def open_offers(self):
        return [
            name
            for name, offer in self.w.offers.items()
            if self.w.boards[name].online and self.w.boards[name].work is None and offer.expires > self.w.now().wall
        ]

    @precondition(lambda self: self.open_offers())
    @rule(data=st.data())
    def accept(self, data):
        name = data.draw(st.sampled_from(self.open_offers()))
        offer = self.w.offers.pop(name)
        self.old.append((name, offer.job, offer.token))
        board = self.w.boards[name]
        board.work = (offer.job, offer.token)
        self.w.report(name, WorkAccept(job=offer.job, token=offer.token, boot_id=board.boot_id))
        self.w.tell_self(board)
        self.w.phase(name, Phase.BUSY)

    def at_work(self):
        return [name for name, board in self.w.boards.items() if board.work and board.online]

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def finish(self, data, outcome):
        name = data.draw(st.sampled_from(self.at_work()))
        self.finish_on(name, outcome)

    def finish_on(self, name, outcome):
        job, _token = self.w.boards[name].work
        ended_before = job in self.w.ends
        self.w.acks.clear()
        self.w.finish(name, outcome)
        if self.w.acks[0].ok and outcome is Outcome.PASSED:
            assert not ended_before
            self.passed.append(job)

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def old_words(self, data):
        name, job, token = data.draw(st.sampled_from(self.old))
        if self.w.leases.get(name) == token:
            return
        state = self.w.summaries[job].state
        self.w.report(name, WorkLog(job=job, token=token, seq=99, text="late"))
        self.w.report(name, WorkOutcome(job=job, token=token, outcome=Outcome.PASSED))
        self.w.report(name, WorkAccept(job=job, token=token, boot_id="x"))
        after = self.w.summaries[job].state
        assert after is state, "an old token changed the job"

    @rule(gone=st.sampled_from([Presence.LOST, Presence.OFFLINE]))
    def agent_goes(self, gone):
        self.w.present["lab1"] = gone
        self.w.tell_agent()

    @rule()
    def agent_returns(self):
        if self.w.present["lab1"] is not Presence.ONLINE:
            self.w.session["lab1"] += 1
            self.w.present["lab1"] = Presence.ONLINE
            self.w.tell_agent()
            for board in self.w.boards.values():
                self.w.tell_state(board)

    # --- the broker

    @rule()
    def broker_is_killed(self):
        self.w.start()

    @rule()
    def mqtt_server_restarts(self):
        self.w.tell(h.Disconnected())
        self.w.wait(3)
        self.w.settle()

    @invariant()
    def what_is_committed_is_what_is(self):
        jobs = {job.id: job for job in _recover(self.w.db).jobs}
        live = self.w.scheduler.ledger.jobs
        assert set(jobs) == set(live)
        for name, job in jobs.items():
            assert (job.state, job.board, job.token) == (live[name].state, live[name].board, live[name].token)
        assert set(jobs) | set(self.w.ends) == set(self.submitted)
        held = self.w.scheduler.ledger.held
        assert {board: lease.token for board, lease in held.items()} == self.w.leases

    @invariant()
    def the_index_is_what_a_look_at_everything_gives(self):
        scheduler, now = self.w.scheduler, self.w.now()
        dispatch, farm = scheduler.dispatch, scheduler.farm
        queued = {job.number for job in scheduler.ledger.jobs.values() if job.state is JobState.QUEUED}
        assert {number for line in dispatch.waiting.lines.values() for number in line.jobs} == queued
        held = {lease.job.number for lease in scheduler.ledger.held.values()}
        assert set(dispatch._leased) == held
        if not scheduler._settled or self.w.more:
            return
        assert set(dispatch.pool.entries) == set(farm.names())
        powering = scheduler.ledger.being_switched_on(now)
        for name, entry in dispatch.pool.entries.items():
            picture = farm.board(name)
            assert entry.standing is dispatch.standing(picture, now)[0]
            assert (name in scheduler.room.booting) == dispatch._booting(picture, powering)
        for number in queued:
            line = dispatch.waiting.line_of(number)
            for entry in dispatch.pool.entries.values():
                nearest = Standing.ASLEEP if scheduler.room.left > 0 else Standing.COMING
                free = entry.standing <= nearest
                assert not (free and line.wants_entry(entry)), f"job-{number} waits although {entry.name} is free"

    def heal_and_drain(self):  # noqa: PLR0912  # everything that may need mending
        self.w.more = False
        self.agent_returns()
        for name in NAMES:
            self.is_mended(name)
        for _ in range(400):
            if not self.w.scheduler.ledger.jobs:
                break
            for command in list(self.w.powers):
                if command in self.w.powers and self.w.leases.get(command.board) == command.token:
                    self.w.obey_power(command)
                elif command in self.w.powers:
                    self.w.powers.remove(command)
            for name, board in self.w.boards.items():
                if board.phase is Phase.STARTING:
                    self.w.up(name)
                if board.phase in OFF_PHASES:
                    assert not board.online
            for name in self.at_work():
                self.finish_on(name, Outcome.PASSED)
            for name in self.open_offers():
                self.w.accept(name)
                del self.w.offers[name]
            self.w.wait(11)
        assert not self.w.scheduler.ledger.jobs, f"never ended: {self.w.scheduler.ledger.jobs}"
        assert set(self.w.ends) == set(self.submitted)
        for job in self.submitted:
            if self.w.ends[job] is JobState.PASSED:
                assert self.passed.count(job) == 1
            else:
                assert job not in self.passed


# Shrinking a failure of so many parts takes minutes: asked for by hand.
PHASES = tuple(Search) if "BOARDHAND_SHRINK" in os.environ else (Search.explicit, Search.reuse, Search.generate)
TestFarm = Farm.TestCase
TestFarm.settings = settings(
    max_examples=int(os.environ.get("BOARDHAND_EXAMPLES", "100")),
    stateful_step_count=40,
    deadline=None,
    phases=PHASES,
    suppress_health_check=list(HealthCheck),
)
