"""What docs/ tells people to send is sent, as it stands there, to a real agent: it understands each of them."""

import itertools
import os
import pty
import re
import subprocess
import tty
from pathlib import Path

import pytest

from tests.agent.bench import DEADLINE_S, Bench

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXAMPLE = re.compile(r"^mosquitto_pub -t boardhand/agent/lab/request/(\S+)(?:\s+\\\n)?\s+-m '[^']*'", re.MULTILINE)
NOT_UNDERSTOOD = {"bad-request", "unknown-board", "internal"}
TABLES = """
[boards.pi.actuators]
strap = {outlet = "rack:strap"}

[boards.pi.modes]
normal = ["strap off", "power on"]
recovery = ["strap on", "power on"]

[boards.pi.flash.firmware]
tool = "own"
command = ["true", "{image}"]
mode = "recovery"
"""


def examples():
    """`(page, verb, command)` of each request to an agent."""
    for page in sorted(DOCS.glob("*.md")):
        for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
            for found in EXAMPLE.finditer(block[1]):
                yield page.name, found[1], found[0]


@pytest.fixture
def bench(tmp_path, mqtt):
    bench = Bench(tmp_path, mqtt)
    board, port = pty.openpty()
    tty.setraw(port)
    with bench.settings.open("a") as file:
        file.write(f'[boards.pi.console]\ndevice = "{os.ttyname(port)}"\n{TABLES}')
    os.close(port)
    yield bench
    bench.close()
    os.close(board)


def test_every_documented_request_is_understood(bench):
    heard = bench.ready()
    told, numbers = set(), itertools.count()
    for page, verb, command in examples():
        mine = f"doc-{next(numbers)}"
        # Our server, our board, and no time for what no board answers here.
        ours = command.replace("mosquitto_pub", f"mosquitto_pub -p {bench.mqtt.port} -q 1", 1)
        ours = re.sub(r'"transaction": "[^"]*"', f'"transaction": "{mine}"', ours)
        ours = re.sub(r'"board": "[^"]*"', '"board": "pi", "timeout_s": 0.3', ours)
        subprocess.run(["sh", "-ec", ours], check=True, timeout=DEADLINE_S)
        answer = heard.wait(lambda m, mine=mine: m["payload"].get("transaction") == mine and "/response/" in m["topic"])
        error = answer["payload"].get("error") or {}
        assert error.get("kind") not in NOT_UNDERSTOOD, (page, command, error)
        assert "there is no request" not in error.get("message", ""), (page, command, error)
        told.add(verb)
    wanted = {"console-write", "console-expect", "console-run", "bootloader-catch", "bootloader-run", "bootloader-env"}
    assert told >= wanted | {"bootloader-boot", "mode", "modes", "flash", "cancel-action"}
