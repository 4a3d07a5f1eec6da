"""A whole agent's power commands and an action that holds the power: neither cuts into the other."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.agent.bench import DEADLINE_S, result_of
from tests.agent.test_flash_mqtt import EVENT, answered, ask, bench, halfway, stage

__all__ = ["bench"]


def until(what, text):
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end, text
        time.sleep(0.02)


@pytest.fixture
def direct(bench):
    """The flash takes the board as it is: no mode, so nothing of it waits for the power by itself."""
    command = [sys.executable, "-S", "-E", str(bench.folder / "tool.py"), "{image}", str(bench.chip)]
    with bench.settings.open("a") as file:
        file.write(f'[boards.pi.flash.direct]\ntool = "own"\ncommand = {json.dumps(command)}\n')
    Path(f"{bench.chip}.hang").touch()
    return bench


def switched(bench):
    log = bench.outlets / "log"
    return log.read_text().splitlines() if log.exists() else []


def ended_well(bench, heard, transaction):
    Path(f"{bench.chip}.hang").unlink()
    said = heard.wait(answered("flash", transaction))["payload"]
    assert said["ok"], said
    assert bench.chip.read_bytes() == bench.image.read_bytes()


def test_a_boot_retry_whose_hook_took_its_time_does_not_cut_the_power_of_a_flash(direct):
    """The board is late, and its cycle waits for a hook; meanwhile somebody flashes it."""
    bench = direct
    hook = bench.folder / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {bench.folder}/asked\nwhile [ ! -e {bench.folder}/go ]; do sleep 0.05; done\n")
    hook.chmod(0o755)
    text = bench.settings.read_text().replace("boot_timeout_s = 120", "boot_timeout_s = 5", 1)
    bench.settings.write_text(text + f'[[hooks]]\nat = "before-power-on"\nrun = ["{hook}"]\ntimeout_s = 120\n')
    heard = bench.ready()
    # Switched on by hand, as it were: the agent finds it on, and waits for its boot.
    (bench.outlets / "pi").write_text("on")
    bench.publish("boardhand/agent/lab/request/read", json.dumps({"transaction": "r", "data": {"board": "pi"}}))
    until((bench.folder / "asked").exists, "the retry has not come")
    ask(bench, "flash", "t1", image="good.img", method="direct")
    heard.wait(stage("begun"))
    (bench.folder / "go").touch()
    told = heard.wait(lambda m: m["topic"] == EVENT and "not cycled now" in m["payload"]["details"].get("what", ""))
    assert told["payload"]["details"]["name"] == "boot"
    assert "flash is under way" in told["payload"]["details"]["what"]
    halfway(bench)
    assert switched(bench) == []
    ended_well(bench, heard, "t1")
    # The retry is not lost: it comes when the board is late after the flash.
    until(lambda: switched(bench)[:2] == ["pi off", "pi on"], "the board is not cycled any more")


def test_commands_that_waited_behind_another_are_refused_when_a_flash_has_begun(direct):
    """And the flash waits for the one that is under way."""
    bench = direct
    text = bench.settings.read_text()
    bench.settings.write_text(text.replace("verify_deadline_s = 1.0", "verify_deadline_s = 1.0\ntimeout_s = 100"))
    heard = bench.ready()
    # The outlet waits until we write to it.
    slow = bench.outlets / "slow"
    os.mkfifo(slow)
    bench.publish("boardhand/board/pi/power/set", '{"power": "on", "id": "first"}')
    until((bench.outlets / "begun").exists, "the first command has not begun")
    bench.publish("boardhand/board/pi/power/set", '{"power": "off", "id": "second"}')
    ask(bench, "flash", "t1", image="good.img", method="direct")
    heard.wait(stage("begun"))
    slow.write_text("0")
    slow.unlink()
    first, second = heard.wait_all(result_of("pi", "first"), result_of("pi", "second"))
    assert (first["payload"]["ok"], first["payload"]["power"]) == (True, "on")
    assert (second["payload"]["ok"], second["payload"]["error"]["kind"]) == (False, "busy")
    assert "flash is under way" in second["payload"]["error"]["message"]
    halfway(bench)
    assert switched(bench) == ["pi on"]
    ended_well(bench, heard, "t1")
