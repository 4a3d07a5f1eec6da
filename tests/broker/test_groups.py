"""Groups on a farm on paper: all boards or none, together to the end."""

import itertools

import pytest

from broker import happenings as h
from broker.groups.members import members
from broker.jobs.labels import Want
from broker.jobs.spec import JobSpecError, parse_job
from broker.ledger import Policy
from tests.broker.group_farm import GROUP, PAIR, all_up, call, started
from wire.payloads import WorkLog
from wire.phases import JobState, Outcome, Phase


def test_roles_inherit_from_the_job():
    parts = members(parse_job(GROUP))
    assert [(p.role, p.place, p.spec.name) for p in parts] == [
        ("server", 0, "pair [server]"), ("client", 0, "pair [client 1]"), ("client", 1, "pair [client 2]"),
    ]  # fmt: skip
    assert parts[0].spec.env == {"A": "all", "B": "mine"}
    assert [p.spec.steps[0].run for p in parts] == ["serve", "lava-wait ready", "lava-wait ready"]
    assert all(p.spec.with_lava and p.spec.group is None for p in parts)
    same = members(parse_job("name: x\nsteps: [./run]\nlabels: {a: 1}\ngroup: {p: {count: 3, labels: {b: 2}}}\n"))
    assert [p.spec.steps[0].run for p in same] == ["./run"] * 3
    assert same[0].spec.wants() == (Want.parse("a", 1), Want.parse("b", 2))


@pytest.mark.parametrize(
    ("yaml", "line", "told"),
    [
        ("name: x\ngroup:\n  a: {count: 0, steps: [x]}\n", 3, "count"),
        ("name: x\ngroup:\n  a:\n    stps: [x]\n    steps: [x]\n", 4, "no such key: this part has count, labels"),
        ("name: x\ngroup:\n  a:\n    steps:\n    - {runn: x, run: y}\n", 5, "name, run, timeout_s"),
        ("name: x\ngroup:\n  a: {board: b1, count: 2, steps: [x]}\n", 3, "2 boards cannot all be b1"),
        ("name: x\nboard: b1\ngroup:\n  a: {steps: [x]}\n", 3, "name them in its roles"),
        ("name: x\ngroup:\n  a: {steps: [x], board: b}\n  c: {steps: [x], board: b}\n", 2, "one role only"),
        ("name: x\ngroup:\n  a: {}\n", 1, "steps"),
        ("name: x\nsteps: [x]\ngroup: {}\n", 3, "group"),
    ],
)
def test_errors_name_the_line(yaml, line, told):
    with pytest.raises(JobSpecError) as caught:
        parse_job(yaml)
    assert told in str(caught.value)
    assert f"line {line}" in str(caught.value)


# --- boards


def test_all_boards_are_given_in_one_decision_and_offered_when_all_are_ready(make_world):
    world = make_world(Policy(booting_cap=9))
    world.up("b1")
    world.up("b2")
    job = world.submit(GROUP)
    assert job == "job-1"
    assert world.replies[-1].data["members"] == [
        {"job": "job-2", "role": "server"}, {"job": "job-3", "role": "client"}, {"job": "job-4", "role": "client"},
    ]  # fmt: skip
    assert set(world.leases) == {"b1", "b2", "b3"}
    assert not world.offers
    assert [power.board for power in world.powers] == ["b3"]
    all_up(world, ["b3"])
    assert set(world.offers) == {"b1", "b2", "b3"}
    offer = next(offer for offer in world.offers.values() if offer.env["BOARDHAND_ROLE"] == "server")
    group = dict(line.split("\t") for line in offer.env["BOARDHAND_GROUP"].split("\n"))
    assert sorted(group.values()) == ["client", "client", "server"]
    assert set(group) == {"b1", "b2", "b3"}
    assert offer.steps[-1].run == "serve"
    assert world.state(job) is JobState.OFFERED
    for name in world.boards:
        world.accept(name)
    assert world.state(job) is JobState.RUNNING
    for name in world.boards:
        assert world.state(job) is JobState.RUNNING
        world.finish(name)
    assert world.state(job) is JobState.PASSED
    assert [step.name.split(" on ")[0] for step in world.summaries[job].steps] == ["server", "client 1", "client 2"]
    assert all(step.passed for step in world.summaries[job].steps)
    assert not world.leases


def test_nothing_is_held_for_a_group_that_waits(make_world):
    world = make_world(Policy(booting_cap=9))
    big = world.submit("name: big\nsteps: [x]\ngroup: {peer: {count: 4}}\n")
    assert not world.leases
    assert "only 3 known ones would do" in world.summaries[big].reason
    world.up("b1")
    single = world.submit("name: s\nsteps: [x]\n")
    assert world.offers["b1"].job == single


def test_two_groups_that_want_the_same_boards_go_one_after_the_other(make_world):
    world = make_world(Policy(booting_cap=9), boards=("b1", "b2"))
    first, second = world.submit(PAIR), world.submit(PAIR)
    all_up(world, ["b1", "b2"])
    for job in (first, second):
        assert {world.offers[b].job for b in ("b1", "b2")} == {f"job-{int(job[4:]) + n}" for n in (1, 2)}
        for name in ("b1", "b2"):
            world.accept(name)
        for name in ("b1", "b2"):
            world.finish(name)
        assert world.state(job) is JobState.PASSED


def test_more_urgent_jobs_go_before_a_group(make_world):
    world = make_world(Policy(booting_cap=9), boards=("b1", "b2"))
    held = world.submit("name: s\nboard: b1\nsteps: [x]\n")
    all_up(world, ["b1", "b2"])
    world.accept("b1")
    group = world.submit(PAIR)
    urgent = world.submit("name: u\nboard: b1\npriority: 5\nsteps: [x]\n")
    world.finish("b1")
    assert world.offers["b1"].job == urgent
    assert world.state(group) is JobState.QUEUED
    assert world.state(held) is JobState.PASSED


def test_its_boards_wake_as_there_is_room_even_if_it_has_more_than_may_boot(make_world):
    world = make_world(Policy(booting_cap=1))
    job = world.submit(GROUP)
    for _ in range(3):
        assert len(world.powers) == 1, "one at a time"
        board = world.powers[0].board
        world.obey_power(world.powers[0])
        world.up(board)
        world.wait(1)
    assert set(world.offers) == {"b1", "b2", "b3"}
    assert world.state(job) is JobState.OFFERED


def test_a_board_that_does_not_come_up_fails_the_whole_group_which_is_tried_again(make_world):
    world = make_world(Policy(booting_cap=9, wake_timeout_s=100, bench_s=5))
    world.up("b1")
    job = world.submit("name: two\nsteps: [x]\ngroup: {a: {board: b1}, b: {}}\n")
    lost = next(power.board for power in world.powers)
    world.obey_power(world.powers[0])
    world.wait(101)
    assert "did not come up" in world.scheduler.ledger.jobs[job].last_fault
    world.wait(1)
    assert lost not in world.leases
    other = next(b for b in ("b2", "b3") if b != lost)
    all_up(world, [other])
    assert {b: o.job for b, o in world.offers.items()} == {"b1": "job-2", other: "job-3"}
    assert world.scheduler.ledger.jobs[job].attempt == 2


def test_a_board_that_restarts_or_goes_off_while_it_waits_fails_the_group(make_world):
    world = make_world(Policy(booting_cap=9, bench_s=5), boards=("b1", "b2"))
    world.up("b1")
    job = world.submit(PAIR)
    world.up("b1")
    assert "restarted while it waited" in world.scheduler.ledger.jobs[job].last_fault
    world.wait(6)
    world.down("b1")
    assert "went off while it waited" in world.scheduler.ledger.jobs[job].last_fault
    assert not world.offers


def test_a_fault_while_it_runs_uses_an_attempt_of_all(make_world):
    world, job = started(make_world, PAIR.replace("name: pair", "name: pair\nattempts: 2"))
    for attempt in (1, 2):
        assert world.scheduler.ledger.jobs[job].attempt == attempt
        world.boards["b1"].boot += 1
        world.boards["b1"].work = None
        world.tell_self(world.boards["b1"])
        stopped = [stop for stop in world.stops if stop.board == "b2"]
        assert len(stopped) == attempt, "the other one is told to stop"
        if attempt == 1:
            world.boards["b2"].work = None
            for name in ("b1", "b2"):
                world.phase(name, Phase.READY)
            world.tell_self(world.boards["b2"])
            for name in ("b1", "b2"):
                world.accept(name)
    assert world.state(job) is JobState.ERROR
    assert world.ends == {job: JobState.ERROR, "job-2": JobState.ERROR, "job-3": JobState.ERROR}
    assert "all 2 attempts are used" in world.summaries[job].reason
    assert not world.leases


def test_a_failed_role_fails_the_group_when_all_are_done(make_world):
    world, job = started(make_world)
    world.finish("b1", Outcome.FAILED)
    assert world.state(job) is JobState.RUNNING
    world.finish("b2")
    assert world.state(job) is JobState.FAILED
    assert [step.passed for step in world.summaries[job].steps].count(False) == 1


@pytest.mark.parametrize("which", [0, 1, 2])
def test_it_is_cancelled_together(make_world, which):
    world, job = started(make_world)
    world.cancel(f"job-{1 + which}")
    assert world.ends == {job: JobState.CANCELLED, "job-2": JobState.CANCELLED, "job-3": JobState.CANCELLED}
    assert {stop.board for stop in world.stops} == {"b1", "b2"}
    assert not world.leases


def test_its_time_in_the_queue_can_be_over(make_world):
    world = make_world(boards=("b1",))
    job = world.submit("name: x\nqueue_timeout_s: 60\nsteps: [x]\ngroup: {a: {count: 2}}\n")
    world.wait(61)
    assert world.state(job) is JobState.ERROR
    assert "queue_timeout_s of 60 s" in world.summaries[job].reason
    assert len(world.ends) == 3


# --- calls


def test_calls_are_answered_when_they_can_be_and_again_when_repeated(make_world):
    world, _ = started(make_world)
    assert call(world, "b1", "wait ready", "w") == []
    assert call(world, "b1", "wait ready", "w") == []
    assert call(world, "b2", "send ready\nip=1.2.3.4", "s") == [
        ("b1", "w", True, "ip=1.2.3.4\n"),
        ("b2", "s", True, ""),
    ]
    assert call(world, "b2", "send ready\nip=1.2.3.4", "s") == [("b2", "s", True, "")]
    assert call(world, "b1", "wait ready", "w") == [("b1", "w", True, "ip=1.2.3.4\n")], "its answer was lost"
    assert call(world, "b1", "nonsense", "n")[0][:3] == ("b1", "n", False)


def test_messages_are_kept_over_a_restart_but_not_over_an_attempt(make_world):
    world, job = started(make_world)
    call(world, "b2", "send ready\nip=1", "s")
    call(world, "b1", "sync go", "y")
    world.start()
    assert call(world, "b1", "wait ready", "w") == [("b1", "w", True, "ip=1\n")]
    assert call(world, "b1", "sync go", "y") == []
    assert ("b1", "y", True, "") in call(world, "b2", "sync go", "z")
    for name in ("b1", "b2"):
        world.finish(name)
    assert world.state(job) is JobState.PASSED


def test_an_end_after_a_restart_is_told_to_who_waits(make_world):
    world, job = started(make_world)
    world.finish("b2")
    world.start()
    assert call(world, "b1", "wait ready", "w") == [
        ("b1", "w", False, "ready: nobody is left to send it; b2 ended without")
    ]
    world.finish("b1", Outcome.FAILED)
    assert world.state(job) is JobState.FAILED


def test_a_call_of_no_group_or_an_old_lease_is_refused(make_world):
    world = make_world(boards=("b1",))
    world.up("b1")
    world.submit()
    world.accept("b1")
    assert "no group" in call(world, "b1", "wait x")[0][3]
    work = world.boards["b1"].work
    world.finish("b1")
    world.boards["b1"].work = work
    assert "lease of this job has ended" in call(world, "b1", "wait x")[0][3]


def test_a_call_has_a_time_limit(make_world):
    world, _ = started(make_world, "call_timeout_s: 30\n" + PAIR)
    assert call(world, "b1", "wait ready", "w") == []
    assert not [a for a in world.wait(29) if isinstance(a, h.SendAnswer)]
    (answer,) = [a for a in world.wait(2) if isinstance(a, h.SendAnswer)]
    assert (answer.ok, "call_timeout_s of 30 s" in answer.text) == (False, True)


def test_the_groups_log_holds_those_of_its_boards_once(make_world):
    world, job = started(make_world)
    for name, seq in itertools.product(("b1", "b2"), (0, 1, 1)):
        number, token = world.boards[name].work
        world.report(name, WorkLog(job=number, token=token, seq=seq, text=f"{name} {seq}\n", step="s"))
    rows = world.db.execute("SELECT step, text FROM log_chunks WHERE job = ? ORDER BY n", (int(job[4:]),)).fetchall()
    assert sorted(row["text"] for row in rows) == ["b1 0\n", "b1 1\n", "b2 0\n", "b2 1\n"]
    assert {row["step"][:2] for row in rows} == {"b1", "b2"}


def test_a_failed_test_case_fails_the_job(make_world):
    world, job = started(make_world)
    world.log("b1", text="<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=ping RESULT=fail>\n")
    for name in ("b1", "b2"):
        world.finish(name)
    assert world.state(job) is JobState.FAILED
    assert "test case ping failed" in world.summaries[job].reason


# --- any course of things
