"""Consoles of a whole agent: phases and faults from what a board prints, and its recording by the command line."""

import os
import pty
import time
import tty
from pathlib import Path

import pytest

from tests.agent.bench import DEADLINE_S, Bench
from tests.cli.farm_double import boardhand

PANIC = "[    2.000000] Kernel panic - not syncing: VFS: Unable to mount root fs"


@pytest.fixture
def bench(tmp_path: Path, mqtt):
    bench = Bench(tmp_path, mqtt)
    bench.board, port = pty.openpty()
    tty.setraw(port)
    device = os.ttyname(port)
    os.close(port)  # the agent finds it free
    with bench.settings.open("a") as file:
        file.write(f'[boards.pi.console]\ndevice = "{device}"\n')
    yield bench
    bench.close()
    os.close(bench.board)


def test_what_a_board_prints_moves_its_phase_and_a_panic_is_a_fault(bench):
    heard = bench.ready()
    told = bench.listen("boardhand/board/pi/info")
    info = told.wait(lambda m: m["topic"] == "boardhand/board/pi/info")["payload"]
    assert info["console"] == f"unix:{bench.folder}/state/consoles/pi.sock"
    bench.publish("boardhand/board/pi/power/set", "on")
    state = "boardhand/board/pi/state"
    heard.wait(lambda m: m["topic"] == state and m["payload"]["phase"] == "starting")
    # A pty's other side can be written to only while somebody has it open: the agent has.
    assert "console of pi: open" in (bench.folder / "agent.log").read_text()
    os.write(bench.board, b"\xff\x00U-Boot 2024.01\r\n[    0.000000] Linux version 6.1\r\n")
    heard.wait(lambda m: m["topic"] == state and m["payload"]["phase"] == "booting")
    os.write(bench.board, b"[    1.0] boardhand.secret=" + b"ab" * 32 + b"\r\n" + PANIC.encode() + b"\r\nCPU: 0\r\n")
    event, alert, fault = heard.wait_all(
        lambda m: m["topic"] == "boardhand/event/pi" and m["payload"]["details"].get("kind") == "panic",
        lambda m: m["topic"] == "boardhand/board/pi/alert/console",
        lambda m: m["topic"] == state and m["payload"]["phase"] == "fault",
    )
    assert event["payload"]["type"] == "console"
    details = event["payload"]["details"]
    assert details["line"] == PANIC
    assert details["lines"][-2:] == [PANIC, "CPU: 0"]
    assert "boardhand.secret=" + "*" * 64 in details["lines"][-3]
    assert PANIC in alert["payload"]["what"]
    assert fault["payload"]["reason"] == f"on its console: {PANIC}"

    def cli(*arguments):
        return boardhand("--mqtt", bench.mqtt.url, "console", "pi", *arguments)

    found = cli("--boot", "0", "--grep", "kernel*panic")
    assert (found.returncode, found.stdout) == (0, PANIC + "\n")
    assert cli("--since", "1h", "--grep", "no such line").returncode == 1
    boots = cli("--boots")
    assert boots.returncode == 0
    assert boots.stdout.splitlines()[1].split()[0] == "0"
    assert "b'" not in boots.stdout
    whole = cli("--boot", "0", "--times")
    assert "\\xffU-Boot 2024.01" in whole.stdout
    assert "abab" not in whole.stdout
    assert "reached panic" in cli("--state").stdout
    missing = cli("--boot", "-7")
    assert missing.returncode == 4
    assert "there is no boot -7" in missing.stderr
    bench.publish("boardhand/board/pi/power/set", "cycle")
    heard.wait(lambda m: m["topic"] == state and m["payload"]["phase"] == "starting")
    end = time.monotonic() + DEADLINE_S
    alerts = ["none came"]
    while alerts[-1] is not None and time.monotonic() < end:
        alerts = [m["payload"] for m in heard.history if m["topic"] == "boardhand/board/pi/alert/console"]
        time.sleep(0.02)
    assert alerts[-1] is None, "a power cycle clears it"
