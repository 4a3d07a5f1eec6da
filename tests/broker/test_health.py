"""Boards' trust on paper: health jobs before work, failures with their evidence, cold boots, people's words."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from broker import happenings as h
from broker.health.happenings import BoardAsked, BoardVerb, ForgetBoard, TellAlert
from broker.health.trust import TABLE, Evidence, Health, HealthError, HealthEvent, HealthRule, Record
from broker.jobs.labels import Want
from broker.jobs.spec import parse_job
from broker.ledger import Policy
from tests.broker.conftest import EPOCH
from wire.payloads import AgentInfo, PowerResult, Response, StepResult, WorkOutcome
from wire.phases import JobState, Outcome, Phase, Power, PowerAction

CHECK = parse_job("name: check\nsteps: [memtester]\n")
JOB = "name: t\nsteps: [make]\n"


def policy(**keys):
    made = HealthRule(CHECK, **{"retry_s": 10, **keys})
    return Policy(idle_s=0, min_on_s=0, booting_cap=1, bench_s=5, wake_timeout_s=100, health=(made,))


@pytest.fixture
def farm(make_world):
    def make(*, boards=("b1",), labels=None, **keys):
        world = make_world(policy=policy(**keys), boards=boards, labels=labels)
        world.alerts, world.asked, world.forgotten = {}, [], []
        obey = world.obey

        def also(action):
            obey(action)
            match action:
                case TellAlert(board, alert):
                    world.alerts[board] = alert
                case h.SendRequest():
                    world.asked.append(action)
                case ForgetBoard(board):
                    world.forgotten.append(board)

        world.obey = also
        return world

    return make


def health(world, board="b1"):
    return world.scheduler.orders.desk.records[board].state


def record(world, board="b1"):
    return world.scheduler.orders.desk.records[board]


def say(world, verb, board="b1"):
    tag = f"say{next(world.tags)}"
    world.tell(BoardAsked(tag, board, verb))
    return next((r for r in world.replies if r.tag == tag), None)


def run(world, board="b1", outcome=Outcome.PASSED, log=None, steps=()):
    """The board takes what it is offered and ends it."""
    offer = world.accept(board)
    if log is not None:
        world.log(board, text=log)
    job, token = world.boards[board].work
    world.report(board, WorkOutcome(job=job, token=token, outcome=outcome, steps=list(steps)))
    world.boards[board].work = None
    world.tell_self(world.boards[board])
    world.phase(board, Phase.READY)
    return offer.job


def fail_once(world, board="b1"):
    steps = [StepResult(name="step 1", exit_code=1, problem="memory at 0x7f is bad")]
    job = run(world, board, Outcome.FAILED, log="0x7f: expected 0, is 1\n", steps=steps)
    world.wait(1)
    return job


def test_a_new_board_works_after_its_health_job_passed(farm):
    world = farm()
    job = world.submit(JOB)
    world.up("b1")
    world.wait(1)
    assert health(world) is Health.CHECKING
    assert "health job" in world.summaries[job].reason
    checked = run(world)
    world.wait(1)
    assert world.ends[checked] is JobState.PASSED
    assert health(world) is Health.TRUSTED
    assert world.offers["b1"].job == job


def test_a_sleeping_board_is_woken_for_its_check_within_the_caps(farm):
    world = farm(boards=("b1", "b2"))
    world.wait(1)
    (power,) = world.powers  # booting_cap = 1
    assert power.power is PowerAction.ON
    world.obey_power(power)
    world.up(power.board)
    world.wait(1)
    run(world, power.board)
    world.wait(1)
    assert health(world, power.board) is Health.TRUSTED
    assert {p.board for p in world.powers if p.power is PowerAction.ON} == {"b1", "b2"} - {power.board}


def test_boards_without_a_rule_are_left_alone(farm):
    world = farm(boards=("b1", "b2"), labels={"b2": {"lab": "x"}}, wants=(Want.parse("lab", "x"),))
    world.up("b1")
    job = world.submit(JOB + "board: b1\n")
    assert world.offers["b1"].job == job
    assert set(world.scheduler.orders.desk.records) == {"b2"}


def test_three_failures_put_it_into_fault_with_evidence_and_an_alert(farm):
    world = farm(limit=3)
    world.up("b1")
    world.wait(1)
    failed = []
    for count in (1, 2, 3):
        assert health(world) is Health.CHECKING
        failed.append(fail_once(world))
        assert record(world).failures == count
        assert count == 3 or health(world) is Health.DUE
        world.wait(11)
    world.wait(3600)
    assert health(world) is Health.FAULT
    alert = world.alerts["b1"]
    assert "failed its health checks 3 times" in alert.what
    assert "expected 0, is 1" in alert.what
    assert f"boardhand logs {failed[-1]}" in alert.do
    assert [e.job for e in record(world).evidence] == failed
    job = world.submit(JOB)
    assert world.state(job) is JobState.QUEUED
    assert "failed its health checks 3 times" in world.summaries[job].reason


def test_a_board_that_does_not_come_up_for_its_check_is_diagnosed(farm):
    world = farm(limit=1)
    world.wait(1)
    world.obey_power(world.powers[0])
    world.wait(101)
    world.wait(1)
    assert health(world) is Health.FAULT
    (asked,) = [a for a in world.asked if a.verb == "netboot"]
    boots = [{"diagnosis": {"what": "the kernel was never asked for", "evidence": [], "check": []}}]
    answer = Response(transaction=asked.transaction, ok=True, data={"boots": boots})
    world.tell(h.AgentAnswered("lab1", "netboot", answer))
    assert "the kernel was never asked for" in world.alerts["b1"].what
    assert "did not come up" in record(world).evidence[-1].why


def test_it_is_checked_again_every_so_often_and_its_work_comes_first(farm):
    world = farm(every_s=3600)
    world.up("b1")
    world.wait(1)
    run(world)
    world.wait(1)
    world.submit(JOB)
    world.accept("b1")
    world.wait(3700)
    world.log("b1")
    assert health(world) is Health.DUE
    world.finish("b1")
    world.wait(1)
    assert health(world) is Health.CHECKING
    assert world.offers["b1"].name == "check"


def test_after_a_fault_it_is_checked(farm):
    world = farm()
    world.up("b1")
    say(world, BoardVerb.ACCEPT)
    world.phase("b1", Phase.FAULT, "did not register")
    world.wait(1)
    assert health(world) is Health.DUE
    world.down("b1")
    world.wait(1)
    assert health(world) is Health.CHECKING


def test_neither_new_nor_fault_when_the_rule_does_not_say_so(farm):
    world = farm(on_new=False, on_fault=False)
    world.up("b1")
    assert health(world) is Health.TRUSTED
    world.phase("b1", Phase.FAULT)
    world.wait(1)
    assert health(world) is Health.TRUSTED


def cold_boot(world, took_s=20):
    (power,) = world.powers
    assert power.power is PowerAction.ON
    world.obey_power(power)
    world.wait(took_s)
    world.up("b1")
    world.wait(0.5)


def switch_off(world):
    (power,) = world.powers
    assert power.power is PowerAction.OFF
    world.obey_power(power)
    world.wait(0.5)


def test_training_boots_cold_in_a_row_and_measures(farm):
    world = farm(train_boots=2)
    assert health(world) is Health.TRAINING
    cold_boot(world)
    switch_off(world)
    assert health(world) is Health.TRAINING
    cold_boot(world)
    assert record(world).boots_s == [20.0, 20.5]
    assert health(world) is Health.CHECKING
    assert world.scheduler.forecast.typical_s("b1") == pytest.approx(20, abs=1)


def test_a_failed_boot_begins_the_row_anew_and_too_many_are_a_fault(farm):
    world = farm(train_boots=3, limit=2)
    cold_boot(world)
    assert len(record(world).boots_s) == 1
    switch_off(world)
    world.obey_power(world.powers[0])
    world.wait(101)  # never comes up
    assert record(world).boots_s == []
    assert "cold boot 2 of 3: did not come up in 100 s" in record(world).evidence[-1].why
    assert health(world) is Health.TRAINING
    world.wait(11)
    switch_off(world)
    world.wait(1)
    world.obey_power(world.powers[0])
    world.phase("b1", Phase.FAULT, "no DHCP")
    world.wait(1)
    assert health(world) is Health.FAULT
    assert "no DHCP" in world.alerts["b1"].what


def test_a_board_that_cannot_be_switched_off_fails_and_is_not_hammered(farm):
    world = farm(train_boots=2, limit=3)
    cold_boot(world)
    sent = []
    for _ in range(600):
        for power in list(world.powers):
            world.powers.remove(power)
            sent.append(power)
            world.tell(h.PowerReported("b1", PowerResult(id=power.id, ok=False, power=Power.ON, took_ms=1)))
        world.wait(1)
    assert [power.power for power in sent] == [PowerAction.OFF] * 3
    assert "could not be switched off" in world.alerts["b1"].what


def test_a_person_accepts_and_takes_out(farm):
    world = farm()
    world.up("b1")
    world.wait(1)
    checking = record(world).job
    assert say(world, BoardVerb.ACCEPT).data == {"board": "b1", "is": "trusted"}
    assert world.ends[checking] is JobState.CANCELLED
    assert say(world, BoardVerb.RETIRE).data["is"] == "retired"
    job = world.submit(JOB + "board: b1\n")
    world.wait(100)
    assert world.state(job) is JobState.QUEUED and "is retired" in world.summaries[job].reason
    assert say(world, BoardVerb.CHECK).error.message == "board b1 is retired"
    assert say(world, BoardVerb.RETIRE).error is not None
    say(world, BoardVerb.ACCEPT)
    world.wait(1)
    assert world.offers["b1"].job == job or world.powers


def test_a_fault_ends_by_a_persons_word_and_so_does_its_alert(farm):
    world = farm(limit=1)
    world.up("b1")
    world.wait(1)
    fail_once(world)
    assert world.alerts["b1"] is not None
    say(world, BoardVerb.CHECK)
    assert world.alerts["b1"] is None and record(world).failures == 0
    world.wait(11)
    assert health(world) is Health.CHECKING


def test_only_a_retired_board_that_no_agent_has_is_forgotten(farm):
    world = farm()
    world.up("b1")
    assert "retire it first" in say(world, BoardVerb.FORGET).error.message
    say(world, BoardVerb.RETIRE)
    assert "agent lab1 still has board b1" in say(world, BoardVerb.FORGET).error.message
    world.tell(h.AgentInfoSeen("lab1", AgentInfo(version="1", contract="1", host="h", boards=["b2"])))
    assert say(world, BoardVerb.FORGET).error is None
    assert world.forgotten == ["b1"]
    for seen in (h.StateSeen, h.InfoSeen, h.SelfSeen):
        world.tell(seen("b1", None))
    assert not world.scheduler.farm.knows("b1") and "b1" not in world.scheduler.orders.desk.records
    assert say(world, BoardVerb.ACCEPT).error.kind == "unknown-board"


def test_maintenance_is_the_agents_to_say(farm):
    world = farm()
    assert say(world, BoardVerb.MAINTENANCE_ON) is None
    asked = world.asked[-1]
    assert (asked.verb, asked.data) == ("maintenance", {"board": "b1", "on": True})
    answer = Response(transaction=asked.transaction, ok=True, data={"board": "b1", "phase": "maintenance"})
    world.tell(h.AgentAnswered("lab1", "maintenance", answer))
    assert world.replies[-1].data == {"board": "b1", "is": "maintenance"}
    say(world, BoardVerb.MAINTENANCE_OFF)
    world.wait(11)
    assert "did not answer in 10 s" in world.replies[-1].error.message


def test_everything_is_kept_over_a_restart(farm):
    world = farm(limit=2)
    world.up("b1")
    world.wait(1)
    fail_once(world)
    world.start()
    assert record(world).failures == 1
    assert "expected 0" in record(world).evidence[0].log
    world.wait(11)
    world.wait(1)
    offer = world.accept("b1")
    world.start()
    assert health(world) is Health.CHECKING
    world.finish("b1")
    world.wait(1)
    assert world.ends[offer.job] is JobState.PASSED and health(world) is Health.TRUSTED
    world.start()
    assert health(world) is Health.TRUSTED


@given(st.lists(st.sampled_from(HealthEvent), max_size=30))
def test_the_table_alone_changes_a_state_and_nothing_but_trust_takes_work(events):
    board = Record("b1", Health.DUE, EPOCH)
    checked_by = HealthRule(CHECK)
    for event in events:
        before = board.state
        try:
            board.step(event, EPOCH)
        except HealthError:
            assert event not in TABLE[before] and board.state is before
        else:
            assert board.state is TABLE[before][event]
        assert (board.why_not(checked_by) is None) is (board.state is Health.TRUSTED)
        if board.state is Health.RETIRED:
            assert list(TABLE[board.state]) == [HealthEvent.ACCEPT]


def test_a_person_can_always_say_the_last_word():
    for state, event in itertools.product(Health, (HealthEvent.ACCEPT, HealthEvent.RETIRE)):
        assert event in TABLE[state] or (state, event) == (Health.RETIRED, HealthEvent.RETIRE)


def test_evidence_does_not_grow_for_ever():
    board = Record("b1", Health.CHECKING, EPOCH)
    for count in range(20):
        board.failed(Evidence(EPOCH, f"failure {count}"), 100, EPOCH)
        board.step(HealthEvent.BEGIN, EPOCH)
    assert [e.why for e in board.evidence] == [f"failure {n}" for n in range(15, 20)]
