"""Jobs that bring their own boot, on paper: the agent is asked, the board is cycled, only a new boot gets the offer."""

import pytest

from broker import happenings as h
from broker.ledger import Policy
from wire.payloads import ErrorInfo, PowerResult, Response
from wire.phases import ErrorKind, JobState, Phase, Power, PowerAction

JOB = "name: t\nsteps: [make]\nboot: rescue\n"
INLINE = (
    f"name: t\nsteps: [make]\nboot: {{kernel: {{url: 'http://ci/Image', sha256: '{'ab' * 32}'}}, cmdline: quiet}}\n"
)


class Boots:
    """What the broker asks of agents, and their answers."""

    def __init__(self, world):
        self.world, self.asked = world, []
        obey = world.obey

        def also(action):
            obey(action)
            if isinstance(action, h.SendRequest):
                self.asked.append(action)

        world.obey = also

    def of(self, verb):
        return [request for request in self.asked if request.verb == verb]

    def answer(self, request, error=None, **data):
        info = ErrorInfo(kind=error[0], message=error[1]) if error else None
        response = Response(transaction=request.transaction, ok=error is None, data=data, error=info)
        self.world.tell(h.AgentAnswered(request.agent, request.verb, response))

    def boot(self, name):
        """The agent has the files and switches the board, which comes up."""
        self.answer(self.of("boot")[-1])
        power = self.world.powers.pop()
        assert power.board == name and power.token is not None
        self.world.tell(h.PowerReported(name, PowerResult(id=power.id, ok=True, power=Power.ON, took_ms=1)))
        self.world.down(name, Phase.STARTING)
        self.world.up(name)
        return power

    def off(self, name):
        power = self.world.powers.pop()
        assert (power.board, power.power, power.token) == (name, PowerAction.OFF, None)
        self.world.down(name)
        self.world.tell(h.PowerReported(name, PowerResult(id=power.id, ok=True, power=Power.OFF, took_ms=1)))


@pytest.fixture
def boots(make_world):
    return Boots(make_world(policy=Policy(idle_s=0, wake_timeout_s=300), boards=("b1",)))


def test_a_ready_board_is_cycled_and_only_its_new_boot_gets_the_work(boots):
    world = boots.world
    world.up("b1")
    job = world.submit(INLINE)
    (asked,) = boots.of("boot")
    assert asked.data == {
        "board": "b1", "token": 1, "kernel": {"url": "http://ci/Image", "sha256": "ab" * 32}, "cmdline": "quiet",
    }  # fmt: skip
    assert world.state(job) is JobState.WAKING and not world.offers and not world.powers
    boots.answer(asked)
    (power,) = world.powers
    assert (power.power, power.token) == (PowerAction.CYCLE, 1)
    world.tell_self(world.boards["b1"])  # still the old boot, and still ready
    world.wait(1)
    assert not world.offers
    world.tell(h.PowerReported("b1", PowerResult(id=power.id, ok=True, power=Power.ON, took_ms=1)))
    world.powers.clear()
    world.down("b1", Phase.STARTING)
    world.up("b1")
    assert world.offers["b1"].job == job
    world.accept("b1")
    world.finish("b1")
    assert world.state(job) is JobState.PASSED


def test_a_sleeping_board_is_switched_on(boots):
    boots.world.submit(JOB)
    assert boots.of("boot")[-1].data["profile"] == "rescue"
    assert boots.boot("b1").power is PowerAction.ON
    assert "b1" in boots.world.offers


def test_afterwards_the_board_goes_back_before_it_gets_other_work(boots):
    world = boots.world
    job = world.submit(JOB)
    boots.boot("b1")
    world.accept("b1")
    second = world.submit()
    world.finish("b1")
    assert world.state(job) is JobState.PASSED and world.state(second) is JobState.QUEUED
    back = boots.of("boot")[-1]
    assert back.data == {"board": "b1"}
    boots.answer(back)
    boots.off("b1")
    assert world.db.execute("SELECT count(*) FROM other_boots").fetchone()[0] == 0
    world.wait(1)
    assert world.powers[-1].power is PowerAction.ON, "it is woken for the job that waited"
    world.obey_power(world.powers[-1])
    world.up("b1")
    assert world.offers["b1"].job == second


def test_a_job_cancelled_while_it_boots_leaves_the_board_to_its_standing_profile(boots):
    world = boots.world
    world.up("b1")
    job = world.submit(JOB)
    boots.answer(boots.of("boot")[-1])
    world.powers.clear()
    world.cancel(job)
    assert world.state(job) is JobState.CANCELLED
    assert boots.of("boot")[-1].data == {"board": "b1"}


def test_what_the_agent_refuses_as_wrong_ends_the_job_at_once(boots):
    job = boots.world.submit(JOB)
    boots.answer(boots.of("boot")[-1], (ErrorKind.BAD_REQUEST, "kernel: the checksum is another"))
    assert boots.world.state(job) is JobState.ERROR
    assert "the checksum is another" in boots.world.summaries[job].reason
    assert boots.world.submit() and boots.world.powers, "the board was not benched"


def test_what_the_agent_cannot_do_now_is_tried_again(make_world):
    boots = Boots(make_world(policy=Policy(idle_s=0), boards=("b1", "b2")))
    job = boots.world.submit(JOB)
    first = boots.of("boot")[-1]
    boots.answer(first, (ErrorKind.UNREACHABLE, "http://ci: no route"))
    assert boots.world.state(job) is JobState.WAKING
    assert boots.of("boot")[-1].data["board"] != first.data["board"]


def test_a_boot_that_never_comes_is_the_farms_fault_with_the_agents_diagnosis(boots):
    world = boots.world
    job = world.submit(JOB)
    boots.answer(boots.of("boot")[-1])
    world.obey_power(world.powers[-1])
    for _ in range(30):
        world.wait(10)
    (why,) = boots.of("netboot")
    found = {"what": "no DHCP request was seen", "evidence": ["power on at 10:00"], "check": ["the network cable"]}
    boots.answer(why, boots=[{"diagnosis": found}])
    assert "no DHCP request was seen" in world.summaries[job].reason
    assert "look at: the network cable" in world.summaries[job].reason
    assert world.state(job) is JobState.QUEUED, "attempts are left"


def test_an_agent_that_does_not_tell_why_holds_nothing_up(boots):
    world = boots.world
    job = world.submit(JOB)
    boots.answer(boots.of("boot")[-1])
    world.obey_power(world.powers[-1])
    for _ in range(32):
        world.wait(10)
    assert world.state(job) is JobState.QUEUED


def test_a_lost_answer_is_asked_for_again_with_the_same_transaction(boots):
    boots.world.submit(JOB)
    boots.world.wait(16)
    first, second = boots.of("boot")
    assert first.transaction == second.transaction
    boots.boot("b1")
    assert "b1" in boots.world.offers


def test_after_a_restart_in_the_middle_it_boots_once_more(boots):
    world = boots.world
    world.submit(JOB)
    boots.answer(boots.of("boot")[-1])
    first = world.powers.pop()
    world.mono += 0.1
    world.start()
    world.wait(1)
    assert boots.boot("b1").id != first.id
    assert "b1" in world.offers


def test_a_board_in_a_jobs_boot_is_put_back_by_the_next_broker(boots):
    world = boots.world
    world.submit(JOB)
    boots.boot("b1")
    world.accept("b1")
    world.finish("b1")
    world.start()
    other = world.submit()
    assert world.state(other) is JobState.QUEUED
    world.wait(1)
    boots.answer(boots.of("boot")[-1])
    world.wait(1)
    boots.off("b1")
    world.wait(1)
    assert world.powers[-1].power is PowerAction.ON


def test_the_timeline_tells_the_way(boots):
    world = boots.world
    world.submit(JOB)
    boots.boot("b1")
    world.accept("b1")
    world.finish("b1")
    told = [row["what"] for row in world.db.execute("SELECT what FROM timeline ORDER BY number")]
    assert [line.split(" ")[0] for line in told] == ["leased", "agent", "b1", "b1", "offered", "b1", "b1"]
    assert told[-1] == "b1 ended: passed"
