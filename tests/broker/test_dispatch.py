"""What the scheduler makes of its index: turns of submitters, shelves, and reasons for very many jobs."""

from broker import happenings as h
from broker.jobs.spec import parse_job
from broker.ledger import Policy
from broker.matching.dispatch import RENEWED_PER_TICK, TOLD_AT_ONCE, TOLD_PER_TICK
from broker.sleep.wake_room import Shelf
from wire.phases import JobState, Phase

ANY = "name: t\nsteps: [a]\n"


def submit(world, by, yaml=ANY):
    tag = f"by-{by}-{next(world.tags)}"
    world.tell(h.Submit(tag, parse_job(yaml), by))
    return next(reply for reply in world.replies if reply.tag == tag).data["job"]


def test_submitters_take_turns_on_one_board(make_world):
    world = make_world(boards=("b1",))
    many = [submit(world, "ci") for _ in range(6)]
    few = [submit(world, "ada") for _ in range(2)]
    order = []
    world.obey_power(world.powers[0])
    world.up("b1")
    for _ in range(8):
        order.append(world.accept("b1").job)
        world.mono += 100
        world.finish("b1")
    assert order[:4] == [many[0], few[0], many[1], few[1]] or order[:4] == [many[0], few[0], few[1], many[1]]
    assert sorted(order) == sorted(many + few)


def test_who_holds_a_board_is_known_after_a_restart(make_world):
    world = make_world(boards=("b1", "b2"))
    world.up("b1")
    world.up("b2")
    submit(world, "ci")
    world.accept("b1")
    world.start()
    assert world.scheduler.dispatch.shares.share("ci")[0] == 1
    world.finish("b1")
    assert world.scheduler.dispatch.shares.share("ci")[0] == 0


def test_a_reason_that_changes_for_very_many_is_told_bit_by_bit(make_world):
    world = make_world(Policy(max_queued=10_000), boards=("b1",))
    world.phase("b1", Phase.MAINTENANCE, "fan")
    jobs = [world.submit() for _ in range(1000)]
    assert "in maintenance (fan)" in world.summaries[jobs[0]].reason
    assert "in maintenance (fan)" in world.summaries[jobs[-1]].reason
    world.summaries.clear()
    world.phase("b1", Phase.FAULT, "smoke")
    assert not world.summaries
    world.wait(0)
    assert 0 < len(world.summaries) <= TOLD_AT_ONCE + TOLD_PER_TICK
    for _ in range(1000 // TOLD_PER_TICK + 1):
        world.wait(0)
    assert set(world.summaries) == set(jobs)
    assert all("in fault (smoke)" in summary.reason for summary in world.summaries.values())


def test_who_asks_hears_the_reason_of_now(make_world):
    world = make_world(boards=("b1",))
    world.phase("b1", Phase.MAINTENANCE, "fan")
    job = world.scheduler.ledger.jobs[world.submit()]
    world.phase("b1", Phase.FAULT, "smoke")
    assert "fan" in job.reason
    world.scheduler.explain(job)
    assert "smoke" in job.reason


def test_reasons_of_very_many_kinds_are_renewed_over_several_ticks(make_world):
    world = make_world(boards=("b1",), labels={"b1": {"n": 5}})
    world.phase("b1", Phase.MAINTENANCE)
    jobs = [world.submit(f"name: t\nlabels: {{n: '>= {n}'}}\nsteps: [a]") for n in range(-100, 5)]
    world.phase("b1", Phase.FAULT, "smoke")
    for _ in range(len(jobs) // RENEWED_PER_TICK + 1):
        world.wait(0)
    assert all("smoke" in world.summaries[job].reason for job in jobs)


def test_a_shelf_of_its_own_cap(make_world):
    labels = {name: {"shelf": "left" if name < "b4" else "right"} for name in ("b1", "b2", "b3", "b4")}
    policy = Policy(booting_cap=4, shelves=(Shelf(booting_cap=1),))
    world = make_world(policy, boards=tuple(labels), labels=labels)
    jobs = [world.submit() for _ in range(4)]
    assert {command.board for command in world.powers} == {"b1", "b4"}
    assert "booting on shelf left" in world.summaries[jobs[3]].reason
    world.obey_power(world.powers[0])
    world.up("b1")
    assert {command.board for command in world.powers} == {"b4", "b2"}


def test_a_job_whose_time_in_the_queue_is_over_says_why_it_waited(make_world):
    world = make_world(boards=("b1",))
    world.up("b1")
    world.submit()
    job = world.submit(ANY + "queue_timeout_s: 30\n")
    world.wait(31)
    assert world.state(job) is JobState.ERROR
    assert "queue_timeout_s of 30 s: waits for b1 to be free" in world.summaries[job].reason
