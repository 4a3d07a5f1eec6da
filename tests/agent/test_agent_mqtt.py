"""A whole agent as its own process, with outlets that are files, and Mosquitto's own clients as the operator."""

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.agent.bench import DEADLINE_S, Bench, result_of


@pytest.fixture
def bench(tmp_path: Path, mqtt) -> Iterator[Bench]:
    bench = Bench(tmp_path, mqtt)
    yield bench
    bench.close()


def test_one_bare_word_switches_and_the_truth_comes_back(bench: Bench) -> None:
    heard = bench.ready()
    bench.publish("boardhand/board/pi/power/set", "on")
    state = heard.wait(lambda m: m["topic"] == "boardhand/board/pi/state" and m["payload"]["power"] == "on")
    assert state["payload"]["phase"] == "starting"
    assert state["payload"]["target"] == "on"
    result = heard.wait(result_of("pi"))["payload"]
    assert (result["ok"], result["power"], result["action"]) == (True, "on", "on")
    assert (bench.outlets / "pi").read_text() == "on"
    bench.publish("boardhand/board/pi/power/set", '{"power":"cycle","id":"c1"}')
    assert heard.wait(result_of("pi", "c1"))["payload"]["ok"]
    assert (bench.outlets / "log").read_text().splitlines() == ["pi on", "pi off", "pi on"]


def test_a_lie_and_a_refusal_are_told_apart(bench: Bench) -> None:
    heard = bench.ready()
    bench.publish("boardhand/board/lies/power/set", '{"power":"on","id":"l1"}')
    result = heard.wait(result_of("lies", "l1"))["payload"]
    assert (result["ok"], result["power"], result["error"]["kind"]) == (False, "off", "not-verified")
    assert "rack" in result["error"]["message"]
    alert = bench.listen("boardhand/board/lies/alert/power").wait(lambda _m: True)
    assert "rack" in alert["payload"]["what"]
    bench.publish("boardhand/board/refuses/power/set", '{"power":"on","id":"r1"}')
    result = heard.wait(result_of("refuses", "r1"))["payload"]
    assert (result["ok"], result["power"], result["error"]["kind"]) == (False, "off", "refused")
    state = bench.listen("boardhand/board/lies/state").wait(lambda m: m["payload"]["phase"] == "fault")
    assert state["payload"]["power"] == "off"


def test_the_same_id_twice_is_done_once(bench: Bench) -> None:
    heard = bench.ready()
    for _ in range(2):
        bench.publish("boardhand/board/pi/power/set", '{"power":"cycle","id":"once"}')
    first = heard.wait(result_of("pi", "once"))["payload"]
    bench.publish("boardhand/board/pi/power/set", '{"power":"cycle","id":"once"}')
    assert heard.wait(result_of("pi", "once"))["payload"] == first
    assert (bench.outlets / "log").read_text().splitlines().count("pi on") == 1


def test_what_must_not_be_obeyed_is_not(bench: Bench) -> None:
    heard = bench.ready()
    bench.publish("boardhand/board/pi/power/set", "on", "-r")  # live, then retained for the next session
    heard.wait(result_of("pi"))
    bench.publish("boardhand/board/pi/power/set", "off")
    heard.wait(result_of("pi"))
    bench.end(signal.SIGTERM)
    heard.wait(lambda m: m["topic"] == "boardhand/agent/lab/state" and m["payload"]["state"] == "offline")
    heard = bench.ready()
    past = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
    bench.publish("boardhand/board/pi/power/set", json.dumps({"power": "on", "id": "late", "expires": past}))
    assert heard.wait(result_of("pi", "late"))["payload"]["error"]["kind"] == "expired"
    lease = {"holder": "job-3", "token": 9, "expires": (datetime.now(UTC) + timedelta(minutes=5)).isoformat()}
    bench.publish("boardhand/board/pi/lease", json.dumps(lease), "-r")
    bench.publish("boardhand/board/pi/power/set", '{"power":"on","id":"no-token"}')
    refused = heard.wait(result_of("pi", "no-token"))["payload"]
    assert refused["error"]["kind"] == "not-allowed"
    assert "job-3" in refused["error"]["message"]
    assert (bench.outlets / "pi").read_text() == "off"
    bench.publish("boardhand/board/pi/power/set", '{"power":"on","id":"token","token":9}')
    assert heard.wait(result_of("pi", "token"))["payload"]["ok"]


HOSTILE = [
    b"",
    b"\x00\xff\xfe binary \x80",
    b"null",
    b"[]",
    b'"on"',
    b'{"power": 1}',
    b'{"power":"on","expires":1e999}',
    b'{"power":"on","token":-1}',
    b'{"power":"on","id":"' + b"x" * 5000 + b'"}',
    b"{" * 50_000,
    b"A" * 400_000,
    b'{"state":"online","boot_id":[]}',
    b'{"mac":"zz","boot_id":"b"}',
    b'{"mac":"01:00:00:00:00:01","boot_id":"b"}',
    b'{"transaction":"t","data":"no object"}',
]


def test_nothing_received_ends_the_agent(bench: Bench) -> None:
    heard = bench.ready()
    topics = [
        "board/pi/power/set",
        "board/pi/self",
        "board/pi/lease",
        "register",
        "agent/lab/request/read",
        "agent/lab/request/nonsense",
        "agent/lab/state",
    ]
    for topic in topics:
        for payload in HOSTILE:
            bench.publish(f"boardhand/{topic}", payload)
    marker = str(uuid.uuid4())
    bench.publish("boardhand/agent/lab/request/read", json.dumps({"transaction": marker, "data": {"board": "pi"}}))
    answer = heard.wait(lambda m: m["topic"].endswith("response/read") and m["payload"].get("transaction") == marker)[
        "payload"
    ]
    assert answer == {"transaction": marker, "ok": True, "data": {"board": "pi", "power": "off"}}
    assert bench.process is not None
    assert bench.process.poll() is None
    state = bench.listen("boardhand/agent/lab/state").wait(lambda m: m["payload"].get("state") == "online")
    assert state["payload"]["state"] == "online"
    bench.publish("boardhand/agent/lab/request/read", json.dumps({"transaction": "b", "data": {"board": 7}}))
    answer = heard.wait(lambda m: m["topic"].endswith("response/read") and m["payload"].get("transaction") == "b")
    assert answer["payload"]["error"]["key"] == "board"


def test_events_have_no_gap_and_no_double_over_kills(bench: Bench) -> None:
    """kill -9 of the agent and a stop of the MQTT server amid switching; every event comes, once by its number."""
    bench.ready()
    watcher = bench.listen("boardhand/event/+")
    for round_number in range(3):
        bench.publish("boardhand/board/pi/power/set", "on")
        bench.publish("boardhand/board/bone/power/set", "cycle")
        watcher.wait(lambda m: m["payload"]["board"] == "pi")
        bench.mqtt.stop()
        # The agent goes on switching without a server; what it sees waits on disk. Wherever this kill falls is right.
        bench.end(signal.SIGKILL)
        bench.mqtt.start()
        bench.start()
        state = bench.listen("boardhand/agent/lab/state")
        state.wait(
            lambda m, n=round_number: m["payload"].get("session", 0) >= n + 2 and m["payload"]["state"] == "online"
        )
        bench.publish("boardhand/board/pi/power/set", f'{{"power":"off","id":"off-{round_number}"}}')
        bench.listen("boardhand/board/pi/state").wait(lambda m: m["payload"]["power"] == "off")
    last = bench.listen("boardhand/board/pi/state", "boardhand/board/bone/state")
    final = {}
    while len(final) < 2:
        message = last.wait(lambda _m: True)
        final[message["topic"].split("/")[2]] = message["payload"]["seq"]
    deadline = time.monotonic() + DEADLINE_S
    while any(final[board] not in first_comings(watcher.history, board) for board in final):
        assert time.monotonic() < deadline, "the last event did not come"
        time.sleep(0.05)
    for board, last_number in final.items():
        numbers = first_comings(watcher.history, board)
        # Nothing was published before the watcher subscribed: from 1 on, in order, and a repetition changes nothing.
        assert numbers[: numbers.index(last_number) + 1] == list(range(1, last_number + 1)), board


def first_comings(history: list[dict], board: str) -> list[int]:
    """The numbers of a board's events in the order in which each came first; a repetition must be the same event."""
    seen: dict[int, dict] = {}
    for message in list(history):
        if message["topic"] == f"boardhand/event/{board}":
            event = message["payload"]
            assert seen.setdefault(event["seq"], event) == event
    return list(seen)


def test_a_command_cut_short_by_kill_9_is_answered_with_the_truth(bench: Bench) -> None:
    heard = bench.ready()
    (bench.outlets / "slow").write_text("20")
    bench.publish("boardhand/board/pi/power/set", '{"power":"on","id":"cut"}')
    heard.wait(lambda m: m["topic"] == "boardhand/board/pi/state" and m["payload"].get("target") == "on")
    # The command is on disk when the target is told; the slow outlet is being waited for.
    end = time.monotonic() + DEADLINE_S
    while not (bench.outlets / "begun").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    bench.end(signal.SIGKILL)
    bench.start()
    result = heard.wait(result_of("pi", "cut"))["payload"]
    assert (result["ok"], result["error"]["kind"], result["power"]) == (False, "interrupted", "off")


def test_a_clean_stop_ends_what_is_under_way_and_says_offline_last(bench: Bench) -> None:
    heard = bench.ready()
    (bench.outlets / "slow").write_text("1.5")
    bench.publish("boardhand/board/pi/power/set", '{"power":"on","id":"slow-on"}')
    heard.wait(lambda m: m["topic"] == "boardhand/board/pi/state" and m["payload"].get("target") == "on")
    assert bench.end(signal.SIGTERM) == 0
    assert heard.wait(result_of("pi", "slow-on"))["payload"]["power"] == "on"
    heard.wait(lambda m: m["topic"] == "boardhand/agent/lab/state" and m["payload"]["state"] == "offline")
    last = bench.listen("boardhand/agent/lab/state").wait(lambda _m: True)
    assert last["payload"]["state"] == "offline"


def test_a_clean_stop_does_not_cut_a_boot_retry_short(bench: Bench) -> None:
    """A board that is late is cycled by the agent itself; a stop in the middle must not leave it off."""
    text = bench.settings.read_text()
    bench.settings.write_text(text.replace("boot_timeout_s = 120", "boot_timeout_s = 9"))
    heard = bench.ready()
    bench.publish("boardhand/board/pi/power/set", "on")
    heard.wait(result_of("pi"))
    (bench.outlets / "slow").write_text("1.5")
    end = time.monotonic() + DEADLINE_S
    while not (bench.outlets / "begun").exists():  # the retry's off is under way
        assert time.monotonic() < end
        time.sleep(0.02)
    assert bench.end(signal.SIGTERM) == 0
    assert (bench.outlets / "log").read_text().splitlines() == ["pi on", "pi off", "pi on"]
    assert (bench.outlets / "pi").read_text() == "on"


def test_a_second_agent_on_the_same_state_is_refused(bench: Bench) -> None:
    bench.ready()
    second = subprocess.run(
        [sys.executable, "-m", "agent", "--settings", str(bench.settings)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert "another agent runs with this state_dir" in second.stderr


def test_bad_settings_start_nothing(bench: Bench) -> None:
    bench.settings.write_text(bench.settings.read_text().replace("rack:pi", "rakk:pi"))
    ended = subprocess.run(
        [sys.executable, "-m", "agent", "--settings", str(bench.settings)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "boards.pi.feed: there is no controller 'rakk'" in ended.stderr
    assert not (bench.folder / "state").exists()


def test_a_forged_lost_is_put_right(bench: Bench) -> None:
    heard = bench.ready()
    now = datetime.now(UTC).isoformat()
    for session in (0, 1, 99):
        forged = {"state": "lost", "session": session, "since": now}
        bench.publish("boardhand/agent/lab/state", json.dumps(forged), "-r")
        heard.wait(lambda m, forged=forged: m["topic"].endswith("agent/lab/state") and m["payload"] == forged)
        heard.wait(lambda m: m["topic"].endswith("agent/lab/state") and m["payload"]["state"] == "online")


def test_a_board_registers_works_and_goes(bench: Bench) -> None:
    heard = bench.ready()
    bench.publish("boardhand/board/pi/power/set", "on")
    heard.wait(result_of("pi"))
    bench.publish("boardhand/register", json.dumps({"mac": "52:54:00:00:00:01", "boot_id": "b1", "memory_mb": 512}))
    answer = heard.wait(lambda m: m["topic"] == "boardhand/register/52-54-00-00-00-01")["payload"]
    assert (answer["ok"], answer["board"], answer["boot_id"]) == (True, "pi", "b1")
    info = bench.listen("boardhand/board/pi/info").wait(lambda m: m["payload"].get("memory_mb") == 512)
    assert info["payload"]["macs"] == ["52:54:00:00:00:01"]
    for words, phase in (
        ({"state": "online", "boot_id": "b1"}, "ready"),
        ({"state": "online", "boot_id": "b1", "work": "job-1"}, "busy"),
        ({"state": "online", "boot_id": "b1"}, "ready"),
        ({"state": "offline", "boot_id": "b1"}, "starting"),
    ):
        bench.publish("boardhand/board/pi/self", json.dumps(words), "-r")
        heard.wait(lambda m, phase=phase: m["topic"].endswith("board/pi/state") and m["payload"]["phase"] == phase)
    bench.publish("boardhand/register", json.dumps({"mac": "52:54:00:00:00:02", "boot_id": "b9", "board": "pi"}))
    answer = heard.wait(lambda m: m["topic"] == "boardhand/register/52-54-00-00-00-02")["payload"]
    assert not answer["ok"]
    assert answer["error"]["kind"] == "not-allowed"


def test_the_agent_is_light(bench: Bench) -> None:
    bench.ready()
    assert bench.process is not None
    status = Path(f"/proc/{bench.process.pid}/status").read_text()
    resident_kib = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident_kib < 80 * 1024
