"""Boards' trust in any order of events, and the settings behind it."""

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, rule
from pydantic import ValidationError

from broker import happenings as h
from broker.health.happenings import BoardVerb
from broker.health.settings import HealthTable
from broker.health.trust import Health
from tests.broker.conftest import World
from tests.broker.test_health import JOB, health, policy, run, say
from wire.phases import Outcome, Phase


class Farm(RuleBasedStateMachine):
    """Whatever people, boards and restarts do: a board that is not trusted gets no work but its check, and the farm
    comes to an end with every board trusted, in fault or retired."""

    def __init__(self):
        super().__init__()
        self.w = World(policy(limit=2, train_boots=1, every_s=500), ("b1", "b2"))
        self.jobs, self.leased = [], set()
        obey = self.w.obey

        def also(action):
            obey(action)
            if isinstance(action, h.PutLease) and (action.board, action.token) not in self.leased:
                self.leased.add((action.board, action.token))
                held = self.w.scheduler.ledger.held.get(action.board)
                if held is not None and held.job.submitter != "health":
                    assert health(self.w, action.board) is Health.TRUSTED, f"{action.board} is not trusted"

        self.w.obey = also

    @rule()
    def submit(self):
        self.jobs.append(self.w.submit(JOB))

    @rule(board=st.sampled_from(["b1", "b2"]), verb=st.sampled_from(list(BoardVerb)))
    def say(self, board, verb):
        if verb is not BoardVerb.FORGET:
            say(self.w, verb, board)

    @rule(seconds=st.sampled_from([1, 11, 61, 101, 600]))
    def wait(self, seconds):
        self.w.wait(seconds)

    @rule()
    def restart(self):
        self.w.mono += 1
        self.w.start()

    @rule(ok=st.booleans())
    def switch(self, ok):
        if self.w.powers:
            self.w.obey_power(self.w.powers[0], ok)

    @rule(board=st.sampled_from(["b1", "b2"]), how=st.sampled_from(["up", "fault", "away"]))
    def board_does(self, board, how):
        phase = self.w.boards[board].phase
        if how == "up" and phase is Phase.STARTING:
            self.w.up(board)
        elif how == "fault" and phase in {Phase.STARTING, Phase.READY}:
            self.w.down(board, Phase.FAULT)
        elif how == "away" and phase is Phase.FAULT:
            self.w.down(board)

    @rule(board=st.sampled_from(["b1", "b2"]), outcome=st.sampled_from([Outcome.PASSED, Outcome.FAILED]))
    def work(self, board, outcome):
        offer = self.w.offers.pop(board, None)
        if offer is not None and self.w.boards[board].phase is Phase.READY and self.w.leases.get(board) == offer.token:
            self.w.offers[board] = offer
            run(self.w, board, outcome)

    def teardown(self):
        try:
            for board in ("b1", "b2"):
                if self.w.boards[board].phase is Phase.FAULT:
                    self.w.down(board)
            for _ in range(60):
                while self.w.powers:
                    self.switch(ok=True)
                for board in ("b1", "b2"):
                    self.board_does(board, "up")
                    self.work(board, Outcome.PASSED)
                self.w.wait(7)
            states = {health(self.w, board) for board in ("b1", "b2")}
            assert states <= {Health.TRUSTED, Health.FAULT, Health.RETIRED, Health.CHECKING, Health.DUE}
            if Health.TRUSTED in states:
                assert set(self.jobs) <= set(self.w.ends)
        finally:
            self.w.db.close()


TestFarm = Farm.TestCase
TestFarm.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


# --- settings --------------------------------------------------------------------------------------------------


def table(tmp_path, text="name: check\nsteps: [x]\n", **keys):
    job = tmp_path / "health.yaml"
    job.write_text(text)
    return HealthTable(job=job, **keys)


def test_a_table_becomes_a_rule(tmp_path):
    made = table(tmp_path, labels={"arch": "arm64"}, boards=["b1"], every="24h", on=["fault"], train_boots=5).rule()
    assert (made.every_s, made.on_new, made.on_fault, made.train_boots, made.limit) == (86400, False, True, 5, 3)
    assert made.spec.name == "check"
    assert made.fits("b1", {"arch": "arm64"}) and not made.fits("b2", {"arch": "arm64"}) and not made.fits("b1", {})


@pytest.mark.parametrize(
    ("text", "keys", "told"),
    [
        ("name: check\nboard: b1\nsteps: [x]\n", {}, "names board, labels or group"),
        ("name: check\nlabels: {arch: x}\nsteps: [x]\n", {}, "names board, labels or group"),
        ("name: check\nsteps: []\n", {}, "steps"),
        ("name: check\nsteps: [x]\n", {"every": "1y"}, "is no time"),
        ("name: check\nsteps: [x]\n", {"every": "0h"}, "is no time"),
        ("name: check\nsteps: [x]\n", {"on": ["monday"]}, "'new' or 'fault'"),
        ("name: check\nsteps: [x]\n", {"labels": {"arch": []}}, "arch"),
        ("name: check\nsteps: [x]\n", {"limit": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_tables_say_why(tmp_path, text, keys, told):
    with pytest.raises(ValidationError, match=told):
        table(tmp_path, text, **keys)


def test_a_job_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValidationError, match=r"nothing\.yaml cannot be read"):
        HealthTable(job=tmp_path / "nothing.yaml")
