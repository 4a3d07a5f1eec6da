"""The work of a board without a client: each step once, each outcome until it is taken, whatever is said and lost."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.console.steps_session import ASK_AGAIN_S, NO_ARTIFACTS, OUTCOME_AGAIN_S, StepsSession
from agent.console.steps_table import Announce, JobOver, Keep, KillStep, Obey, RunStep, Work
from wire.payloads import (
    ArtifactWish,
    BoardOrder,
    Step,
    WorkAccept,
    WorkAck,
    WorkArtifact,
    WorkAsk,
    WorkLog,
    WorkOffer,
    WorkOutcome,
    WorkStop,
)
from wire.phases import Outcome

LATER = datetime(2030, 1, 1, tzinfo=UTC)


def offer(job="job-1", token=1, steps=2, **more):
    names = [Step(name=f"s{n}", run="true", **more) for n in range(steps)]
    return WorkOffer(job=job, token=token, expires=LATER, name="a job", steps=names)


class Owner:
    """Publishes what is to be said, and keeps what is to be done."""

    def __init__(self):
        self.session = StepsSession("boot-1")
        self.done, self.said = [], []
        self.session.connected(0.0)
        self.settle()

    def settle(self):
        self.done += self.session.take()
        while (report := self.session.outgoing()) is not None:
            self.said.append(report)
            self.session.sent(report)

    def hear(self, message, now=1.0):
        self.session.heard(message, now)
        self.settle()

    def ended(self, code, problem="", timed_out=False):
        self.session.step_ended(code, problem, 0.5, 2.0, timed_out=timed_out)
        self.settle()

    def of(self, kind):
        return [one for one in (*self.done, *self.said) if isinstance(one, kind)]


def test_a_job_from_offer_to_acknowledgement():
    owner = Owner()
    assert isinstance(owner.said[-1], WorkAsk)
    owner.hear(offer())
    assert owner.of(WorkAccept)[0].boot_id == "boot-1"
    assert owner.of(Announce)[-1].work == "job-1"
    kept = owner.of(Keep)[-1].outcome
    assert (kept.outcome, kept.problem) == (Outcome.ERROR, "the agent was stopped while step s0 ran")
    owner.session.output("wörd\n".encode()[:2], 1.1)
    owner.session.output("wörd\n".encode()[2:], 1.2)
    owner.session.tick(1.8)
    owner.ended(0)
    owner.ended(0)
    assert [run.step.name for run in owner.of(RunStep)] == ["s0", "s1"]
    assert [run.first for run in owner.of(RunStep)] == [True, False]
    assert "".join(log.text for log in owner.of(WorkLog)) == "wörd\n"
    outcome = owner.of(WorkOutcome)[-1]
    assert (outcome.outcome, outcome.log_chunks) == (Outcome.PASSED, 1)
    assert owner.of(Keep)[-1].outcome == outcome
    assert len(owner.of(JobOver)) == 1
    owner.session.tick(2.0 + OUTCOME_AGAIN_S)
    owner.settle()
    assert len(owner.of(WorkOutcome)) == 2, "until it is taken"
    owner.hear(WorkAck(job="job-1", token=1))
    assert owner.of(Keep)[-1].outcome is None
    assert owner.of(Announce)[-1].work is None
    asked = len(owner.of(WorkAsk))
    owner.session.tick(1.0 + ASK_AGAIN_S)
    owner.settle()
    assert len(owner.of(WorkAsk)) == asked + 1


def test_a_step_that_fails_ends_the_job_unless_it_may():
    owner = Owner()
    owner.hear(offer())
    owner.ended(3)
    outcome = owner.of(WorkOutcome)[-1]
    assert outcome.outcome is Outcome.FAILED
    assert [(step.exit_code, step.problem) for step in outcome.steps] == [
        (3, None),
        (None, "not run: step s0 did not pass"),
    ]
    other = Owner()
    other.hear(offer(continue_on_fail=True, exit_codes=[7]))
    other.ended(None, "timed out after 1 s", timed_out=True)
    other.ended(7)
    assert other.of(WorkOutcome)[-1].outcome is Outcome.FAILED
    assert other.of(WorkOutcome)[-1].problem == "step s0: timed out after 1 s"


def test_what_the_console_did_is_the_farms_fault():
    owner = Owner()
    owner.hear(offer(continue_on_fail=True))
    owner.ended(None, "the board restarted")
    assert owner.of(WorkOutcome)[-1].outcome is Outcome.ERROR
    assert len(owner.of(RunStep)) == 1


def test_a_stop_ends_the_step_and_is_told():
    owner = Owner()
    owner.hear(offer())
    owner.hear(WorkStop(job="job-1", token=9, reason="of another lease"))
    assert not owner.of(KillStep)
    owner.hear(WorkStop(job="job-1", token=1, reason="cancelled"))
    assert owner.of(KillStep) == [KillStep("stopped: cancelled")]
    owner.ended(None, "stopped: cancelled")
    assert owner.of(WorkOutcome)[-1].problem == "step s0: stopped: cancelled"
    assert owner.of(WorkOutcome)[-1].outcome is Outcome.ERROR


def test_an_old_token_drops_the_job_and_an_old_offer_is_answered():
    owner = Owner()
    owner.hear(offer())
    owner.hear(WorkAck(job="job-1", token=1, ok=False))
    owner.ended(None, "killed")
    assert not owner.of(WorkOutcome)
    assert owner.session.work is Work.IDLE
    owner.hear(offer())
    assert owner.of(WorkOutcome)[-1].problem == "dropped: the token was old"
    assert len(owner.of(RunStep)) == 1, "never run twice"


def test_artifacts_are_refused_in_words_and_orders_obeyed():
    owner = Owner()
    wanted = offer(steps=1).model_copy(update={"artifacts": ArtifactWish(paths=["a", "b*"], max_bytes=1)})
    owner.hear(wanted)
    owner.ended(0)
    assert [(one.n, one.name, one.problem) for one in owner.of(WorkArtifact)] == [
        (0, "a", NO_ARTIFACTS),
        (1, "b*", NO_ARTIFACTS),
    ]
    owner.hear(BoardOrder(kind="reboot"))
    assert owner.of(Obey)[-1].order.kind == "reboot"


def test_the_end_of_a_boot_tells_what_was_under_way():
    owner = Owner()
    assert owner.session.end("gone", 1.0) is None
    owner.hear(offer())
    told = owner.session.end("the board lost its power", 1.0)
    assert (told.outcome, told.problem) == (Outcome.ERROR, "the board lost its power")
    owner.ended(0)
    owner.ended(0)
    assert owner.session.end("later", 3.0).outcome is Outcome.PASSED


def test_a_log_that_cannot_be_sent_is_bounded_and_says_so():
    session = StepsSession("boot-1")
    session.connected(0.0)
    session.heard(offer(steps=1), 0.0)
    for n in range(600):
        session.output(b"x" * 8192, float(n))
    session.step_ended(0, "", 1.0, 700.0, timed_out=False)
    said = []
    while (report := session.outgoing()) is not None:
        said.append(report)
        session.sent(report)
    logs = [one for one in said if isinstance(one, WorkLog)]
    assert len(logs) < 520
    assert "characters of output lost" in logs[-1].text
    assert said[-1].log_chunks == len(logs)
    assert [log.seq for log in logs] == list(range(len(logs)))


MESSAGES = st.sampled_from(
    [
        offer(),
        offer("job-2", 2),
        offer("job-1", 3),
        WorkAck(job="job-1", token=1),
        WorkAck(job="job-2", token=2),
        WorkAck(job="job-1", token=1, ok=False),
        WorkStop(job="job-1", token=1),
        WorkStop(job="job-2", token=2),
    ]
)


@given(st.lists(st.one_of(MESSAGES, st.sampled_from(["pass", "fail", "error", "lost", "time"])), max_size=30))
@settings(max_examples=300, deadline=None)
def test_one_step_at_a_time_and_one_outcome_per_token(events):
    owner, now, running, begun = Owner(), 1.0, None, []
    for event in events:
        now += 7.0
        before = len(owner.of(RunStep))
        if event == "time":
            owner.session.tick(now)
        elif event == "lost":
            owner.session.connected(now)
        elif isinstance(event, str):
            if running is None:
                continue
            running = None
            code, why = {"pass": (0, ""), "fail": (1, ""), "error": (None, "gone")}[event]
            owner.session.step_ended(code, why, 0.1, now, timed_out=False)
        else:
            owner.session.heard(event, now)
        owner.settle()
        for run in owner.of(RunStep)[before:]:
            assert running is None, "never two"
            running = run
            begun.append((run.offer.token, run.step.name))
    assert len(set(begun)) == len(begun), "no step of a token twice"
    outcomes = {}
    for outcome in owner.of(WorkOutcome):
        known = outcomes.setdefault((outcome.job, outcome.token), outcome.outcome)
        assert known is outcome.outcome
