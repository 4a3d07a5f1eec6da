"""`boardhand simulate`: a day by seed, from a file, and recorded from a broker's store beside a farm that answers."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.happenings import SaveAttempt, SaveJob
from broker.jobs.life import Job, JobEvent
from broker.jobs.spec import parse_job
from broker.jobs.store import JobStore
from cli.exits import Exit
from cli.simulate_farm import _of
from tests.cli.farm_double import BrokerDouble, boardhand, free_port
from wire.energy import BoardEnergy

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_policies_side_by_side_and_the_day_kept(tmp_path: Path) -> None:
    frugal, wrong = tmp_path / "frugal.toml", tmp_path / "wrong.toml"
    frugal.write_text("[broker]\nidle_s = 60\nmin_on_s = 30\nbooting_cap = 4\n[[broker.sleep]]\nwarm = 1\n")
    wrong.write_text("[[broker.sleep]]\nwarm = -1\n")
    day = tmp_path / "day.json"
    small = ("--generate", "5", "--boards", "6", "--jobs", "30")
    made = boardhand("simulate", *small, "--save", str(day), "--policy", str(frugal), "--policy", str(frugal))
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[0] == "30 jobs on 6 boards, 24.0 h from 2026-01-05 00:00 UTC"
    assert made.stdout.splitlines()[1].split("  ")[0] == "POLICY"
    again = boardhand("simulate", str(day), "--json", "--policy", str(frugal))
    document = json.loads(again.stdout)
    base, tried = document["policies"]
    assert (base["policy"], base["done"], base["saved"]) == ("always on", 30, 0)
    assert (tried["policy"], tried["done"], tried["left"]) == (str(frugal), 30, {})
    assert 0.3 < tried["saved"] < 1
    assert f"{tried['energy_kwh']:.3f} kWh" in made.stdout
    refused = boardhand("simulate", str(day), "--policy", str(wrong))
    assert refused.returncode == Exit.USAGE
    assert "wrong.toml:2: broker.sleep.0.warm" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give one of"),
        (("day.json", "--generate", "1"), "give one of"),
        (("--generate", "1", "--record", "x"), "not allowed with"),
        (("nowhere.json",), "cannot be read"),
        (("--generate", "0"), "no count"),
        (("--generate", "1", "--save", "/nowhere/day.json"), "cannot be written"),
    ],
)
def test_what_cannot_be_done(arguments: tuple[str, ...], told: str) -> None:
    done = boardhand("simulate", *arguments, port=free_port())
    assert done.returncode == Exit.USAGE
    assert told in done.stderr


async def store_a_day(folder: Path) -> None:
    store = await JobStore.open(folder)
    job = Job(1, parse_job("name: j\nlabels: {arch: arm64}\nsteps: [a]"), datetime.now(UTC) - timedelta(hours=1))
    for event in (JobEvent.OFFER, JobEvent.ACCEPT, JobEvent.PASS):
        job.step(event)
    job.board, job.started = "b1", job.submitted
    job.ended = job.submitted + timedelta(seconds=60)
    await store.commit([SaveJob(job), SaveAttempt(1, 1, "b1", 1, job.submitted)], [])
    await store.close()


def test_a_day_is_recorded_with_the_labels_of_the_farm(server: int, tmp_path: Path) -> None:
    asyncio.run(store_a_day(tmp_path))
    first = {"board": "b1", "power": "off", "online": False, "takes_work": "asleep", "labels": {"arch": "arm64"}}
    pages = {None: {"boards": [first], "more": True}, "b1": {"boards": [first | {"board": "b2"}], "more": False}}
    with BrokerDouble(server, {"boards": lambda data: pages[data.get("after")]}):  # type: ignore[index]
        done = boardhand("simulate", "--record", str(tmp_path), "--json", port=server)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["boards"] == 2
    assert [policy["done"] for policy in json.loads(done.stdout)["policies"]] == [1, 1]
    alone = boardhand("simulate", "--record", str(tmp_path), "--json", port=free_port())
    assert "boards are taken without labels and watts" in alone.stderr
    left = [policy["left"] for policy in json.loads(alone.stdout)["policies"]]
    assert left == [{"job-1": "no known board has arch=arm64"}] * 2
    nothing = boardhand("simulate", "--record", str(tmp_path / "nowhere"), port=free_port())
    assert nothing.returncode == Exit.USAGE
    assert "give the broker's state_dir" in nothing.stderr


def test_watts_of_a_board_from_its_energy() -> None:
    def state(name: str, seconds: float, wh: float, estimated: float | None = None) -> dict[str, object]:
        return {"state": name, "measured_s": seconds, "unmeasured_s": 0, "measured_wh": wh, "estimated_wh": estimated}

    figures = dict.fromkeys(("total_s", "on_s", "sleeping_s", "measured_s", "unknown_s", "measured_wh"), 0.0)
    states = [state("idle", 3600, 2.5), state("busy", 1800, 2.0), state("sleeping", 7200, 0.8), state("on", 9, 9)]
    made = BoardEnergy.model_validate(
        {**figures, "board": "b1", "metered": True, "counting_since": NOON, "states": states}, strict=False
    )
    watts = _of(made)
    assert (watts.idle, watts.busy, watts.boot, watts.off) == (2.5, 4.0, 2.5, 0.4)
