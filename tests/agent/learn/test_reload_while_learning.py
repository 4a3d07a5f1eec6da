"""A reload while learning is under way: what learn's hands are on stays as it is, and the rest is taken up."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.bench import DEADLINE_S, Listener
from tests.agent.test_reload import Reloads, until

LEARN = {"do": "start", "listen_s": 1800, "quiet_s": 600, "baseline_s": 0, "spacing_s": 0}
FREE = "pdu:1"


class Pdu:
    """A PDU with two outlets, as its own process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "virtual_lab.snmp_pdu", "--model", "eaton-g3", "--outlets", "2", "--light"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = json.loads(self.process.stdout.readline())["port"]

    def on(self) -> list[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write('{"do": "state"}\n')
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())["on"]
        return [outlet for outlet, on in told.items() if on] if isinstance(told, dict) else list(told)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def pdu() -> Iterator[Pdu]:
    pdu = Pdu()
    yield pdu
    pdu.close()


@pytest.fixture
def bench(tmp_path: Path, mqtt: Any, pdu: Pdu) -> Iterator[Reloads]:
    bench = Reloads(tmp_path, mqtt)
    (tmp_path / "community").write_text("private")
    bench.add(
        f'[controllers.pdu]\ndriver = "snmp"\nhost = "127.0.0.1"\nport = {pdu.port}\nfamily = "eaton-g3"\n'
        f'community_file = "{tmp_path}/community"\n'
    )
    yield bench
    bench.close()


def learning(bench: Reloads, pdu: Pdu) -> Listener:
    """Learn has its outlet on, and waits for a word that never comes."""
    heard = bench.ready()
    assert bench.ask(heard, "learn", only=[FREE], **LEARN)["ok"]
    until(lambda: pdu.on() == ["1"])
    return heard


def test_what_learn_does_not_touch_is_taken_up_and_it_goes_on(bench: Reloads, pdu: Pdu) -> None:
    heard = learning(bench, pdu)
    bench.edit("boot_timeout_s = 120", "boot_timeout_s = 90")
    bench.add('[boards.new]\nfeed = ["pdu:2"]\nmin_off_s = 0.0\nboot_timeout_s = 120\n')
    told = bench.ask(heard, "reload")
    assert told["ok"], told
    assert told["data"]["boards"]["added"] == ["new"]
    assert bench.switch(heard, "new", "on")["ok"], "the new board's outlet is of the same controller"
    state = bench.ask(heard, "learn", do="state")["data"]
    assert (state["state"], state["on"]) == ("running", [FREE])
    assert sorted(pdu.on()) == ["1", "2"]
    assert bench.ask(heard, "learn", do="stop")["ok"]
    until(lambda: pdu.on() == ["2"])


HELD = [
    ("", '[boards.new]\nfeed = ["pdu:1"]\n', "boards.new"),
    ('family = "eaton-g3"', 'family = "eaton-g3"\ntimeout_s = 7.0', "controllers.pdu"),
    ('family = "eaton-g3"', 'family = "eaton-g3"\nkeep_outlets = ["1"]', "controllers.pdu"),
    ('feed = ["rack:bone"]', 'feed = ["pdu:1"]', "boards.bone"),
]


def test_what_learn_has_its_hands_on_is_refused_until_it_has_ended(bench: Reloads, pdu: Pdu) -> None:
    heard = learning(bench, pdu)
    before = bench.settings.read_text()
    for old, new, key in HELD:
        assert before.count(old) == 1 or not old
        bench.settings.write_text(before.replace(old, new) if old else before + new)
        told = bench.ask(heard, "reload")
        assert not told["ok"]
        assert (told["error"]["kind"], told["error"]["key"]) == ("busy", key), told
        assert "learning is under way" in told["error"]["message"]
        assert "boardhand learn --stop" in told["error"]["message"]
    assert bench.ask(heard, "learn", do="state")["data"]["state"] == "running"
    assert pdu.on() == ["1"]
    assert bench.ask(heard, "learn", do="stop")["ok"]
    until(lambda: bench.ask(heard, "learn", do="state")["data"]["state"] == "ended")
    assert pdu.on() == []
    assert bench.ask(heard, "reload")["ok"]
