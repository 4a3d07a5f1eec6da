"""What boards say of themselves: kept over a restart of the agent, and not mixed up with other hardware."""

import json
import signal

import pytest

from agent.joining import JoiningDesk, free_address
from agent.settings import AgentSettings
from tests.agent.bench import Bench
from wire.payloads import Registration

MAC = "52:54:00:00:00:01"


@pytest.fixture
def bench(tmp_path, mqtt):
    one = Bench(tmp_path, mqtt)
    yield one
    one.close()


def registration(**more):
    return {"mac": MAC, "boot_id": "b-1", "board": "pi", "arch": "aarch64", "memory_mb": 4096, **more}


def info_of(bench, board, wanted):
    """The retained info of `board`, as a subscriber who comes now gets it, or a later one that is as `wanted`."""
    topic = f"boardhand/board/{board}/info"
    return bench.listen(topic).wait(lambda m: m["topic"] == topic and wanted(m["payload"]))["payload"]


def test_a_restarted_agent_knows_what_its_boards_have(bench):
    listener = bench.ready()
    bench.publish("boardhand/board/pi/power/set", "on")
    listener.wait(lambda m: m["topic"] == "boardhand/board/pi/power/result" and m["payload"]["ok"])
    said = registration(inventory={"model": "Pi 4"}, macs=["52:54:00:99:00:77"])
    bench.publish("boardhand/register", json.dumps(said))
    answer = listener.wait(lambda m: m["topic"].startswith("boardhand/register/"))["payload"]
    assert answer["ok"] is True, answer
    info_of(bench, "pi", lambda info: info.get("memory_mb") == 4096)
    bench.end(signal.SIGTERM)
    bench.start()
    listener.wait(lambda m: m["topic"] == "boardhand/agent/lab/state" and m["payload"]["state"] == "online")
    info = info_of(bench, "pi", lambda _: True)
    assert (info["arch"], info["memory_mb"], info["labels"]) == ("arm64", 4096, {"model": "Pi 4"})
    assert "52:54:00:99:00:77" in info["macs"]

    # Another board has taken its place: nothing of the old one is said of it.
    bench.end(signal.SIGTERM)
    bench.settings.write_text(bench.settings.read_text().replace(MAC, "52:54:00:00:00:aa"))
    bench.start()
    info = info_of(bench, "pi", lambda info: info["macs"] == ["52:54:00:00:00:aa"])
    assert (info.get("memory_mb"), info["labels"]) == (None, {})


class OneAgent:
    def __init__(self, settings):
        self.settings = settings


def settings(tmp_path, **netboot):
    for name in ("kernel", "initrd"):
        (tmp_path / name).touch()
    return AgentSettings.model_validate(
        {
            "agent": {"name": "lab", "state_dir": str(tmp_path)},
            "mqtt": {"url": "mqtt://127.0.0.1:1883"},
            "controllers": {"rack": {"driver": "tasmota", "topic": "rack"}},
            "netboot": {
                "interface": "eth1", "address": "10.77.0.1/24", "mqtt_for_boards": "10.77.0.1:1883",
                "pool": ["10.77.0.3", "10.77.0.200"], **netboot,
            },
            "profiles": {
                "debian": {"arch": "arm64", "kernel": str(tmp_path / "kernel"), "initrd": str(tmp_path / "initrd")}
            },
            "boards": {"old": {"feed": ["rack:1"], "macs": ["52:54:00:00:00:09"]}},
        }
    )  # fmt: skip


def test_the_tables_of_strangers_that_registered(tmp_path):
    desk = JoiningDesk(OneAgent(settings(tmp_path, joining_profile="debian")))
    for number in (1, 2, 9):
        said = Registration.model_validate(
            {"mac": f"52:54:00:00:00:0{number}", "boot_id": "b", "serial": f"1000000{number}", "uuid": "u"}
        )
        desk.refused(said, "unknown")
    first, second, silent, ours = desk.tables(
        [[f"52:54:00:00:00:0{number}"] for number in (1, 2)] + [[], ["52:54:00:00:00:09"]]
    )
    assert first == {"profile": "debian", "address": "10.77.0.2", "uuid": "u", "serial": "10000001"}
    assert second["address"] == "10.77.0.201", "the one before has just been given away, and the pool is not ours"
    assert (silent, ours) == ({}, {})
    assert free_address(settings(tmp_path), ["10.77.0.2"]) == "10.77.0.201"


def test_without_a_joining_profile_nobody_knows_what_it_booted(tmp_path):
    desk = JoiningDesk(OneAgent(settings(tmp_path)))
    desk.refused(Registration.model_validate({"mac": MAC, "boot_id": "b"}), "unknown")
    assert desk.tables([[MAC]]) == [{}]
