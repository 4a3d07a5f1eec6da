"""Doubles and gaps: the core, and `boardhand events` against a real Mosquitto."""

import json
import select
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.event_order import MAX_REMEMBERED, EventOrder, Verdict
from cli.exits import Exit
from tests.cli.farm_double import boardhand, clean_environment, free_port, mosquitto, say, wait_for


def test_doubles_gaps_and_late_ones() -> None:
    order = EventOrder()
    assert order.take("b", "a", 1, 14) == Verdict(new=True)
    assert order.take("b", "a", 1, 14) == Verdict(new=False)
    assert order.take("b", "a", 1, 18) == Verdict(new=True, missing=3)
    assert order.take("b", "a", 1, 16) == Verdict(new=True, late=True)
    assert order.take("b", "a", 1, 16) == Verdict(new=False)
    assert order.take("b", "a", 1, 3) == Verdict(new=True, late=True)
    assert order.take("b", "a", 1, 3) == Verdict(new=False)
    assert order.take("c", "a", 1, 1) == Verdict(new=True)
    assert order.take("b", "other", 1, 1) == Verdict(new=True)


def test_new_session_goes_on_counting_and_a_lost_folder_starts_anew() -> None:
    order = EventOrder()
    order.take("b", "a", 5, 10)
    assert order.take("b", "a", 6, 11) == Verdict(new=True)
    assert order.take("b", "a", 5, 11) == Verdict(new=False)
    assert order.take("b", "a", 7, 1) == Verdict(new=True, restarted=True)
    assert order.take("b", "a", 7, 2) == Verdict(new=True)


def test_a_huge_gap_costs_no_memory() -> None:
    order = EventOrder()
    order.take("b", "a", 1, 1)
    assert order.take("b", "a", 1, 2**53).missing == 2**53 - 2
    assert len(order._streams["b", "a"].missing) <= MAX_REMEMBERED


@given(st.lists(st.integers(1, 40), min_size=1, max_size=200))
def test_each_event_is_new_exactly_once(numbers: list[int]) -> None:
    order = EventOrder()
    fresh = [seq for seq in numbers if order.take("b", "a", 1, seq).new]
    assert sorted(fresh) == sorted(set(numbers))


@given(st.sets(st.integers(1, 60), min_size=1))
def test_missing_adds_up_for_events_in_order(numbers: set[int]) -> None:
    order = EventOrder()
    missing = sum(order.take("b", "a", 1, seq).missing for seq in sorted(numbers))
    assert missing == max(numbers) - min(numbers) + 1 - len(numbers)


def event(seq: int, board: str = "virt-1", **changes: object) -> bytes:
    return json.dumps({
        "type": "phase", "at": "2026-11-20T10:00:00.5Z", "board": board, "agent": "lab-1", "session": 1, "seq": seq,
        "details": {"phase": "ready"},
    } | changes).encode()  # fmt: skip


def listen(port: int, *arguments: str) -> subprocess.Popen[str]:
    """`boardhand events`, subscribed by the time this returns: it echoes a first event."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "cli", "events", *arguments],
        env=clean_environment(BOARDHAND_MQTT=f"mqtt://127.0.0.1:{port}"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None

    def heard() -> bool:
        say(port, "boardhand/event/virt-1", event(1))  # a double after the first, and dropped as such
        return bool(select.select([child.stdout], [], [], 0.2)[0]) or child.poll() is not None

    wait_for(heard, "the first event is printed")
    child.stdout.readline()
    return child


def test_events_are_printed_once_with_gaps(server: int) -> None:
    child = listen(server, "--count", "3")
    for seq in (2, 2, 5):
        say(server, "boardhand/event/virt-1", event(seq))
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert out.splitlines() == [
        "2026-11-20T10:00:00.500+00:00 virt-1 #2 phase phase=ready",
        "-- virt-1: 2 events missing before seq 5",
        "2026-11-20T10:00:00.500+00:00 virt-1 #5 phase phase=ready",
    ]


def test_json_lines_and_hostile_events(server: int) -> None:
    child = listen(server, "virt-1", "--json", "--count", "3")
    for payload in (b"", b"\xff", b"{}", event(2, board="other"), event(0), event(2, type="new-type-of-2031")):
        say(server, "boardhand/event/virt-1", payload)
    say(server, "boardhand/event/virt-2", event(9, board="virt-2"))
    say(server, "boardhand/event/virt-1", event(3, details={"text": "\x1b[2J"}))
    say(server, "boardhand/event/virt-1", event(4))
    out, err = child.communicate(timeout=60)
    documents = [json.loads(line) for line in out.splitlines()]
    assert [document.get("seq") or document["gap"]["missing"] for document in documents] == [1, 3, 4]
    assert err.count("unreadable event") + err.count("not believed") == 6
    assert child.returncode == 0


def test_count_not_reached_is_no_answer(server: int) -> None:
    done = boardhand("events", "--count", "1", "--for-s", "0.3", port=server)
    assert done.returncode == Exit.NO_ANSWER
    assert "0 of 1 events came in 0.3 s" in done.stderr


def test_wrong_board_name_and_no_server() -> None:
    assert boardhand("events", "a/#", port=free_port()).returncode == Exit.USAGE
    assert boardhand("events", port=free_port()).returncode == Exit.UNREACHABLE


@pytest.mark.parametrize("gap", [1, 4])
def test_a_restarted_server_is_waited_for(tmp_path: Path, gap: int) -> None:
    folder = tmp_path / "m"
    port = free_port()
    with mosquitto(folder, port):
        child = listen(port, "--count", "2")  # one for each life of the server
    with mosquitto(folder, port):

        def heard() -> bool:
            say(port, "boardhand/event/virt-1", event(1 + gap))
            return child.poll() is not None

        wait_for(heard, "the event after the restart is printed")
        out, err = child.communicate(timeout=60)
    assert "trying again" in err
    assert "connected again" in err
    assert f"#{1 + gap} phase" in out
    assert ("missing" in out) == (gap > 1)
