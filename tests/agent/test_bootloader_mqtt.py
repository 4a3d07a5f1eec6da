"""Boot loaders of a whole agent: orders by mosquitto_pub and by command line, and a board that it boots by itself."""

import contextlib
import json
import os
import pty
import threading
import time
import tty
from pathlib import Path

import pytest

from tests.agent.bench import DEADLINE_S, Bench
from tests.cli.farm_double import boardhand
from tests.firmware_tools.bootloader_double import FakeUboot


class BoardThread(threading.Thread):
    """A fake U-Boot on a pty, whose power is the bench's outlet."""

    def __init__(self, outlet: Path) -> None:
        super().__init__(daemon=True)
        self.outlet = outlet
        self.master, port = pty.openpty()
        tty.setraw(port)
        self.device = os.ttyname(port)
        os.close(port)
        os.set_blocking(self.master, False)
        self.fake = FakeUboot(banner_s=0.1, delay_s=5.0)
        self.ended = threading.Event()

    def run(self) -> None:
        on = False
        while not self.ended.wait(0.01):
            was, on = on, self.outlet.exists() and self.outlet.read_text() == "on"
            now = time.monotonic()
            if on and not was:
                self.fake.power_on(now)
            keys = b""
            with contextlib.suppress(OSError):
                keys = os.read(self.master, 4096)
            if on:
                self.fake.typed(keys, now)
                with contextlib.suppress(OSError):
                    os.write(self.master, self.fake.due(now))

    def close(self) -> None:
        self.ended.set()
        self.join()
        os.close(self.master)


@pytest.fixture
def bench(tmp_path: Path, mqtt):
    bench = Bench(tmp_path, mqtt)
    bench.board = BoardThread(bench.outlets / "pi")
    bench.own = BoardThread(bench.outlets / "bone")
    with bench.settings.open("a") as file:
        file.write(f'[boards.pi.console]\ndevice = "{bench.board.device}"\n[boards.pi.bootloader]\nprompt = "=> "\n')
        file.write(
            f'[boards.bone.console]\ndevice = "{bench.own.device}"\n'
            '[boards.bone.bootloader]\nnetboot = "dialogue"\nboot_commands = ["setenv by agent", "source 0"]\n'
        )
    yield bench
    bench.close()
    for board in (bench.board, bench.own):
        if board.is_alive():
            board.close()


def test_orders_by_mqtt_and_by_the_command_line_and_a_boot_by_itself(bench):
    heard = bench.ready()
    bench.board.start()
    bench.own.start()
    request = {"transaction": "t1", "data": {"board": "pi"}}
    bench.publish("boardhand/agent/lab/request/bootloader-catch", json.dumps(request))
    answer = heard.wait(lambda m: m["topic"] == "boardhand/agent/lab/response/bootloader-catch", DEADLINE_S * 2)
    assert answer["payload"]["ok"], answer
    assert answer["payload"]["data"]["prompt"] == "=> "
    stages = [
        m["payload"]["details"]["stage"]
        for m in heard.history
        if m["topic"] == "boardhand/event/pi" and m["payload"]["type"] == "action"
    ]
    assert stages[:3] == ["begun", "power", "catch"]

    def cli(*arguments):
        return boardhand("--mqtt", bench.mqtt.url, "bootloader", "pi", *arguments)

    shown = cli("env", "a=1 2", "a", "nothing")
    assert (shown.returncode, shown.stdout) == (0, "a=1 2\n")
    assert "nothing is not set" in shown.stderr
    ran = cli("run", "echo hi", "false")
    assert (ran.returncode, ran.stdout) == (1, "hi\n")
    assert "false: failed (status 1)" in ran.stderr
    as_json = cli("run", "echo hi", "--json")
    assert json.loads(as_json.stdout.splitlines()[-1])["results"][0]["output"] == "hi"
    assert json.loads(as_json.stdout.splitlines()[0])["stage"] == "begun"
    booted = cli("boot", "--no-cycle")
    assert booted.returncode == 1
    assert "[netboot], or boot_commands" in booted.stderr
    assert "at its prompt (" in cli("catch", "--no-cycle").stdout
    assert cli("catch", "surplus").returncode == 2
    assert cli("boot", "--save").returncode == 2

    own = lambda stage: lambda m: (
        m["topic"] == "boardhand/event/bone" and m["payload"]["type"] == "action"
        and m["payload"]["details"]["stage"] == stage
    )  # fmt: skip
    bench.publish("boardhand/board/bone/power/set", "on")
    begun, done = heard.wait_all(own("begun"), own("done"), deadline_s=DEADLINE_S * 2)
    assert begun["payload"]["details"]["by"] == "the agent itself"
    assert done["payload"]["details"]["message"] == "Starting kernel ..."
    assert bench.own.fake.env["by"] == "agent"
    assert bench.own.fake.boots == 1
