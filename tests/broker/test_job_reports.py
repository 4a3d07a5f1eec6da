"""Artifacts, output and verdicts as boards report them to the scheduler: in time, twice, too late; and old stores."""

import base64
import sqlite3
from datetime import UTC, datetime

import pytest

from broker import happenings as h
from broker.jobs.result_store import MAX_TIMELINE
from broker.jobs.store import STORE_FILE, JobStore, _save
from broker.store.schema import VERSION_1
from wire.payloads import StepResult, WorkArtifact, WorkOutcome
from wire.phases import JobState, Outcome

JOB = "name: t\nboard: b1\nsteps: [{name: a, run: x, exit_codes: [0, 77]}]\nartifacts: {paths: ['*.log'], max_mb: 1}\n"


def artifact(token, data=b"x", n=0):
    return WorkArtifact(job="job-1", token=token, n=n, name="a.log", offset=0, data=base64.b64encode(data).decode())


def kept(actions):
    return [action for action in actions if isinstance(action, h.SaveArtifact)]


def test_the_offer_names_the_artifacts_and_pieces_are_stored(world):
    world.up("b1")
    world.submit(JOB)
    offer = world.offers["b1"]
    assert (offer.artifacts.paths, offer.artifacts.max_bytes) == (["*.log"], 1 << 20)
    assert offer.steps[0].exit_codes == [0, 77]
    world.accept("b1")
    (piece,) = kept(world.report("b1", artifact(1)))
    assert (piece.job, piece.attempt, piece.max_bytes) == (1, 1, 1 << 20)


def test_a_piece_of_an_old_lease_is_not_stored_and_the_board_is_told(world):
    world.up("b1")
    world.submit(JOB)
    world.accept("b1")
    assert not kept(world.report("b1", artifact(7)))
    assert world.stops[-1].token == 7
    world.finish("b1")
    assert not kept(world.report("b1", artifact(1)))
    assert world.stops[-1].token == 1


def test_a_board_that_sends_what_nobody_asked_for(world):
    world.up("b1")
    world.submit("name: t\nboard: b1\nsteps: [x]\n")
    world.accept("b1")
    assert not kept(world.report("b1", artifact(1)))


def finish(world, *codes, outcome=Outcome.PASSED):
    steps = [StepResult(name="a", exit_code=code) for code in codes]
    world.report("b1", WorkOutcome(job="job-1", token=1, outcome=outcome, steps=steps, log_chunks=1))


@pytest.mark.parametrize(
    ("code", "said", "state"),
    [
        (77, Outcome.FAILED, JobState.PASSED),  # an old client, which knows no exit codes
        (77, Outcome.PASSED, JobState.PASSED),
        (1, Outcome.PASSED, JobState.FAILED),
    ],
)
def test_the_verdict_is_the_brokers(world, code, said, state):
    world.up("b1")
    job = world.submit(JOB)
    world.accept("b1")
    finish(world, code, outcome=said)
    assert world.state(job) is state
    assert world.summaries[job].steps[0].passed is (state is JobState.PASSED)
    finish(world, 0)  # and once more, and otherwise
    assert world.state(job) is state and world.acks[-1].ok


def test_patterns_in_the_output_decide(world):
    world.up("b1")
    job = world.submit(JOB + "success: {not_output: [Oops]}\n")
    world.accept("b1")
    world.log("b1", 0, "kernel Oo")
    world.log("b1", 0, "kernel Oo")
    world.log("b1", 1, "ps: 1\n")
    finish(world, 0)
    assert world.state(job) is JobState.FAILED
    assert world.summaries[job].reason == "the output holds 'Oops'"


def test_a_timeline_has_an_end(world):
    entries = [h.TimelineEntry(1, 1, datetime.now(UTC), f"n{n}") for n in range(MAX_TIMELINE + 50)]
    world.submit()
    for entry in entries:
        _save(world.db, entry)
    assert world.db.execute("SELECT count(*) FROM timeline").fetchone()[0] == MAX_TIMELINE


OLD_SPEC = (
    '{"name":"old","labels":{"arch":"arm64"},"board":null,"priority":0,"steps":[{"name":"","run":"make","timeout_s":null}],'
    '"env":{},"timeout_s":3600.0,"attempts":2,"queue_timeout_s":null}'
)


async def test_a_store_of_the_first_version_is_taken_up(tmp_path):
    old = sqlite3.connect(tmp_path / STORE_FILE)
    old.executescript(VERSION_1 + ";PRAGMA user_version = 1;")
    old.execute(
        "INSERT INTO jobs (spec, name, state, ended_flag, attempt, start_faults, run_faults, submitted, steps, avoid)"
        " VALUES (?, 'old', 'queued', 0, 0, 0, 0, '2026-01-01T00:00:00+00:00', '[]', '[]')",
        (OLD_SPEC,),
    )
    old.commit()
    old.close()
    store = await JobStore.open(tmp_path)
    try:
        found = await store.recover()
        (job,) = found.jobs
        assert (job.id, job.spec.steps[0].run, job.spec.artifacts, job.state) == (
            "job-1",
            "make",
            None,
            JobState.QUEUED,
        )
        assert found.other_boots == [] and await store.results.timeline(1) == []
    finally:
        await store.close()
