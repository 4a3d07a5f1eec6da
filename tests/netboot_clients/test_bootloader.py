"""Debian's U-Boot, caught and spoken to through a whole agent: its console, its power, its netboot."""

import json
import signal
import subprocess
import sys
import time

import pytest

from virtual_lab.child_process import child_environment

BOARD = "virt-1"
DEADLINE_S = 150.0
"""The whole takes 40 s alone; on a build server with all its cores busy several times that."""


class Farm:
    """One QEMU board with an environment in flash (`bootdelay=0`), and its agent."""

    def __init__(self, folder, mqtt):
        self.folder = folder / "farm"
        self.mqtt = mqtt
        self.log = (folder / "farm.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "virtual_lab.farm", "--dir", str(self.folder), "--boards", "1", "--mqtt", mqtt.url],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env=child_environment(),
        )  # fmt: skip
        for line in self.process.stdout:
            if json.loads(line).get("ready"):
                return
        raise AssertionError((folder / "farm.log").read_text())

    def command(self, *arguments):
        return [sys.executable, "-m", "cli", "--mqtt", self.mqtt.url, *arguments]

    def cli(self, *arguments, code=0, deadline_s=DEADLINE_S):
        """What `boardhand` prints; with --json its last line, parsed."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=deadline_s, check=False,
            env=child_environment(),
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.console()}"
        return json.loads(done.stdout.splitlines()[-1]) if "--json" in arguments and code != 1 else done

    def bootloader(self, *arguments, code=0):
        return self.cli("bootloader", BOARD, *arguments, "--json", code=code)

    def console(self):
        """What QEMU itself wrote down of the serial port."""
        path = self.folder / "boards" / BOARD / "console.log"
        return path.read_bytes().decode("utf-8", "replace") if path.exists() else ""

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=60)
        finally:
            self.process.kill()
            self.log.close()


@pytest.fixture
def farm(tmp_path, mqtt):
    made = Farm(tmp_path, mqtt)
    yield made
    made.close()


def until(what, holds, deadline_s=DEADLINE_S):
    end = time.monotonic() + deadline_s
    while not (found := holds()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what()}"
        time.sleep(0.5)
    return found


@pytest.mark.timeout(900)
def test_a_real_u_boot_is_caught_asked_changed_and_told_to_boot(farm, tmp_path):
    heard = tmp_path / "heard"
    with heard.open("wb") as out:
        reader = subprocess.Popen(farm.command("console", BOARD, "--watch"), stdout=out, stdin=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, env=child_environment())  # fmt: skip
    try:
        state = lambda: farm.cli("console", BOARD, "--state", "--json")
        until(lambda: "nobody reads", lambda: state()["readers"] >= 1)
        assert farm.console() == "", "its power is still off"
        caught = farm.bootloader("catch")
        # The console was opened before the power came: the reader has what QEMU saw go out, from the very first byte.
        said = farm.console().encode()
        assert b"U-Boot 20" in said[:64]
        until(heard.read_bytes, lambda: heard.read_bytes()[: len(said)] == said, 10)
    finally:
        reader.kill()
        reader.wait()
    assert (caught["kind"], caught["prompt"]) == ("u-boot", "=> ")
    assert caught["version"].startswith("U-Boot 20")

    environment = farm.bootloader("env")["environment"]
    assert environment["bootdelay"] == "0"
    assert environment["bootcmd"] == "while true; do run bootcmd_pxe; sleep 2; done"
    values = {"plain": "one two", "hard": 'it\'s ${bootcmd}; "q" \\n && #', "long": "x" * 700}
    words = [f"{name}={value}" for name, value in values.items()]
    assert farm.bootloader("env", *words, *values)["environment"] == values
    assert farm.bootloader("env", "plain=", "plain")["environment"] == {"plain": None}

    ran = farm.bootloader("run", "echo hi; false", code=1)
    assert ran.returncode == 1
    bad = json.loads(farm.bootloader("run", "booti ${kernel_addr_r}", code=1).stdout.splitlines()[-1])
    assert bad["ok"] is False
    assert bad["results"][0] | {"took_ms": 0} == {
        "command": "booti ${kernel_addr_r}", "ended": "done", "ok": False, "status": 1,
        "output": "Bad Linux ARM64 Image magic!", "took_ms": 0,
    }  # fmt: skip
    assert farm.bootloader("run", "echo still here")["results"][0]["output"] == "still here"

    # This U-Boot erases QEMU's flash and cannot write it: what it says comes back, and it stands at its prompt.
    failed = farm.cli("bootloader", BOARD, "env", "kept=yes", "--save", code=1)
    assert "saveenv: failed" in failed.stderr
    assert "Timeout writing to Flash" in failed.stderr
    assert "it stands at its prompt" in failed.stderr
    # So it has its built-in environment now, with another countdown, and nothing of what was in RAM.
    farm.bootloader("catch")
    assert "bad CRC, using default environment" in farm.console()
    found = farm.bootloader("env", "kept", "plain", "bootdelay")["environment"]
    assert found == {"kept": None, "plain": None, "bootdelay": "2"}

    saved = (farm.folder / "boards" / BOARD / "environment.img").read_bytes()
    booted = farm.bootloader("boot", "--no-cycle")
    assert "Linux" in booted["kernel"] or "Starting kernel" in booted["kernel"]
    boards = lambda: {b["board"]: b for b in farm.cli("boards", "--json")["boards"]}
    until(lambda: f"{boards()}\n{farm.console()[-3000:]}", lambda: boards()[BOARD]["phase"] == "ready")
    assert (farm.folder / "boards" / BOARD / "environment.img").read_bytes() == saved, "nothing was saved"
    refused = farm.cli("bootloader", BOARD, "run", "version", code=1)
    assert "a system runs on it" in refused.stderr
    assert "catch it first" in refused.stderr
    panics(farm, tmp_path)


def panics(farm, folder):
    """The kernel of the board that runs panics for real: a fault, and an event with the lines before it."""
    events = folder / "events"
    with events.open("wb") as out:
        listener = subprocess.Popen(
            ["mosquitto_sub", "-p", str(farm.mqtt.port), "-q", "1", "-t", f"boardhand/event/{BOARD}", "-t", "marker"],
            stdout=out,
        )
    try:
        publish = ["mosquitto_pub", "-p", str(farm.mqtt.port), "-t", "marker", "-r", "-m", '{"type": "marker"}']
        subprocess.run(publish, check=True, timeout=DEADLINE_S)
        until(lambda: "mosquitto_sub hears nothing", events.read_bytes)
        ended = farm.cli("console", BOARD, "--run", "echo c >/proc/sysrq-trigger", code=1)
        assert ended.stderr
        said = lambda: [json.loads(line) for line in events.read_text().splitlines()]
        found = lambda: [e for e in said() if e["type"] == "console" and e["details"]["kind"] == "panic"]
        panic = until(said, found)[0]["details"]
    finally:
        listener.kill()
        listener.wait()
    assert "Kernel panic - not syncing: sysrq triggered crash" in panic["line"]
    assert any("sysrq: Trigger a crash" in line for line in panic["lines"])
    assert len(panic["lines"]) <= 50
    faults = [e["details"] for e in said() if e["type"] == "phase" and e["details"]["phase"] == "fault"]
    assert "Kernel panic" in faults[0]["reason"]
