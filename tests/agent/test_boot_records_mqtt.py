"""Boots as a whole agent keeps and tells them, over a real Mosquitto, and over a kill -9."""

import json
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.shelf import BoardPlan, Moment, Shelf
from tests.agent.bench import DEADLINE_S, Bench, Listener, result_of
from wire.phases import Phase, Power

REQUEST, RESPONSE = "boardhand/agent/lab/request/netboot", "boardhand/agent/lab/response/netboot"


@pytest.fixture
def bench(tmp_path: Path, mqtt) -> Iterator[Bench]:
    bench = Bench(tmp_path, mqtt)
    yield bench
    bench.close()


def ask(bench: Bench, heard: Listener, transaction: str, **data: Any) -> dict[str, Any]:
    bench.publish(REQUEST, json.dumps({"transaction": transaction, "data": data}))
    answer = heard.wait(lambda m: m["topic"] == RESPONSE and m["payload"]["transaction"] == transaction)
    payload: dict[str, Any] = answer["payload"]
    return payload


def switch(bench: Bench, heard: Listener, board: str, power: str, command_id: str) -> None:
    bench.publish(f"boardhand/board/{board}/power/set", json.dumps({"power": power, "id": command_id}))
    assert heard.wait(result_of(board, command_id))["payload"]["ok"]


def test_boots_are_kept_over_a_kill_and_told(bench: Bench) -> None:
    heard = bench.ready()
    switch(bench, heard, "pi", "on", "1")
    switch(bench, heard, "pi", "cycle", "2")
    ends = time.monotonic() + DEADLINE_S
    told = ask(bench, heard, "before-0", board="pi")["data"]
    assert [(boot["number"], boot["cause"], "ended" in boot) for boot in told["boots"]] == [
        (2, "power", False), (1, "power", True)
    ]  # fmt: skip
    assert told["boots"][0]["diagnosis"]["place"] == "no-dhcp"
    assert told["served"]["problem"].startswith("this agent serves no board network")
    # Boots are written beside the work; what is asked for here is that they come back, not how soon they are written.
    bench.end(signal.SIGTERM)
    bench.start()
    heard.wait(lambda m: m["topic"] == "boardhand/agent/lab/state" and m["payload"]["state"] == "online")
    again = ask(bench, heard, "after", board="pi")["data"]
    assert [boot["number"] for boot in again["boots"]] == [2, 1]
    assert [boot["began"] for boot in again["boots"]] == [boot["began"] for boot in told["boots"]]
    bench.end(signal.SIGKILL)
    bench.start()
    heard.wait(lambda m: m["topic"] == "boardhand/agent/lab/state" and m["payload"]["state"] == "online")
    switch(bench, heard, "pi", "cycle", "3")
    last = ask(bench, heard, "last", board="pi", boots=1)["data"]
    assert [boot["number"] for boot in last["boots"]] == [3]
    assert time.monotonic() < ends


def test_a_request_that_is_wrong_is_answered_so(bench: Bench) -> None:
    heard = bench.ready()
    assert ask(bench, heard, "1", board="nope")["error"]["kind"] == "unknown-board"
    assert ask(bench, heard, "2", board="pi", boots="x")["error"]["key"] == "boots"


def test_the_reason_of_a_boot_timeout_says_where_the_boot_is_stuck() -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    plans = {"pi": BoardPlan(10.0, 0)}
    shelf = Shelf("lab", 1, plans, Moment(0.0, now), placed=lambda board: f"{board}: kernel fetched, silent since")
    shelf.power_read("pi", Power.ON, Moment(1.0, now))
    effects = shelf.tick(Moment(20.0, now))
    reason = "not registered 10 s after power on; pi: kernel fetched, silent since"
    assert shelf.state("pi").phase is Phase.FAULT
    assert shelf.state("pi").reason == reason
    assert [alert.what for _, _, alert in effects.alerts if alert is not None] == [reason]
