"""Modes and flashes of a whole agent, asked over MQTT and by the command line; the agent killed in the middle."""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.agent.bench import DEADLINE_S, Bench, result_of
from tests.cli.farm_double import boardhand

TOOL = """
import os, sys, time
image, chip = open(sys.argv[1], "rb").read(), sys.argv[2]
with open(chip, "wb") as out:
    for part in range(4):
        out.write(image[len(image) * part // 4 : len(image) * (part + 1) // 4])
        out.flush()
        print(f"{25 * (part + 1)}%", flush=True)
        while part == 1 and os.path.exists(chip + ".hang"):
            time.sleep(0.05)
"""
TABLES = """
[boards.pi.actuators]
strap = {outlet = "rack:strap"}

[boards.pi.modes]
normal = ["strap off", "power cycle"]
flash = ["power off", "strap on", "power on"]
dark = ["power off", "strap off"]

[boards.pi.flash.system]
tool = "own"
command = COMMAND
mode = "flash"
safe_mode = "dark"

[flash]
folders = ["FOLDER"]
"""
EVENT, ALERT = "boardhand/event/pi", "boardhand/board/pi/alert/flash"


@pytest.fixture
def bench(tmp_path: Path, mqtt):
    bench = Bench(tmp_path, mqtt)
    bench.images, bench.chip = tmp_path / "images", tmp_path / "chip"
    bench.images.mkdir()
    (tmp_path / "tool.py").write_text(TOOL)
    command = [sys.executable, "-S", "-E", str(tmp_path / "tool.py"), "{image}", str(bench.chip)]
    with bench.settings.open("a") as file:
        file.write(TABLES.replace("COMMAND", json.dumps(command)).replace("FOLDER", str(bench.images)))
    bench.image = bench.images / "good.img"
    bench.image.write_bytes(os.urandom(40_000))
    yield bench
    bench.close()


def stage(name):
    def wanted(message):
        details = message["payload"].get("details", {})
        return message["topic"] == EVENT and details.get("stage") == name

    return wanted


def outlet(bench, name):
    path = bench.outlets / name
    return path.read_text() if path.exists() else "off"


def ask(bench, verb, transaction, **data):
    payload = json.dumps({"transaction": transaction, "data": {"board": "pi", **data}})
    bench.publish(f"boardhand/agent/lab/request/{verb}", payload)


def answered(verb, transaction):
    return lambda m: (
        m["topic"] == f"boardhand/agent/lab/response/{verb}" and m["payload"].get("transaction") == transaction
    )


def test_a_flash_over_mqtt_tells_how_far_it_is_and_what_came_of_it(bench):
    heard = bench.ready()
    ask(bench, "flash", "t1", image="good.img")
    said = heard.wait(answered("flash", "t1"))["payload"]
    assert said["ok"], said
    digest = hashlib.sha256(bench.image.read_bytes()).hexdigest()
    assert (said["data"]["sha256"], said["data"]["mode"]) == (digest, "normal")
    assert bench.chip.read_bytes() == bench.image.read_bytes()
    details = [m["payload"]["details"] for m in heard.history if m["topic"] == EVENT and "action" in str(m["payload"])]
    stages = [each["stage"] for each in details if each.get("action") == "flash"]
    assert list(dict.fromkeys(stages)) in (
        ["begun", "check", "mode", "write"],
        ["begun", "check", "mode", "write", "done"],
    )
    assert [each["message"] for each in details if each.get("percent") == 100.0 and each["stage"] == "mode"] == [
        "in mode flash",
        "in mode normal",
    ]
    phases = [m["payload"]["phase"] for m in heard.history if m["topic"] == "boardhand/board/pi/state"]
    assert "maintenance" in phases
    # It was off before.
    assert (outlet(bench, "pi"), outlet(bench, "strap")) == ("off", "off")


def test_a_board_that_is_being_flashed_is_left_alone_and_can_be_given_up(bench):
    heard = bench.ready()
    Path(f"{bench.chip}.hang").touch()
    ask(bench, "flash", "t1", image="good.img")
    heard.wait(stage("write"))
    halfway(bench)
    bench.publish("boardhand/board/pi/power/set", '{"power": "off", "id": "mine"}')
    refused = heard.wait(result_of("pi", "mine"))["payload"]
    assert (refused["ok"], refused["error"]["kind"]) == (False, "busy")
    assert "flash is under way" in refused["error"]["message"]
    ask(bench, "mode", "t2", mode="normal")
    assert heard.wait(answered("mode", "t2"))["payload"]["error"]["kind"] == "busy"
    ask(bench, "cancel-action", "t3")
    alert, said = heard.wait_all(lambda m: m["topic"] == ALERT, answered("flash", "t1"))
    assert "was cut short; flash again" in alert["payload"]["what"]
    assert said["payload"]["error"]["kind"] == "interrupted"
    assert (outlet(bench, "pi"), outlet(bench, "strap")) == ("off", "off")
    assert len(bench.chip.read_bytes()) < 40_000


def halfway(bench):
    """Wait until half of the image is written, where the tool then waits."""
    end = time.monotonic() + DEADLINE_S
    while not bench.chip.exists() or bench.chip.stat().st_size < 20_000:
        assert time.monotonic() < end, "the tool does not write"
        time.sleep(0.02)


def writers(chip):
    """Processes that have the chip open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if entry.readlink() == chip:
                found.append(entry.parts[2])
        except OSError:
            continue
    return found


def test_an_agent_that_is_killed_in_a_flash_says_so_when_it_is_back_and_the_board_is_safe(bench):
    heard = bench.ready()
    Path(f"{bench.chip}.hang").touch()
    ask(bench, "flash", "t1", image="good.img")
    heard.wait(stage("write"))
    halfway(bench)
    assert (outlet(bench, "pi"), outlet(bench, "strap"), len(writers(bench.chip))) == ("on", "on", 1)
    bench.end(signal.SIGKILL)
    end = time.monotonic() + DEADLINE_S
    while writers(bench.chip):
        assert time.monotonic() < end, "the tool lives on"
        time.sleep(0.05)
    bench.start()
    alert, _ = heard.wait_all(lambda m: m["topic"] == ALERT, stage("failed"))
    said = alert["payload"]["what"]
    assert "the agent was stopped in the middle of flash system: good.img; interrupted: flash again" in said
    ask(bench, "flash", "t1", image="good.img")
    assert heard.wait(answered("flash", "t1"))["payload"]["error"]["kind"] == "interrupted"
    end = time.monotonic() + DEADLINE_S
    while (outlet(bench, "pi"), outlet(bench, "strap")) != ("off", "off"):
        assert time.monotonic() < end
        time.sleep(0.05)
    Path(f"{bench.chip}.hang").unlink()
    end = time.monotonic() + DEADLINE_S
    while (done := boardhand("flash", "pi", str(bench.image), port=bench.mqtt.port)).returncode == 1:
        assert "being put back" in done.stderr, done.stderr
        assert time.monotonic() < end
    assert done.returncode == 0, done.stderr
    assert f"flashed {bench.image} (40000 octets, raw) by own in" in done.stdout
    assert bench.chip.read_bytes() == bench.image.read_bytes()
    heard.wait(stage("done"))
    assert [m["payload"] for m in heard.history if m["topic"] == ALERT][-1] in (None, "")


def test_the_command_line_shows_modes_changes_them_and_says_what_is_wrong(bench):
    bench.ready()
    port = bench.mqtt.port
    assert boardhand("mode", port=port).stdout.splitlines() == [
        "BOARD  MODE  MODES                FLASH",
        "pi     -     normal, flash, dark  system",
    ]
    done = boardhand("mode", "pi", "flash", port=port)
    assert (done.returncode, done.stdout) == (0, "pi: mode flash (power on, strap on)\n"), done.stderr
    page = boardhand("mode", "pi", port=port).stdout.splitlines()
    assert page[:3] == [
        "pi of agent lab: mode flash",
        "  now: power on, strap on",
        "  mode normal: strap off; power cycle",
    ]
    assert page[-1] == "  flash system: by own in mode flash"
    *steps, last = map(json.loads, boardhand("mode", "pi", "normal", "--json", port=port).stdout.splitlines())
    assert (last["mode"], steps[0]["stage"]) == ("normal", "begun")
    checked = boardhand("flash", "pi", str(bench.image), "--check-only", port=port)
    assert checked.stdout.startswith(f"pi: {bench.image} (40000 octets, raw) may be flashed by system\n  sha256 ")
    for words, code, why in (
        (("mode", "pi", "sideways"), 4, "there is no mode sideways; known are: dark, flash, normal"),
        (("mode", "nobody"), 4, "unknown board nobody"),
        (("flash", "bone", "x.img"), 1, "has no way of being flashed"),
        (("flash", "pi", "/etc/passwd"), 5, "is not below"),
        (("flash", "pi", "none.img"), 4, "none.img is not there"),
        (("flash", "pi", str(bench.image), "--sha256", "0" * 64), 2, "has the SHA-256"),
        (("flash", "pi", str(bench.image), "--sha256", "short"), 2, "is no SHA-256"),
    ):
        done = boardhand(*words, port=port)
        assert (done.returncode, why in done.stderr, done.stderr.count("\n")) == (code, True, 1), (words, done.stderr)
    assert not bench.chip.exists()


def test_a_leased_board_is_flashed_by_its_holder_alone(bench):
    heard = bench.ready()
    lease = {"holder": "kim", "kind": "person", "token": 7, "expires": "2099-01-01T00:00:00Z"}
    bench.publish("boardhand/board/pi/lease", json.dumps(lease), "-r")
    seen = threading.Event()
    end = time.monotonic() + DEADLINE_S
    number = 0
    while not seen.is_set():
        number += 1
        ask(bench, "flash", f"t{number}", image="good.img", check_only=True)
        said = heard.wait(answered("flash", f"t{number}"))["payload"]
        if not said["ok"]:
            assert (said["error"]["kind"], "leased by kim" in said["error"]["message"]) == ("not-allowed", True)
            seen.set()
        assert time.monotonic() < end
    ask(bench, "flash", "holder", image="good.img", token=7)
    assert heard.wait(answered("flash", "holder"))["payload"]["ok"]
