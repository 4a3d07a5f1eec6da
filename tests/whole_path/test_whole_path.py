"""The whole path with real U-Boot and Linux, driven by foreign programs only."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

JOB = """\
name: who-are-you
labels: {{arch: arm64}}
board: {board}
steps:
  - name: identity
    run: |
      echo "name=$(hostname) serial=$(tr -d '\\0' </proc/device-tree/serial-number)"
      echo "mac=$(cat /sys/class/net/eth0/address)"
"""

ENDED = ("passed", "failed", "error")


def job_yaml(board: str) -> str:
    return JOB.format(board=board)


def phases(events: list[dict]) -> list[str]:
    return [event["details"]["phase"] for event in events if event["type"] == "phase"]


def assert_gapless(events: list[dict]) -> None:
    """First comings are in order without a gap; a repetition is the very same event."""
    by_number: dict[int, dict] = {}
    order = []
    for event in events:
        number = event["seq"]
        if number in by_number:
            assert by_number[number] == event
        else:
            by_number[number] = event
            order.append(number)
    assert order == list(range(order[0], order[0] + len(order)))


@pytest.mark.timeout(400)
def test_power_netboot_register_work_sleep_wake(farm) -> None:
    shelf = farm("--boards", "2", "--idle-s", "25")
    watcher = shelf.watch()

    # One message switches a board on; everything after it is the farm's own doing. The other one is woken by a job.
    assert not shelf.qmp_running("virt-1")
    shelf.power("virt-1", "on")
    job_2 = shelf.submit(watcher, job_yaml("virt-2"))
    watcher.state("virt-1", power="on", phase="starting")
    watcher.state("virt-1", phase="ready")
    assert shelf.qmp_running("virt-1")
    watcher.wait(lambda t, p: t == "event/virt-1" and p["details"].get("phase") == "ready")
    assert phases(watcher.events("virt-1"))[:4] == ["starting", "netboot", "booting", "ready"]
    kinds = [event["type"] for event in watcher.events("virt-1")]
    assert kinds.index("power") < kinds.index("netboot") < kinds.index("registered")
    job_1 = shelf.submit(watcher, job_yaml("virt-1"))
    ended = {
        job: watcher.wait(lambda t, p, job=job: t == f"job/{job}/state" and p["state"] in ENDED)
        for job in (job_1, job_2)
    }
    assert {told["state"] for told in ended.values()} == {"passed"}, ended
    assert ended[job_1]["steps"][0]["exit_code"] == 0

    # Each is who it should be.
    for job, board, mac in ((job_1, "virt-1", "52:54:00:77:00:01"), (job_2, "virt-2", "52:54:00:77:00:02")):
        log = shelf.job_log(watcher, job)
        assert f"name={board} serial={board}" in log
        assert f"mac={mac}" in log

    # A board that says to be the other one and has not its secret is refused, and the other one stays what it is.
    impostor = {"mac": "52:54:00:77:00:02", "board": "virt-2", "agent": "virtual-lab"}
    for attempt in ({"boot_id": "no-proof"}, {"boot_id": "wrong-proof", "proof": "0" * 64}):
        shelf.publish("boardhand/register", json.dumps({**impostor, **attempt}))
        answer = watcher.wait(lambda t, p, a=attempt: t.startswith("register/52-") and p["boot_id"] == a["boot_id"], 60)
        assert (answer["ok"], answer["error"]["kind"]) == (False, "not-allowed")

    # Idle boards are put to sleep, and QEMU agrees that they are off.
    while {watcher.last_phase(board) for board in ("virt-1", "virt-2")} != {"sleeping"}:
        watcher.wait(lambda t, p: t.startswith("board/virt-") and p.get("phase") == "sleeping", since=watcher.now())
    for topic, state in watcher.seen:
        if topic.endswith("/state") and isinstance(state, dict) and state.get("phase") == "sleeping":
            assert state["power"] == "off"
    assert not shelf.qmp_running("virt-1")
    assert not shelf.qmp_running("virt-2")

    # The next job wakes one, and only one.
    job_3 = shelf.submit(watcher, job_yaml("virt-2"))
    told = watcher.wait(lambda t, p: t == f"job/{job_3}/state" and p["state"] in ENDED)
    assert (told["state"], told["board"]) == ("passed", "virt-2")
    assert not shelf.qmp_running("virt-1")
    for board in ("virt-1", "virt-2"):
        assert_gapless(watcher.events(board))


@pytest.mark.timeout(400)
def test_no_event_is_lost_when_agent_and_server_go_away_mid_boot(farm) -> None:
    shelf = farm("--boards", "2", "--idle-s", "3600")
    watcher = shelf.watch()
    shelf.power("virt-1", "on")
    shelf.power("virt-2", "on")
    watcher.state("virt-1", phase="netboot")
    # Mid-boot: the agent, with its TFTP server, is gone at once. The MQTT server is away, frozen, until the next agent
    # has been serving the boards without it for a while, and then goes down and comes back.
    first_session = watcher.wait(lambda t, _p: t == "board/virt-1/state")["session"]
    agent, mosquitto = shelf.facts()["agent"], _pid_of_child(shelf, "mosquitto")
    os.kill(agent, signal.SIGKILL)
    os.kill(mosquitto, signal.SIGSTOP)
    try:
        end = time.monotonic() + 60
        while shelf.facts()["agent"] in {agent, None} or not shelf.kernels_sent():
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        os.kill(mosquitto, signal.SIGTERM)
        os.kill(mosquitto, signal.SIGCONT)
    ready = {board: watcher.state(board, phase="ready") for board in ("virt-1", "virt-2")}
    assert all(state["session"] > first_session for state in ready.values())
    # What the state says was the last event has come, and everything before it.
    for board, state in ready.items():
        end = time.monotonic() + 60
        while not any(event["seq"] == state["seq"] for event in watcher.events(board)):
            assert time.monotonic() < end
            watcher.wait(lambda t, _p: t.startswith("event/"), 60, since=watcher.now())
        assert_gapless(watcher.events(board))
        assert watcher.events(board)[0]["seq"] == 1


def _pid_of_child(shelf, name: str) -> int:
    """The child of `boardhand up` that runs `name`."""
    children = Path(f"/proc/{shelf.process.pid}/task/{shelf.process.pid}/children")
    for pid in map(int, children.read_text(encoding="ascii").split()):
        if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            return pid
    raise AssertionError(f"{name} is no child of boardhand up")
