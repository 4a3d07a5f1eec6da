"""Reloads in the middle of a flash and of a hook: what is under way goes on as it began; what would
be another for it is refused in words, and taken up when it is over."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.agent.bench import result_of
from tests.agent.test_flash_mqtt import EVENT, TABLES, TOOL, answered, ask, halfway, stage, writers
from tests.agent.test_reload import Reloads, board, last, until

STATE = "boardhand/board/pi/state"


@pytest.fixture
def bench(tmp_path, mqtt):
    bench = Reloads(tmp_path, mqtt)
    yield bench
    bench.close()


@pytest.fixture
def flashing(bench, tmp_path):
    """A board whose flash waits at half of the image."""
    bench.images, bench.chip = tmp_path / "images", tmp_path / "chip"
    bench.images.mkdir()
    (tmp_path / "tool.py").write_text(TOOL)
    command = [sys.executable, "-S", "-E", str(tmp_path / "tool.py"), "{image}", str(bench.chip)]
    bench.add(TABLES.replace("COMMAND", json.dumps(command)).replace("FOLDER", str(bench.images)))
    bench.image = bench.images / "good.img"
    bench.image.write_bytes(os.urandom(40_000))
    Path(f"{bench.chip}.hang").touch()
    bench.heard = bench.ready()
    ask(bench, "flash", "t1", image="good.img")
    bench.heard.wait(stage("write"))
    halfway(bench)
    return bench


def ended(bench):
    Path(f"{bench.chip}.hang").unlink()
    said = bench.heard.wait(answered("flash", "t1"))["payload"]
    assert said["ok"], said
    assert bench.chip.read_bytes() == bench.image.read_bytes()
    assert said["data"]["mode"] == "normal"


def place(heard):
    said = last(heard, STATE)
    return said["phase"], said["reason"], said["power"]


def log_of(bench):
    path = bench.outlets / "log"
    return path.read_text().splitlines() if path.exists() else []


def test_a_flash_does_not_notice_a_reload_that_is_not_about_it(flashing):
    bench, heard = flashing, flashing.heard
    before, tool, switched = place(heard), writers(bench.chip), log_of(bench)
    assert len(tool) == 1
    bench.remove("boards.refuses")
    bench.add(board("late", 9))
    # Of the board itself: what a flash does not go by.
    bench.edit("boot_timeout_s = 120", 'boot_timeout_s = 110\nlabels = {shelf = "3"}\nboot_retries = 0')
    bench.add('[[hooks]]\nat = "after-power-off"\nrun = ["/bin/true"]\n')
    told = bench.ask(heard, "reload")
    assert told["ok"], told
    assert told["data"]["boards"] == {"added": ["late"], "removed": ["refuses"], "changed": ["pi"]}
    assert (writers(bench.chip), log_of(bench)) == (tool, switched), "the tool writes on, and nothing was switched"
    assert place(heard) == before, "still in maintenance, for the same reason"
    bench.publish("boardhand/board/pi/power/set", '{"power": "off", "id": "mine"}')
    assert heard.wait(result_of("pi", "mine"))["payload"]["error"]["kind"] == "busy", "its power is still held"
    ended(bench)


WHAT_A_FLASH_GOES_BY = [
    ('normal = ["strap off", "power cycle"]', 'normal = ["strap off", "power on"]'),
    ('safe_mode = "dark"', 'safe_mode = "normal"'),
    ('strap = {outlet = "rack:strap"}', 'strap = {outlet = "rack:button"}'),
    ('feed = ["rack:pi"]', 'feed = ["rack:other"]'),
    ("verify_deadline_s = 1.0", "verify_deadline_s = 2.0"),
]
"""Its modes, its method, an actuator, its feed, the controller of both."""


def test_what_a_flash_goes_by_is_refused_in_words_and_taken_up_after_it(flashing):
    bench, heard = flashing, flashing.heard
    switched, whole = log_of(bench), bench.settings.read_text()
    for old, new in WHAT_A_FLASH_GOES_BY:
        bench.settings.write_text(whole)
        bench.edit(old, new)
        bench.edit("boot_timeout_s = 120", "boot_timeout_s = 110")
        refused = bench.ask(heard, "reload")["error"]
        assert (refused["kind"], refused["key"]) == ("busy", "boards.pi"), new
        words = "board pi: flash is under way, and its settings are others; wait for it, or cancel it"
        assert refused["message"] == words
        assert words in bench.log()
        assert bench.ask(heard, "reload", check=True)["ok"], "what would be can be looked at"
        assert log_of(bench) == switched
    ended(bench)
    assert log_of(bench)[-2:] == ["pi on", "pi off"], "back by the mode that it began with, and off as before"
    told = bench.ask(heard, "reload")
    assert told["ok"], told
    assert len(told["data"]["changes"]) == 2
    assert bench.switch(heard, "pi", "on")["ok"]


def test_a_board_that_is_flashed_is_not_taken_out_and_what_needs_a_restart_waits_for_one(flashing):
    bench, heard = flashing, flashing.heard
    whole = bench.settings.read_text()
    for table in ("boards.pi", "boards.pi.actuators", "boards.pi.modes", "boards.pi.flash.system"):
        bench.remove(table)
    refused = bench.ask(heard, "reload")["error"]
    assert (refused["kind"], "flash is under way" in refused["message"]) == ("busy", True)
    # Roots, and where images lie, are taken up by a restart alone; the rest may be had without them.
    bench.settings.write_text(whole.replace(str(bench.images), str(bench.folder)))
    bench.add(board("late", 9))
    refused = bench.ask(heard, "reload")["error"]
    assert (refused["kind"], refused["key"]) == ("refused", "flash.folders")
    told = bench.ask(heard, "reload", partial=True)
    assert told["ok"], told
    assert (told["data"]["boards"]["added"], [late["key"] for late in told["data"]["restart"]]) == (
        ["late"],
        ["flash.folders"],
    )
    ended(bench)


def hooked(bench, name, code):
    """A hook that says when it is asked, waits, and ends with a code."""
    hook = bench.folder / name
    hook.write_text(
        f"#!/bin/sh\ntouch {hook}.asked\nwhile [ ! -e {hook}.go ]; do sleep 0.05; done\n"
        f"echo {name} says so\nexit {code}\n"
    )
    hook.chmod(0o755)
    return f'[[hooks]]\nat = "before-power-on"\nrun = ["{hook}"]\ntimeout_s = 120\n'


def test_a_hook_that_runs_runs_to_its_end_and_its_word_counts(bench):
    old, new = hooked(bench, "old", 3), hooked(bench, "new", 0)
    bench.add(old)
    heard = bench.ready()
    bench.publish("boardhand/board/pi/power/set", '{"power": "on", "id": "one"}')
    until((bench.folder / "old.asked").exists)
    bench.edit(old, new)
    bench.edit("boot_timeout_s = 120", "boot_timeout_s = 110")
    told = bench.ask(heard, "reload")
    assert told["ok"], told
    assert {change["key"] for change in told["data"]["changes"]} == {"hooks", "boards.pi.boot_timeout_s"}
    assert not (bench.folder / "new.asked").exists()
    (bench.folder / "old.go").touch()
    said = heard.wait(result_of("pi", "one"))["payload"]
    assert (said["ok"], said["error"]["kind"]) == (False, "refused")
    assert "says no: old says so" in said["error"]["message"]
    ran = heard.wait(lambda m: m["topic"] == EVENT and m["payload"]["type"] == "hook")["payload"]["details"]
    assert ran["exit_code"] == 3, ran
    bench.publish("boardhand/board/pi/power/set", '{"power": "on", "id": "two"}')
    until((bench.folder / "new.asked").exists)
    (bench.folder / "new.go").touch()
    assert heard.wait(result_of("pi", "two"))["payload"]["ok"]
    assert log_of(bench) == ["pi on"]


def test_a_board_that_is_taken_out_while_its_hook_runs_is_not_switched(bench):
    hook = hooked(bench, "hook", 0)
    bench.add(hook)
    heard = bench.ready()
    bench.publish("boardhand/board/pi/power/set", '{"power": "on", "id": "one"}')
    until((bench.folder / "hook.asked").exists)
    bench.remove("boards.pi")
    assert bench.ask(heard, "reload")["data"]["boards"]["removed"] == ["pi"]
    (bench.folder / "hook.go").touch()
    said = heard.wait(result_of("pi", "one"))["payload"]
    assert (said["ok"], said["error"]["kind"]) == (False, "unknown-board")
    assert log_of(bench) == []
    assert bench.switch(heard, "bone", "on")["ok"]
