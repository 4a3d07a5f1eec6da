"""Joining at a whole agent with a board network on loopback, by the command line and by mosquitto_pub."""

import json
import signal
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator

import pytest

from tests.agent.test_netboot_dhcp import OTHER, STRANGER, NetbootBench
from tests.free_ports import free_port

REGISTRATION = {
    "mac": STRANGER, "macs": [STRANGER, "52:54:00:99:00:11"], "boot_id": "b-1", "agent": "lab", "arch": "aarch64",
    "serial": "10000000abcdef01", "inventory": {"model": "Raspberry Pi 4 Model B Rev 1.4", "cpus": 4, "note": "x"},
}  # fmt: skip


@pytest.fixture
def bench(tmp_path, mqtt) -> Iterator[NetbootBench]:
    one = NetbootBench(tmp_path, mqtt, free_port())
    yield one
    one.close()


def join(bench: NetbootBench, *words: str, code: int = 0) -> dict:
    command = [sys.executable, "-m", "cli", "join", *words, "--json", "--mqtt", bench.mqtt.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def ask(bench: NetbootBench, listener, verb: str, **data: object) -> dict:
    transaction = uuid.uuid4().hex
    bench.publish(f"boardhand/agent/lab/request/{verb}", json.dumps({"transaction": transaction, "data": data}))
    topic = f"boardhand/agent/lab/response/{verb}"
    return listener.wait(lambda m: m["topic"] == topic and m["payload"]["transaction"] == transaction)["payload"]


def test_a_stranger_becomes_a_board_and_stays_one(bench) -> None:
    listener = bench.ready()
    # It asks by DHCP and, once it has booted the joining profile, registers without a name.
    bench.renew(STRANGER, 1)
    bench.answer()
    bench.publish("boardhand/register", json.dumps(REGISTRATION))
    answer = listener.wait(lambda m: m["topic"] == "boardhand/register/52-54-00-99-00-01")["payload"]
    assert f"boardhand join accept {STRANGER}" in answer["error"]["message"]

    (told,) = join(bench)["agents"]
    (found,) = told["strangers"]
    assert (told["agent"], told["open"], found["name"]) == ("lab", True, "raspberry-pi-4-model-b-1")
    assert (found["vendor_class"], found["answered"], found["address"]) == ("udhcp", True, "127.0.7.105")
    assert found["said"]["inventory"]["cpus"] == 4

    assert "which outlet is it on" in join(bench, "accept", STRANGER, code=2)["error"]["message"]
    for wrong, key, why in (
        ({"feed": ["rack:pi"]}, "feed", "rack:pi already feeds"),
        ({"feed": ["rack:new"], "name": "pi"}, "name", "there is a board pi already"),
        ({"feed": ["rack:new"], "name": "../x"}, "name", "is not a name"),
        ({"feed": ["rack:new"], "address": "127.0.7.11"}, "address", "already the address of board pi"),
        ({"feed": ["rack:new"], "profile": "none"}, "profile", "there is no profile 'none'"),
        ({"feed": ["rack:new"], "labels": 7}, "labels", "dictionary"),
        ({"mac": OTHER}, "mac", "was not heard"),
        ({"mac": "52:54:00:00:00:01"}, "mac", "is board pi already"),
    ):
        error = ask(bench, listener, "accept-board", **{"mac": STRANGER, **wrong})["error"]
        assert error["key"] == key
        assert why in error["message"]
    done = join(bench, "accept", STRANGER, "--feed", "rack:new", "--label", "rack=3")
    assert (done["board"], done["live"]) == ("raspberry-pi-4-model-b-1", True)
    assert done["do"] == "cycle its power: boardhand power raspberry-pi-4-model-b-1 cycle"
    board = done["board"]
    info = listener.wait(lambda m: m["topic"] == f"boardhand/board/{board}/info")["payload"]
    assert (info["feed"], info["labels"]["rack"]) == (["rack:new"], 3)
    # What it said when it was a stranger, so that a job that asks for it wakes the board; `arch` as profiles call it.
    assert (info["arch"], info["labels"]["cpus"], info["serial"]) == ("arm64", 4, "10000000abcdef01")
    listener.wait(lambda m: m["topic"] == f"boardhand/board/{board}/state")
    assert ask(bench, listener, "strangers")["data"]["strangers"] == []

    stored = tomllib.loads((bench.folder / "state" / "joined.toml").read_text())["boards"][board]
    assert stored["macs"] == [STRANGER, "52:54:00:99:00:11"]
    assert (stored["profile"], stored["address"], stored["serial"]) == ("p", "127.0.0.2", "10000000abcdef01")
    # It is told its own address now: what it has is another's.
    bench.publish(f"boardhand/board/{board}/power/set", "on")
    listener.wait(lambda m: m["topic"] == f"boardhand/board/{board}/power/result" and m["payload"]["ok"])

    bench.end(signal.SIGKILL)
    bench.start()
    again = listener.wait(
        lambda m: m["topic"] == "boardhand/agent/lab/info" and board in m["payload"].get("boards", [])
    )
    assert again["payload"]["boards"][-1] == board
    bench.listen("boardhand/board/+/info").wait(
        lambda m: m["topic"] == f"boardhand/board/{board}/info" and m["payload"]["labels"].get("cpus") == 4
    )


def test_who_is_refused_gets_nothing_while_joining_is_open(bench) -> None:
    listener = bench.ready()
    bench.renew(STRANGER, 1)
    assert bench.answer().xid == 1
    assert join(bench, "refuse", STRANGER)["refused"] is True
    assert join(bench, "list", "--all")["agents"][0]["strangers"][0]["refused"] is True
    bench.end(signal.SIGTERM)
    bench.start()
    listener.wait(lambda m: m["topic"] == "boardhand/agent/lab/state" and m["payload"]["state"] == "online")
    bench.renew(STRANGER, 2)
    assert join(bench, "refuse", STRANGER, "--undo", "--agent", "lab")["refused"] is False
    bench.renew(STRANGER, 3)
    assert bench.answer().xid == 3  # the one before was passed over, also after a restart
    assert ask(bench, listener, "joining", open=False)["data"] == {"open": False, "until": None}
    assert ask(bench, listener, "strangers")["data"]["open"] is False
    assert join(bench, "open", "--for", "5m")["open"] is True
    assert ask(bench, listener, "strangers")["data"]["until"] is not None
