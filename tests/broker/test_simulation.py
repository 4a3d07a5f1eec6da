"""A day of a 20-board farm in virtual time, and the ways a day comes to be."""

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.happenings import SaveAttempt, SaveBoot, SaveJob
from broker.jobs.life import Job, JobEvent
from broker.jobs.spec import parse_job
from broker.jobs.store import JobStore
from broker.ledger import Policy
from broker.sleep.day_recording import Day, DayBoard, DayError, DayJob, Watts, generate, read_day, record
from broker.sleep.policy import SleepRule
from broker.sleep.simulation import ALWAYS_ON, Simulation, compare, percentile

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
DAY_WITH_JOB = """{"begin": "2026-01-05T00:00:00Z", "boards": [{"name": "b1"}],
                   "jobs": [{"at_s": 1, "took_s": 1, "labels": %s}]}"""


def test_a_day_of_twenty_boards_uses_a_quarter_of_always_on_and_every_job_is_done():
    day = generate(seed=7, boards=20, jobs=200)
    frugal = Policy(idle_s=300, booting_cap=4)
    warm = replace(frugal, sleep=(SleepRule(warm=3, idle_s=300),))
    always, slept, kept = compare(day, {"frugal": frugal, "warm": warm})
    assert always.policy == ALWAYS_ON
    for tally in (always, slept, kept):
        assert (tally.done, tally.left) == (200, {})
    assert slept.energy_kwh < 0.25 * always.energy_kwh
    assert slept.saved == pytest.approx(1 - slept.energy_kwh / always.energy_kwh)
    # Most find a sleeping board: its boot is the wait, and nobody waits for two nightly runs to end.
    assert slept.wait_median_s < 60
    assert slept.wait_p95_s < 300
    assert slept.wait_max_s < 600
    assert 0 < slept.cycles < 200
    assert slept.most_booting <= 4
    # Three warm boards take most of the wait away, and cost.
    assert kept.wait_median_s < 2
    assert slept.energy_kwh < kept.energy_kwh < always.energy_kwh
    assert always.cycles == 0


def test_energy_is_counted_to_the_watt_hour():
    watts = Watts(idle=2, busy=4, boot=3, off=1)
    board = DayBoard(name="b1", boot_s=[100], watts=watts)
    job = DayJob(at_s=0, took_s=1000)
    tally = Simulation(Day(begin=BEGIN, length_s=7200, boards=[board], jobs=[job]), Policy(idle_s=0)).run("x")
    off_s, boot_s, busy_s = 0.5, 100.0, 1000.0
    idle_s = 7200 - off_s - boot_s - busy_s
    wh = (off_s * 1 + boot_s * 3 + busy_s * 4 + idle_s * 2) / 3600
    assert tally.energy_kwh == pytest.approx(wh / 1000, rel=1e-3)
    assert tally.wait_max_s == pytest.approx(off_s + boot_s, abs=0.5)
    assert tally.cycles == 1


def test_what_can_never_be_done_is_said_and_ends_the_day():
    jobs = [DayJob(at_s=5, took_s=1, labels={"gpu": True}), DayJob(at_s=6, took_s=1)]
    tally = Simulation(Day(begin=BEGIN, boards=[DayBoard(name="b1")], jobs=jobs), Policy()).run("x")
    assert tally.done == 1
    assert tally.left == {"job-1": "no known board has gpu=true"}


def test_percentile_is_the_nearest_rank():
    assert percentile([], 0.95) == 0
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.95) == 95


# --- days ---------------------------------------------------------------------------------------------------------


async def stored_day(folder):
    store = await JobStore.open(folder)
    saved = []
    for number, minutes in enumerate((10, 20, 30), 1):
        spec = parse_job(f"name: j{number}\nlabels: {{arch: arm64}}\npriority: {number}\nsteps: [a]")
        job = Job(number, spec, BEGIN + timedelta(minutes=minutes), submitter="ci")
        saved.append(SaveAttempt(number, 1, "b1", number, job.submitted))
        if number < 3:
            for event in (JobEvent.OFFER, JobEvent.ACCEPT, JobEvent.PASS if number == 1 else JobEvent.FAIL):
                job.step(event)
            job.board, job.started = "b1", job.submitted + timedelta(seconds=30)
            job.ended = job.started + timedelta(seconds=100)
        saved.insert(0, SaveJob(job))
    boots = [SaveBoot("b1", took_s, BEGIN) for took_s in (40.0, 50.0)]
    await store.commit([*saved, *boots, SaveBoot("b2", 9.0, BEGIN)], [])
    return store


async def test_a_day_is_recorded_from_the_store_of_a_running_broker(tmp_path):
    store = await stored_day(tmp_path)
    try:
        known = {"b1": DayBoard(name="b1", labels={"arch": "arm64"})}
        day = record(tmp_path, known, BEGIN, BEGIN + timedelta(hours=1))
    finally:
        await store.close()
    assert [(board.name, board.labels, board.boot_s) for board in day.boards] == [
        ("b1", {"arch": "arm64"}, [40.0, 50.0]),
        ("b2", {}, [9.0]),
    ]
    assert [(job.at_s, job.took_s, job.priority, job.submitter, job.failed) for job in day.jobs] == [
        (600, 100, 1, "ci", False),
        (1200, 100, 2, "ci", True),
    ]
    path = tmp_path / "day.json"
    path.write_text(day.model_dump_json(exclude_defaults=True))
    assert read_day(path) == day
    assert Simulation(day, Policy()).run("x").done == 2
    assert record(tmp_path, {}, BEGIN + timedelta(minutes=15), BEGIN + timedelta(hours=1)).jobs[0].at_s == 300


def test_days_that_cannot_be_read(tmp_path):
    with pytest.raises(DayError, match="cannot be opened"):
        record(tmp_path, {}, BEGIN, BEGIN + timedelta(hours=1))
    (tmp_path / "broker.sqlite3").write_bytes(b"no database" * 500)
    with pytest.raises(DayError, match="cannot be read"):
        record(tmp_path, {}, BEGIN, BEGIN + timedelta(hours=1))
    (tmp_path / "broker.sqlite3").unlink()
    sqlite3.connect(tmp_path / "broker.sqlite3").close()
    with pytest.raises(DayError, match="of a broker of this version"):
        record(tmp_path, {}, BEGIN, BEGIN + timedelta(hours=1))
    path = tmp_path / "day.json"
    with pytest.raises(DayError, match="No such file"):
        read_day(path)
    for text, told in [
        ("{", "EOF"),
        ('{"begin": "2026-01-05T00:00:00Z", "boards": []}', "boards: List should have at least 1"),
        (DAY_WITH_JOB % '{"m": ">= x"}', "compares with no number"),
        ('{"begin": "2026-01-05T00:00:00Z", "boards": [{"name": "b1", "boot_s": [0]}]}', "boards.0.boot_s.0"),
    ]:
        path.write_text(text)
        with pytest.raises(DayError, match=told):
            read_day(path)
