"""What an action says before its end, and that it ends on a disk that takes nothing."""

import asyncio
import errno
import json
import sqlite3
import time

import pytest

from agent import unstored_ends
from agent.actions import Progress
from tests.agent.test_actions import Bench, bench
from wire.payloads import Response, encode
from wire.phases import ErrorKind

__all__ = ["bench"]

PATIENCE_S = 30.0
ALERT = "boardhand/agent/attic/alert/store"


async def until(what):
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


# --- progress ---


async def test_the_last_of_a_stage_is_told_before_the_next():
    told = []
    progress = Progress(told.append)
    for percent in (0, 40, 97):
        progress("fetch", percent)
    progress("write", 0, "to the card")
    progress("write", 50)
    assert [(each["stage"], each["percent"]) for each in told] == [("fetch", 0.0), ("fetch", 97.0), ("write", 0.0)]
    progress.end()
    assert told[-1] == {"stage": "write", "percent": 50.0}
    progress("write", 60)  # a thread's last word
    assert told[-1] == {"stage": "write", "percent": 50.0}


async def test_what_is_followed_by_silence_is_told_all_the_same():
    told = []
    progress = Progress(told.append)
    progress("write", 1)
    progress("write", 96)
    progress("write", 97)
    assert len(told) == 1
    await until(lambda: len(told) > 1)
    assert [each["percent"] for each in told] == [1.0, 97.0], "the last one, once"
    progress.end()
    assert len(told) == 2


async def test_nothing_is_told_twice_and_the_whole_at_once():
    told = []
    progress = Progress(told.append)
    for percent in (5, 6, 5, 100, 100, 100):
        progress("write", percent)
    progress.end()
    assert [each["percent"] for each in told] == [5.0, 100.0]


async def test_an_action_that_fails_says_first_how_far_it_came(bench):
    bench.may_end.set()
    await bench.ask(fail=True)
    assert [(each["stage"], each.get("percent")) for each in bench.told] == [
        ("begun", None),
        ("writing", 0.0),
        ("writing", 99.0),
        ("failed", None),
    ]


# --- a full disk ---


async def fill(bench: Bench) -> None:
    """No page more: what SQLite says then is what it says on a full disk."""

    def work(db: sqlite3.Connection) -> None:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        db.execute("CREATE TABLE IF NOT EXISTS filler (bytes BLOB)")

    with pytest.raises(sqlite3.OperationalError, match="full"):
        await bench.store._store.run(work)


async def make_room(bench: Bench) -> None:
    await bench.store._store.run(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())


async def test_an_action_that_ends_on_a_full_disk_is_answered_and_answered_again(bench, monkeypatch):
    monkeypatch.setattr(unstored_ends, "AGAIN_S", 0.05)
    assert bench.retained[ALERT] == b"", "one of an earlier run is over"
    bench.answer = {"text": "x" * 100_000}  # what needs pages of its own
    first = asyncio.create_task(bench.ask())
    await bench.begun.wait()
    await fill(bench)
    bench.may_end.set()
    said = await first
    assert said.ok, said
    assert said.data["text"] == bench.answer["text"]
    assert bench.stages()[-1] == "done"
    alert = json.loads(bench.retained[ALERT])
    assert "database or disk is full): nothing is stored" in alert["what"]
    assert "make room" in alert["do"]
    assert bench.actions.under_way("pi4") is None, "the board is free"
    assert await bench.ask() == said, "whoever asks again does not wait for ever"
    assert bench.runs == 1
    await make_room(bench)
    await until(lambda: bench.retained[ALERT] == b"")
    assert await bench.store.begin("t1", "pi4", "flash") == (False, encode(said))
    bench.answer = {}
    assert (await bench.ask("t2")).ok


async def test_what_could_not_be_stored_is_tried_once_more_at_the_agents_end(bench):
    bench.answer = {"text": "x" * 100_000}
    first = asyncio.create_task(bench.ask())
    await bench.begun.wait()
    await fill(bench)
    bench.may_end.set()
    said = await first
    await bench.actions.stop()
    assert await bench.store.begin("t1", "pi4", "flash") == (False, None), (
        "no room yet: the next start says interrupted"
    )
    await make_room(bench)
    await bench.actions.stop()
    assert await bench.store.begin("t1", "pi4", "flash") == (False, encode(said))


async def test_whatever_the_disk_does_not_take_is_told_until_there_is_room(bench, monkeypatch):
    monkeypatch.setattr(unstored_ends, "AGAIN_S", 0.05)
    file, submitted = bench.store.file, []
    bench.agent.submit = submitted.append
    probes = []

    async def probe():
        probes.append(1)
        if len(probes) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file, "probe", probe)
    await fill(bench)
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await file.run(lambda db: db.execute("INSERT INTO agent_fact VALUES ('x', zeroblob(100000))"))
    assert "(database or disk is full): nothing is stored" in json.loads(bench.retained[ALERT])["what"]
    await until(lambda: bench.retained[ALERT] == b"")
    assert len(probes) == 3, "told until the disk took something"
    assert len(submitted) == 1, "what the boards came to meanwhile is stored now"
    # It may fill once more.
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await file.run(lambda db: db.execute("INSERT INTO agent_fact VALUES ('x', zeroblob(100000))"))
    await until(lambda: bench.retained[ALERT] == b"" and len(probes) == 4)


async def test_an_action_that_cannot_be_noted_is_not_begun(bench, monkeypatch):
    async def full(*_words):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bench.store, "begin", full)
    refused = await bench.ask()
    assert (refused.error.kind, bench.runs) == (ErrorKind.INTERNAL, 0)
    assert "state cannot be written" in refused.error.message
    monkeypatch.undo()
    bench.may_end.set()
    assert (await bench.ask("t2")).ok


# --- power ---


async def test_what_holds_the_power_waits_for_commands_under_way(bench):
    bench.may_end.set()
    await bench.ask()
    await bench.ask("t2", verb="look")
    assert bench.rested == ["pi4"], "only what holds the power"


async def test_a_late_board_is_not_cycled_during_an_action_but_while_somebody_waits_for_its_words(bench):
    bench.actions.add("console-expect", bench.work)
    for transaction, verb, why in (
        ("t1", "flash", "flash is under way"),
        ("t2", "look", "look is under way"),
        ("t3", "console-expect", None),
    ):
        bench.begun.clear()
        bench.may_end.clear()
        running = asyncio.create_task(bench.ask(transaction, verb=verb))
        await bench.begun.wait()
        assert bench.actions.retry_objection("pi4") == why
        bench.may_end.set()
        await running
    assert bench.actions.retry_objection("pi4") is None


async def test_nothing_begins_on_a_board_whose_settings_are_being_changed(bench):
    bench.may_end.set()
    with bench.actions.closed(["pi4"]):
        refused = await bench.ask()
        assert (await bench.ask("t2", board="bone")).ok
    assert isinstance(refused, Response)
    assert (refused.error.kind, "settings are being changed" in refused.error.message) == (ErrorKind.BUSY, True)
    assert (await bench.ask("t3")).ok
