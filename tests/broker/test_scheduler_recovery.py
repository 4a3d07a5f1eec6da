"""After a kill -9 of the broker, or while the MQTT server is away."""

from broker import happenings as h
from wire.payloads import WorkOutcome
from wire.phases import JobState, Outcome, Phase

ON_B1 = "name: t\nboard: b1\nsteps: [make]\n"


def test_restart_adopts_what_runs(world):
    world.up("b1")
    job = world.submit(ON_B1)
    world.accept("b1")
    world.log("b1")
    world.start()
    world.wait(1000)
    assert world.state(job) is JobState.RUNNING
    assert world.leases == {"b1": 1}
    world.finish("b1")
    assert world.state(job) is JobState.PASSED
    assert world.summaries[job].attempt == 1


def test_restart_when_the_accept_was_lost(world):
    world.up("b1")
    job = world.submit(ON_B1)
    offer = world.offers["b1"]
    world.boards["b1"].work = (offer.job, offer.token)
    world.offers.clear()
    world.start()
    assert world.state(job) is JobState.RUNNING
    assert not world.offers


def test_restart_when_the_board_lost_the_job(world):
    world.up("b1")
    job = world.submit(ON_B1)
    world.accept("b1")
    world.boards["b1"].work = None
    world.boards["b1"].phase = Phase.READY
    world.start()
    assert world.state(job) is JobState.RUNNING
    world.wait(16)
    assert world.state(job) is JobState.OFFERED
    assert world.summaries[job].attempt == 2


def test_restart_while_waking_repeats_the_same_command(world):
    job = world.submit(ON_B1)
    world.start()
    first, second = world.powers
    assert first.id == second.id
    assert world.leases == {"b1": 1}
    world.obey_power(second)
    world.up("b1")
    assert world.state(job) is JobState.OFFERED


def test_stale_lease_is_cleared_and_its_token_never_reused(world):
    world.leases["b2"] = 40
    world.tell(h.Disconnected())
    world.settle()
    assert world.leases == {}
    world.submit("name: t\nboard: b2\nsteps: [a]")
    assert world.leases == {"b2": 41}


def test_nothing_is_decided_while_disconnected(world):
    world.up("b1")
    job = world.submit(ON_B1)
    world.accept("b1")
    world.tell(h.Disconnected())
    world.powers.clear()
    world.wait(5000)
    later = world.submit()
    assert world.state(later) is JobState.QUEUED
    assert world.state(job) is JobState.RUNNING
    world.settle()
    assert world.state(job) is JobState.RUNNING
    world.finish("b1")
    assert world.state(job) is JobState.PASSED


def test_an_outcome_told_again_is_acknowledged_again_also_after_a_restart(world):
    world.up("b1")
    world.submit(ON_B1)
    offer = world.accept("b1")
    world.finish("b1")
    outcome = WorkOutcome(job=offer.job, token=offer.token, outcome=Outcome.PASSED)
    world.report("b1", outcome)
    assert world.acks[-1].ok
    world.acks.clear()
    world.boards["b1"].work = (offer.job, offer.token)  # the acknowledgement did not reach it
    world.start()
    assert world.acks[-1].ok
    assert not world.stops
    world.report("b1", outcome)
    assert len(world.acks) == 2
    assert world.acks[-1].ok
