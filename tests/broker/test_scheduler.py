import itertools

import pytest

from broker import happenings as h
from broker.jobs.life import TABLE, Job, JobEvent, JobStateError
from broker.jobs.spec import parse_job
from broker.ledger import MAX_START_FAULTS, Policy
from wire.payloads import BoardSelf, PowerResult, WorkAccept, WorkLog, WorkOutcome
from wire.phases import JobState, Outcome, Phase, Power, PowerAction, Presence, Purpose

ON_B1 = "name: t\nboard: b1\nsteps: [make]\n"


@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, JobEvent)))
def test_every_state_and_event(state, event, world):
    job = Job(1, parse_job(ON_B1), world.now().wall, state=state)
    allowed = {
        JobState.QUEUED: "wake offer give-up cancel",
        JobState.WAKING: "offer retry give-up cancel",
        JobState.OFFERED: "accept retry give-up cancel",
        JobState.RUNNING: "pass fail retry give-up cancel",
    }.get(state, "")
    if event.value in allowed.split():
        job.step(event)
        assert job.state is TABLE[state][event]
        assert job.state is not state
    else:
        with pytest.raises(JobStateError, match=f"job-1 is {state.value} and cannot {event.value}"):
            job.step(event)
        assert job.state is state


def test_from_submit_to_sleep(world):
    job = world.submit(ON_B1)
    assert world.state(job) is JobState.WAKING
    (wake,) = world.powers
    assert (wake.board, wake.power, wake.purpose, wake.token) == ("b1", PowerAction.ON, Purpose.WAKE, 1)
    assert world.leases == {"b1": 1}
    world.obey_power(wake)
    world.up("b1")
    assert world.state(job) is JobState.OFFERED
    world.accept("b1")
    assert world.state(job) is JobState.RUNNING
    world.log("b1")
    world.finish("b1")
    assert world.state(job) is JobState.PASSED
    assert world.acks[-1].ok
    assert world.leases == {}
    world.wait(0)
    world.wait(299)
    assert not world.powers
    world.wait(2)
    (sleep,) = world.powers
    assert (sleep.power, sleep.purpose, sleep.token) == (PowerAction.OFF, Purpose.SLEEP, None)
    again = world.submit(ON_B1)  # it must not be offered to a board that is going down
    assert world.state(again) is JobState.QUEUED
    world.obey_power(sleep)
    assert world.state(again) is JobState.WAKING
    assert world.leases == {"b1": 2}


def test_a_failed_step_is_not_tried_again(world):
    world.up("b1")
    job = world.submit(ON_B1)
    world.accept("b1")
    world.finish("b1", Outcome.FAILED)
    assert world.state(job) is JobState.FAILED


def test_priority_then_age(make_world):
    world = make_world(boards=("b1",))
    world.up("b1")
    first = world.submit()
    world.accept("b1")
    low, high = world.submit("name: l\nsteps: [a]"), world.submit("name: h\npriority: 5\nsteps: [a]")
    world.finish("b1")
    assert world.ends[first] is JobState.PASSED
    assert world.state(high) is JobState.OFFERED
    assert world.state(low) is JobState.QUEUED
    assert "b1" in world.summaries[low].reason


def test_old_token_is_refused_and_the_current_one_believed(world):
    world.up("b1")
    world.submit(ON_B1)
    old = world.accept("b1")
    world.down("b1")  # lost in the middle
    world.wait(0)
    world.wait(61)
    world.up("b1")
    new = world.accept("b1")
    assert new.token > old.token
    world.report("b1", WorkOutcome(job=old.job, token=old.token, outcome=Outcome.PASSED))
    assert not world.acks[-1].ok
    assert world.state(new.job) is JobState.RUNNING
    world.finish("b1", Outcome.FAILED)
    assert world.acks[-1].ok
    assert world.state(new.job) is JobState.FAILED


def test_board_lost_until_attempts_are_used(world):
    world.up("b1")
    job = world.submit(ON_B1 + "attempts: 2\n")
    for _ in range(2):
        assert job not in world.ends
        world.accept("b1")
        world.up("b1")  # another boot_id: it restarted
    assert world.state(job) is JobState.ERROR
    assert "restarted in the middle" in world.summaries[job].reason
    assert "all 2 attempts are used" in world.summaries[job].reason


def test_a_short_absence_is_forgiven(world):
    world.up("b1")
    job = world.submit(ON_B1)
    world.accept("b1")
    board = world.boards["b1"]
    board.online = False
    world.tell_self(board)
    world.wait(50)
    board.online = True
    world.tell_self(board)
    world.wait(50)
    assert world.state(job) is JobState.RUNNING
    assert world.summaries[job].attempt == 1


def test_failed_wake_tries_another_board_and_says_so(world):
    job = world.submit()
    (first,) = world.powers
    world.obey_power(first, ok=False)
    (second,) = world.powers
    assert second.board != first.board
    assert world.state(job) is JobState.WAKING
    world.phase(second.board, Phase.FAULT, "did not boot")
    assert f"attempt 2 on {second.board}" in world.scheduler.ledger.jobs[job].last_fault
    assert "did not boot" in world.scheduler.ledger.jobs[job].last_fault
    world.wait(0)
    (third,) = world.powers[1:]
    world.obey_power(third, ok=False)
    assert world.state(job) is JobState.QUEUED
    assert "before: attempt 3" in world.summaries[job].reason


def test_wakes_are_bounded(make_world):
    world = make_world(boards=("b1",))
    job = world.submit()
    for _ in range(MAX_START_FAULTS):
        world.obey_power(world.powers[0], ok=False)
        world.wait(121)
    assert world.state(job) is JobState.ERROR
    assert "boards in a row" in world.summaries[job].reason


def test_a_wake_that_never_ends(make_world):
    world = make_world(boards=("b1",))
    job = world.submit()
    world.obey_power(world.powers[0])
    world.wait(890)
    assert world.state(job) is JobState.WAKING
    world.wait(11)
    assert world.state(job) is JobState.QUEUED
    assert "did not come up in 900 s: it is starting" in world.summaries[job].reason


def test_a_lost_power_command_is_repeated_with_its_id(world):
    world.submit(ON_B1)
    world.wait(61)
    first, second = world.powers
    assert first.id == second.id
    assert second.expires > first.expires


def test_silent_board_gets_three_offers(world):
    world.up("b1")
    job = world.submit(ON_B1)
    tokens = {world.offers["b1"].token}
    for _ in range(2):
        world.offers.clear()
        world.wait(10.5)
        tokens.add(world.offers["b1"].token)
    assert tokens == {1}
    world.wait(10.5)
    assert world.state(job) is JobState.QUEUED
    assert "did not answer 3 offers" in world.summaries[job].reason
    world.wait(121)
    assert world.state(job) is JobState.OFFERED


def test_ask_brings_the_offer_again(world):
    world.up("b1")
    world.submit(ON_B1)
    world.offers.clear()
    world.mono += 2
    world.ask("b1")
    assert world.offers["b1"].token == 1


def test_booting_cap(make_world):
    world = make_world(Policy(booting_cap=2), boards=[f"b{n}" for n in range(6)])
    jobs = [world.submit() for _ in range(4)]
    assert len(world.powers) == 2
    assert "turn to wake" in world.summaries[jobs[3]].reason
    for wake in list(world.powers):
        world.obey_power(wake)
        world.up(wake.board)
    assert [world.state(job) for job in jobs] == [JobState.OFFERED, JobState.OFFERED, JobState.WAKING, JobState.WAKING]


@pytest.mark.parametrize("phase", [Phase.MAINTENANCE, Phase.FAULT, Phase.UNCLAIMED])
def test_board_out_of_service_takes_nothing(phase, make_world):
    world = make_world(boards=("b1",))
    world.up("b1")
    world.phase("b1", phase, "screwdriver")
    job = world.submit()
    world.wait(1000)
    assert world.state(job) is JobState.QUEUED
    assert f"b1: in {phase.value} (screwdriver)" in world.summaries[job].reason
    assert not world.powers
    assert not world.leases


def test_fault_releases_the_lease(world):
    world.up("b1")
    job = world.submit(ON_B1)
    world.accept("b1")
    world.phase("b1", Phase.FAULT, "smoke")
    assert world.leases == {}
    assert world.state(job) is JobState.QUEUED
    assert world.stops


def test_a_job_that_overruns_is_stopped(world):
    world.up("b1")
    job = world.submit(ON_B1 + "timeout_s: 100\n")
    world.accept("b1")
    world.wait(129)
    assert world.state(job) is JobState.RUNNING
    world.wait(2)
    assert world.state(job) is JobState.ERROR
    assert "timeout_s of 100 s" in world.summaries[job].reason
    assert world.stops[-1].job == job
    assert world.leases == {}
    again = world.submit(ON_B1)  # it is still at the old job
    assert world.state(again) is JobState.QUEUED
    world.wait(1)
    world.tell_self(world.boards["b1"])
    assert len(world.stops) == 2


def test_queue_timeout(world):
    job = world.submit("name: t\nlabels: {arch: riscv64}\nqueue_timeout_s: 60\nsteps: [a]")
    assert "no known board has arch=riscv64" in world.summaries[job].reason
    world.wait(59)
    assert world.state(job) is JobState.QUEUED
    world.wait(2)
    assert world.state(job) is JobState.ERROR
    assert "riscv64" in world.summaries[job].reason


def test_cancel_in_every_state(make_world):
    world = make_world(boards=("b1",))
    queued = world.submit("name: t\nboard: nowhere\nsteps: [a]")
    waking = world.submit(ON_B1)
    world.cancel(queued)
    world.cancel(waking)
    assert not world.stops
    world.obey_power(world.powers[0])
    world.up("b1")
    offered = world.submit(ON_B1)
    world.cancel(offered)
    running = world.submit(ON_B1)
    world.accept("b1")
    world.cancel(running)
    assert {s.job for s in world.stops} == {offered, running}
    assert {world.state(j) for j in (queued, waking, offered, running)} == {JobState.CANCELLED}
    world.finish("b1")
    assert not world.acks[-1].ok
    world.cancel(running)
    assert world.replies[-1].error.key == "job"


def test_agent_lost_board_unknown_but_its_job_goes_on(world):
    world.up("b1")
    job = world.submit(ON_B1)
    world.accept("b1")
    world.present["lab1"] = Presence.LOST
    world.tell_agent()
    world.wait(500)
    assert world.state(job) is JobState.RUNNING
    other = world.submit()
    assert world.state(other) is JobState.QUEUED
    assert "its agent lab1 is away" in world.summaries[other].reason
    assert world.scheduler.farm.board("b1").power is Power.UNKNOWN


def test_minimum_on_time(make_world):
    world = make_world(Policy(idle_s=10, min_on_s=200))
    world.phase("b1", Phase.STARTING)
    world.up("b1")
    world.wait(0)
    world.wait(150)
    assert not world.powers
    world.wait(51)
    assert world.powers


def test_a_board_that_takes_no_work_gets_none_and_fills_no_boot_slot(make_world):
    world = make_world(Policy(booting_cap=1), labels={"b1": {"work": False}})
    world.phase("b1", Phase.STARTING)
    assert not world.scheduler.farm.board("b1").coming_up
    assert world.scheduler.farm.board("b1").out_of_service == "it takes no work (label work = false)"
    assert world.scheduler.room.left == 1


def test_label_sleep_false_and_idle_zero_keep_boards_up(make_world):
    for world in (make_world(labels={"b1": {"sleep": False}}), make_world(Policy(idle_s=0))):
        world.up("b1")
        for _ in range(20):
            world.wait(500)
        assert not world.powers


def test_a_leased_board_does_not_sleep_however_slow_it_is(make_world):
    world = make_world(Policy(idle_s=3, min_on_s=0))
    world.up("b1")
    world.submit(ON_B1)
    for _ in range(9):
        world.wait(2)
    assert world.leases == {"b1": 1}
    assert not world.powers


def test_failed_sleep_is_not_hammered(world):
    world.up("b1")
    world.wait(0)
    world.wait(301)
    world.obey_power(world.powers[0], ok=False)
    assert "b1 could not be switched off" in world.notes[-1].text
    world.wait(100)
    assert not world.powers
    world.wait(301)
    assert len(world.powers) == 1


def ask_power(world, board, power):
    world.tell(h.PowerAsked("p", board, power))
    return world.replies[-1]


def test_sleep_and_wake_by_hand(world):
    assert ask_power(world, "nobody", PowerAction.ON).error.kind == "unknown-board"
    assert ask_power(world, "b1", PowerAction.ON).error is None
    assert ask_power(world, "b1", PowerAction.ON).error.kind == "busy"
    world.obey_power(world.powers[0])
    world.up("b1")
    world.submit(ON_B1)
    assert "leased to job-1" in ask_power(world, "b1", PowerAction.OFF).error.message
    world.accept("b1")
    world.finish("b1")
    assert ask_power(world, "b1", PowerAction.OFF).error is None
    assert world.powers[-1].purpose is Purpose.SLEEP
    world.phase("b2", Phase.MAINTENANCE, "mine")
    assert "maintenance (mine)" in ask_power(world, "b2", PowerAction.ON).error.message


def test_queue_is_bounded(make_world):
    world = make_world(Policy(max_queued=2), boards=())
    assert world.submit()
    assert world.submit()
    assert world.submit() is None
    assert world.replies[-1].error.kind == "busy"


def test_reports_of_jobs_nobody_knows(world):
    world.up("b1")
    world.report("b1", WorkAccept(job="job-99", token=7, boot_id="x"))
    world.report("b1", WorkLog(job="no-job", token=7, seq=0, text="x"))
    world.report("b9", WorkOutcome(job="job-99", token=7, outcome=Outcome.PASSED))
    assert [s.board for s in world.stops] == ["b1", "b1"]
    assert not world.acks[-1].ok
    world.tell(h.SelfSeen("b9", BoardSelf(state=Presence.ONLINE, boot_id="x", work="job-99")))
    world.tell(h.PowerReported("b9", PowerResult(ok=True, power=Power.ON, took_ms=0)))


def test_a_job_that_prints_without_end(world, monkeypatch):
    monkeypatch.setattr("broker.jobs.work_reports.MAX_LOG_LETTERS", 100)
    world.up("b1")
    world.submit(ON_B1)
    world.accept("b1")
    for seq in range(10):
        world.log("b1", seq, "x" * 30)
    texts = [row[0] for row in world.db.execute("SELECT text FROM log_chunks ORDER BY n")]
    assert len(texts) == 4
    assert "the rest was dropped" in texts[-1]
