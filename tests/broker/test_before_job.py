"""The agent is asked before a job is offered, where its admin wants that: yes, no, silence, and everything lost."""

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from broker import happenings as h
from broker.ledger import Policy
from tests.broker.conftest import World
from wire.payloads import AgentInfo, ErrorInfo, Response
from wire.phases import ErrorKind, JobState, Phase, Presence

JOB = "name: t\nsteps: [make]\n"
POLICY = Policy(idle_s=0, hook_timeout_s=40, bench_s=100, lost_grace_s=60, booting_cap=1)


class Gate:
    """The agents' side of `prepare`."""

    def __init__(self, world, *, hooks=("before-job",)):
        self.world, self.asked = world, []
        obey = world.obey

        def also(action):
            if isinstance(action, h.SendOffer):
                assert "before-job" not in self.hooks or (action.job, action.token) in self.yes, "offered work unasked"
            obey(action)
            if isinstance(action, h.SendRequest):
                assert world.leases[action.data["board"]] == action.data["token"], "asked without a lease"
                self.asked.append(action)

        world.obey = also
        self.yes = set()
        tell_all = world.tell_all

        def told_all():
            self.tell(self.hooks)
            tell_all()

        world.tell_all = told_all
        self.tell(hooks)

    def tell(self, hooks):
        self.hooks = hooks or ()
        info = AgentInfo(version="1", contract="1", host="h", hooks=list(hooks)) if hooks is not None else None
        self.world.tell(h.AgentInfoSeen("lab1", info))

    def answer(self, request, refusal=None, kind=ErrorKind.REFUSED):
        if refusal is None:
            self.yes.add((request.data["job"], request.data["token"]))
        info = ErrorInfo(kind=kind, message=refusal) if refusal else None
        response = Response(transaction=request.transaction, ok=info is None, error=info)
        self.world.tell(h.AgentAnswered(request.agent, request.verb, response))


@pytest.fixture
def gate(make_world):
    return Gate(make_world(policy=POLICY, boards=("b1", "b2")))


def test_the_agent_is_asked_and_its_yes_brings_the_offer(gate):
    world = gate.world
    world.up("b1")
    job = world.submit(JOB)
    (asked,) = gate.asked
    assert (asked.agent, asked.verb) == ("lab1", "prepare")
    assert asked.data == {"board": "b1", "job": job, "token": 1}
    assert (asked.expires - world.now().wall).total_seconds() == 40
    assert world.state(job) is JobState.WAKING and not world.offers
    assert "lab1 is asked" in world.summaries[job].reason
    world.wait(39)
    gate.answer(asked)
    assert world.offers["b1"].job == job
    world.accept("b1")
    assert world.state(job) is JobState.RUNNING


def test_a_board_that_is_asked_about_fills_no_boot_slot(gate):
    world = gate.world
    world.up("b1")
    world.submit(JOB + "board: b1\n")
    other = world.submit(JOB + "board: b2\n")
    (power,) = world.powers
    assert (power.board, world.state(other)) == ("b2", JobState.WAKING)


def test_a_woken_board_is_asked_about_when_it_is_ready(gate):
    world = gate.world
    job = world.submit(JOB + "board: b1\n")
    assert not gate.asked
    world.obey_power(world.powers[0])
    assert not gate.asked
    world.up("b1")
    gate.answer(gate.asked[0])
    assert world.offers["b1"].job == job


def test_a_refused_board_is_passed_over_with_the_reason(gate):
    world = gate.world
    world.up("b1")
    world.up("b2")
    job = world.submit(JOB)
    first = gate.asked[0]
    gate.answer(first, refusal="the door of the rack is open")
    other = gate.asked[1]
    assert {first.data["board"], other.data["board"]} == {"b1", "b2"}
    gate.answer(other)
    assert world.offers[other.data["board"]].job == job
    (attempt,) = world.db.execute("SELECT result FROM attempts WHERE result IS NOT NULL").fetchall()
    assert "the door of the rack is open" in attempt["result"]
    assert first.data["board"] not in world.leases


def test_a_gate_that_never_opens_ends_the_job_as_the_farms_fault(make_world):
    gate = Gate(make_world(policy=POLICY, boards=("b1",)))
    world = gate.world
    world.up("b1")
    job = world.submit(JOB)
    for _ in range(5):
        gate.answer(gate.asked[-1], refusal="closed")
        world.wait(101)
    assert len(gate.asked) == 5
    assert world.ends[job] is JobState.ERROR
    assert "closed" in world.summaries[job].reason and not world.offers


def test_an_agent_that_says_nothing_is_waited_for_so_long(gate):
    world = gate.world
    world.up("b1")
    job = world.submit(JOB + "board: b1\n")
    world.wait(39.9)
    assert world.state(job) is JobState.WAKING
    world.wait(0.2)
    assert world.state(job) is JobState.QUEUED
    assert "did not say in 40 s" in world.summaries[job].reason
    gate.answer(gate.asked[0])  # too late
    assert not world.offers


def test_an_agent_that_restarts_is_asked_again(gate):
    world = gate.world
    world.up("b1")
    job = world.submit(JOB + "board: b1\n")
    world.present["lab1"] = Presence.LOST
    world.tell_agent()
    world.wait(5)
    world.present["lab1"] = Presence.ONLINE
    world.tell_agent()
    world.wait(1)
    first, second = gate.asked
    assert first.transaction != second.transaction
    world.tell(h.AgentAnswered("lab1", "prepare", Response(transaction=first.transaction, ok=True)))
    assert not world.offers
    gate.answer(second)
    assert world.offers["b1"].job == job


def test_a_line_that_broke_may_have_lost_the_answer(gate):
    world = gate.world
    world.up("b1")
    world.submit(JOB + "board: b1\n")
    world.tell(h.Disconnected())
    world.settle()
    world.wait(1)
    assert len(gate.asked) == 2


def test_a_broker_that_restarts_asks_again(gate):
    world = gate.world
    world.up("b1")
    job = world.submit(JOB + "board: b1\n")
    world.mono += 1
    world.start()
    world.wait(1)
    first, second = gate.asked
    assert first.transaction != second.transaction
    gate.answer(second)
    assert world.offers["b1"].job == job


def test_only_the_agents_own_answer_counts(gate):
    world = gate.world
    world.up("b1")
    world.submit(JOB + "board: b1\n")
    response = Response(transaction=gate.asked[0].transaction, ok=True)
    world.tell(h.AgentAnswered("lab2", "prepare", response))
    world.tell(h.AgentAnswered("lab1", "boot", response))
    assert not world.offers


def test_a_board_that_goes_off_while_asked_about_gets_no_offer(gate):
    world = gate.world
    world.up("b1")
    job = world.submit(JOB + "board: b1\n")
    world.down("b1", Phase.OFF)
    gate.answer(gate.asked[0])
    assert not world.offers
    world.wait(1)
    world.wait(61)
    assert "went away while its agent was asked" in world.summaries[job].reason


@pytest.mark.parametrize("hooks", [(), ("after-job", "before-power-on"), None])
def test_agents_without_such_hooks_are_not_asked(make_world, hooks):
    gate = Gate(make_world(policy=POLICY, boards=("b1",)), hooks=("before-job",))
    gate.tell(hooks)
    gate.world.up("b1")
    job = gate.world.submit(JOB)
    assert not gate.asked and gate.world.offers["b1"].job == job


class Farm(RuleBasedStateMachine):
    """Whatever is lost, late or restarted: no offer without a yes to that lease (`Gate` checks), all jobs end."""

    def __init__(self):
        super().__init__()
        self.world = World(POLICY, ("b1", "b2"))
        self.gate = Gate(self.world)
        self.jobs = []

    def teardown(self):
        try:
            for _ in range(60):
                if set(self.jobs) <= set(self.world.ends):
                    break
                self.step_on()
            assert set(self.jobs) == set(self.world.ends)
        finally:
            self.world.db.close()

    def step_on(self):
        while self.gate.asked:
            self.gate.answer(self.gate.asked.pop(0))
        for action in list(self.world.powers):
            self.world.obey_power(action)
        for name in self.world.boards:
            self.up(name)
            self.work(name)
        self.world.wait(30)

    def work(self, name):
        board, offer = self.world.boards[name], self.world.offers.pop(name, None)
        if offer is not None and board.phase is Phase.READY and self.world.leases.get(name) == offer.token:
            self.world.offers[name] = offer
            self.world.accept(name)
            self.world.finish(name)

    @rule()
    def submit(self):
        self.jobs.append(self.world.submit(JOB))

    @precondition(lambda self: self.gate.asked)
    @rule(how=st.sampled_from(["yes", "yes", "no", "lost"]))
    def answer(self, how):
        request = self.gate.asked.pop(0)
        if how != "lost":
            self.gate.answer(request, refusal="no" if how == "no" else None)

    @rule(name=st.sampled_from(["b1", "b2"]))
    def up(self, name):
        if self.world.boards[name].phase is Phase.STARTING:
            self.world.up(name)

    @precondition(lambda self: self.world.powers)
    @rule()
    def switch(self):
        self.world.obey_power(self.world.powers[0])

    @rule(name=st.sampled_from(["b1", "b2"]))
    def take(self, name):
        self.work(name)

    @rule()
    def restart(self):
        self.world.mono += 1
        self.world.start()

    @rule()
    def reconnect(self):
        self.world.tell(h.Disconnected())
        self.world.settle()

    @rule(seconds=st.sampled_from([1, 20, 41, 110]))
    def wait(self, seconds):
        self.world.wait(seconds)


TestFarm = Farm.TestCase
TestFarm.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
