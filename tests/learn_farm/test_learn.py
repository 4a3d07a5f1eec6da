"""`boardhand learn` on a farm whose cabling nobody told it: a QEMU board, light boards on two PDUs, an empty outlet."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.learn import ROOT, LearnFarm, Size, measure, private_mosquitto_at

WAIT_S = 90.0


@pytest.mark.timeout(480)
def test_learn_finds_the_cabling(tmp_path):
    size = Size(qemu=1, lights=3, empty=1, at_once=2, light_boot_s=2.0, listen_s=20.0, quiet_s=15.0, seed=7)
    result = measure(size, tmp_path)
    assert result["faults"] == []
    found = result["found"]
    assert len(found["rows"]) == 4 and found["unrestored"] == [] and found["on"] == []
    assert [item["because"].startswith("nothing that goes with it was heard") for item in found["unknown"]] == [True]
    assert all(row["idle_w"] for row in found["rows"] if row["feed"][0].startswith("pdu"))
    assert all(row["boot_s"] for row in found["rows"])


def boardhand(url, *words):
    command = [sys.executable, "-m", "cli", *words, "--mqtt", url]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


def on_now(url):
    """The outlets that have power, as the controllers say; None while the agent is not there."""
    done = boardhand(url, "outlets", "--json")
    if done.returncode:
        return None
    controllers = json.loads(done.stdout.splitlines()[0])["controllers"]
    return {f"{c['name']}:{o['outlet']}" for c in controllers for o in c.get("outlets", []) if o["power"] == "on"}


def until(condition, what):
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.3)
    return found


@pytest.mark.timeout(480)
def test_what_a_killed_agent_had_switched_goes_back_when_it_is_there_again(tmp_path):
    size = Size(qemu=0, lights=2, empty=0, at_once=2, light_boot_s=60.0, listen_s=60.0, quiet_s=60.0, seed=3)
    with private_mosquitto_at(tmp_path) as url:
        farm = LearnFarm(tmp_path, size, url)
        with farm.running() as state:
            words = [word for outlet in farm.outlets() for word in ("--outlet", outlet)]
            command = [sys.executable, "-m", "cli", "learn", "--mqtt", url, "--json", "--at-once", "2", *words]
            learning = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                until(lambda: on_now(url) == set(farm.outlets()), "learn switches nothing on")
                os.kill(state["agent"], signal.SIGKILL)
                log = Path(state["agent_log"])
                until(lambda: log.read_text().count("learning was cut short") == 2, "the new agent says nothing of it")
                until(lambda: on_now(url) == set(), "the outlets stay on")
            finally:
                learning.kill()
                learning.wait()
