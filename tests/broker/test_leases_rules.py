"""What holds for leases of people whatever happens in which order."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.leases.lease import TABLE, LeaseEvent, LeaseRules, LeaseStageError, PersonLease, lease_number
from broker.ledger import Policy
from broker.matching.waiting import Needs
from tests.broker.conftest import EPOCH, World
from tests.broker.lease_orders import hand_over, release, reserve
from wire.phases import LeaseStage, Phase


@pytest.mark.parametrize("stage", list(LeaseStage))
@pytest.mark.parametrize("event", list(LeaseEvent))
def test_only_the_table_changes_a_stage(stage, event):
    lease = PersonLease(1, "alice", Needs(), 60, EPOCH, stage=stage)
    if event in TABLE[stage]:
        lease.step(event)
        assert lease.stage is TABLE[stage][event]
    else:
        with pytest.raises(LeaseStageError, match="lease-1"):
            lease.step(event)


@pytest.mark.parametrize(
    ("text", "number"), [("lease-12", 12), ("lease-0", None), ("lease-", None), ("job-1", None), ("lease-\u0661", None)]
)
def test_ids(text, number):
    assert lease_number(text) == number


PEOPLE = ("alice", "bob", "carol")
BOARDS = ("b1", "b2")


class People(RuleBasedStateMachine):
    """People, jobs, restarts and time in any order. The rules of `World` hold throughout: no board twice, tokens that
    rise, none put to sleep while somebody holds it."""

    @initialize(off=st.booleans())
    def begin(self, off):
        self.world = World(Policy(leases=LeaseRules(off_when_done=off)), boards=BOARDS)

    @rule(who=st.sampled_from(PEOPLE), board=st.sampled_from((*BOARDS, None)), for_s=st.floats(60, 9000),
          wait=st.booleans(), wake=st.booleans())  # fmt: skip
    def reserve(self, who, board, for_s, wait, wake):
        reply = reserve(self.world, who, board, for_s=for_s, wait=wait, wake=wake)
        assert reply is not None

    @rule(board=st.sampled_from(BOARDS), who=st.sampled_from((*PEOPLE, None)))
    def release(self, board, who):
        assert release(self.world, board, who) is not None

    @rule(board=st.sampled_from(BOARDS), to=st.sampled_from(PEOPLE))
    def hand_over(self, board, to):
        assert hand_over(self.world, board, to) is not None

    @rule(board=st.sampled_from(BOARDS))
    def job(self, board):
        self.world.submit(f"name: t\nboard: {board}\nsteps: [make]\n")

    @rule(seconds=st.floats(0, 4000))
    def wait(self, seconds):
        self.world.wait(seconds)

    @rule()
    def obey(self):
        if self.world.powers:
            self.world.obey_power(self.world.powers[0])

    @rule(board=st.sampled_from(BOARDS))
    def up(self, board):
        if self.world.boards[board].phase not in {Phase.OFF, Phase.SLEEPING}:
            self.world.up(board)

    @rule()
    def killed(self):
        self.world.start()

    @invariant()
    def every_lease_is_told_and_one_holds(self):
        if not hasattr(self, "world"):
            return
        ledger = self.world.scheduler.ledger
        assert not ledger.people.keys() & ledger.held.keys(), "a person's and a job's"
        assert self.world.leases.keys() == ledger.people.keys() | ledger.held.keys()
        for board, lease in ledger.people.items():
            assert lease.held
            assert lease.token == self.world.leases[board]
        assert not {lease.number for lease in ledger.people.values()} & ledger.asked.keys()

    def teardown(self):
        if hasattr(self, "world"):
            self.world.db.close()


TestPeople = People.TestCase
TestPeople.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
