"""`boardhand learn` on a farm whose cabling nobody told it, judged by the truth that the farm was built by; and daily
work after it, in which two plugs change places."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.learn import move_a_cable, swappable
from bench.support.learn_cabling import SMALL, shuffled
from bench.support.learn_farm import ROOT, LearnFarm, private_mosquitto_at, until
from bench.support.learn_judge import judge, judge_state


@pytest.mark.timeout(480)
def test_learn_finds_the_truth_and_daily_work_notices_a_cable_that_was_moved(tmp_path):
    truth = shuffled(SMALL)
    kinds = sorted(plan.kind for plan in truth.cabling.controllers)
    assert kinds == ["netio", "snmp", "snmp"], "several controllers"
    with private_mosquitto_at(tmp_path) as url:
        farm = LearnFarm(tmp_path, SMALL, truth, url)
        with farm.running():
            found = farm.learn()
            verdict = judge(truth, found)
            state = farm.hand(do="state")
            judge_state(verdict, truth, state["on"], state["edges"])
            assert (verdict.wrong, verdict.missed) == ([], [])
            silent = next(board.name for board in truth.boards.values() if not board.heard)
            assert len(verdict.right) == 6 and silent in verdict.unknown
            assert found["unrestored"] == [] and set(found["on"]) == set(truth.found_on)
            said, good = move_a_cable(farm, found)
            assert good, said
            put_back(farm)


def put_back(farm):
    """The plugs go back where they were, and the alert ends when the board is heard on its own outlet."""
    truth = farm.truth
    place, moved = swappable(truth, farm.size.seed)
    farm.hand(do="swap", outlets=[truth.boards[place].feed[0], truth.boards[moved].feed[0]])
    farm.told("power", moved, "on")
    until(lambda: not farm.alert(moved), f"the alert of {moved} stays")
    assert farm.alert(place) == ""


@pytest.mark.timeout(480)
def test_what_a_killed_agent_had_switched_goes_back_when_it_is_there_again(tmp_path):
    size = replace(SMALL, qemu=0, lights=2, silent=0, double=0, no_client=0, consoles=0, empty=1, found_on=0)
    size = replace(size, light_boot_s=60.0, listen_s=60.0, quiet_s=60.0, at_once=8)
    truth = shuffled(size)
    with private_mosquitto_at(tmp_path) as url:
        farm = LearnFarm(tmp_path, size, truth, url)
        with farm.running():
            before = farm.on_now()
            outlets = {outlet for board in truth.boards.values() for outlet in board.feed}
            learning = subprocess.Popen(
                [sys.executable, "-m", "cli", *farm.learn_words(), "--json", "--mqtt", url],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                until(lambda: outlets <= set(farm.on_now() or ()), "learn switches nothing on")
                os.kill(farm.state["agent"], signal.SIGKILL)
                log = Path(farm.state["agent_log"])
                told = "learning was cut short"
                until(lambda: log.read_text().count(told) >= len(outlets), "the new agent says nothing of it")
                until(lambda: farm.on_now() == before, "the outlets stay on")
            finally:
                learning.kill()
                learning.wait()
