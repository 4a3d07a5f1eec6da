"""Flashes that end otherwise than they should: given up while the board boots, and with a full disk."""

import asyncio
import sqlite3

import pytest

from agent.memory import Memory
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
