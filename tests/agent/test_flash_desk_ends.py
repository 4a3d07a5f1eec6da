"""Flashes that end otherwise than they should: given up while the board boots, and with a full disk."""

import asyncio
import sqlite3
import time

import pytest

from agent.memory import Memory
from agent.requests import RequestError
from tests.agent.test_flash_desk import PATIENCE_S, Bench, bench, store

__all__ = ["bench", "store"]


async def test_a_wait_for_the_boot_that_is_given_up_leaves_a_whole_image_and_nothing_to_put_back(tmp_path, store):
    bench = Bench(tmp_path, store, boots=True)
    await bench.start()
    bench.ready = False
    running = asyncio.create_task(bench.flash(image=str(bench.image())))
    async with asyncio.timeout(PATIENCE_S):
        await bench.booting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (bench.record.mode, bench.record.under_way, bench.record.damaged) == ("normal", None, None)
    second = Bench(tmp_path, store, boots=True)
    assert await second.start() == [], "the next agent's start finds nothing to put back"
    assert second.alert is None


async def test_a_full_disk_does_not_keep_the_agent_from_starting_again(bench, monkeypatch):
    running = await bench.begun()
    second = Bench(bench.folder, bench.store)

    async def full(_fact, _value):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Memory, "remember", lambda _self, fact, value: full(fact, value))
    assert await second.start() == ["imx"]
    assert "flash again" in second.alert
    await second.flashes.recover("imx")
    assert not second.modes.recovering
    monkeypatch.undo()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def until(what):
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_a_flash_that_is_cancelled_on_a_full_disk_brings_the_board_back_all_the_same(bench, monkeypatch):
    running = await bench.begun()

    async def full(_fact, _value):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Memory, "remember", lambda _self, fact, value: full(fact, value))
    running.cancel()
    with pytest.raises(RequestError, match="the state file cannot be written"):
        await running
    assert bench.hands.states == {"power": "off", "strap": "off"}
    assert "cut short; flash again" in bench.alert


@pytest.mark.parametrize("more", [{"mode": None}, {"then": "strapped", "mode": "strapped", "safe_mode": "strapped"}])
async def test_a_board_that_was_up_before_has_not_booted_the_new_image(tmp_path, store, more):
    """Neither where nobody switches it, nor where its modes do not cut its power."""
    bench = Bench(tmp_path, store, boots=True, **more)
    await bench.start()
    bench.boards["imx"].modes = {"normal": ["strap off"], "strapped": ["strap on"]}
    with pytest.raises(RequestError, match=r"did not boot anew within 0\.6 s: what runs on it was up before") as told:
        await bench.flash(image=str(bench.image()))
    assert "cycle its power" in str(told.value)
    assert "did not boot anew" in bench.alert
    assert bench.chip() == (bench.images / "good.img").read_bytes()


async def test_a_new_boot_counts_without_a_mode_too(tmp_path, store):
    bench = Bench(tmp_path, store, boots=True, mode=None)
    await bench.start()
    bench.flashes._boot_timeout_s = lambda _board: PATIENCE_S
    running = asyncio.create_task(bench.flash(image=str(bench.image())))
    await bench.booting.wait()
    assert not running.done()
    bench.reboots += 1  # the tool's last word made it start anew
    async with asyncio.timeout(PATIENCE_S):
        assert (await running)["verified"] is not None
    assert bench.alert is None


async def test_after_a_loss_of_power_any_boot_is_new_whatever_it_calls_itself(tmp_path, store):
    bench = Bench(tmp_path, store, boots=True, mode=None)
    await bench.start()
    bench.flashes._boot_timeout_s = lambda _board: PATIENCE_S
    running = asyncio.create_task(bench.flash(image=str(bench.image())))
    await bench.booting.wait()
    bench.ready = False
    told = len(bench.told)
    await until(lambda: len(bench.told) > told)  # it has looked, and found it off
    bench.ready = True
    async with asyncio.timeout(PATIENCE_S):
        await running


async def test_a_board_that_a_person_took_out_is_waited_for_as_any_other(tmp_path, store):
    """Nobody looks at its phase: that it registers is what counts."""
    bench = Bench(tmp_path, store, boots=True)
    await bench.start()
    bench.person = bench.maintenance = True
    assert (await bench.flash(image=str(bench.image())))["mode"] == "normal"
