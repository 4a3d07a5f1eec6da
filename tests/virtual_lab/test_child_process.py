"""Children that die are started again, more and more slowly; a cancel stops them."""

import asyncio
import os
import signal

import pytest

from virtual_lab import child_process
from virtual_lab.child_process import PythonChild, keep_running
from virtual_lab.namespace import LabError


class Fake:
    def __init__(self, ends):
        self.ends = list(ends)
        self.stopped = 0
        self.pid = 7

    async def start(self):
        if self.ends and isinstance(self.ends[0], Exception):
            raise self.ends.pop(0)

    async def wait(self):
        if not self.ends:
            await asyncio.Event().wait()
        return self.ends.pop(0)

    async def stop(self):
        self.stopped += 1


async def test_it_backs_off_reports_and_stops(monkeypatch):
    slept, said, started = [], [], []
    over = asyncio.Event()
    real_sleep = asyncio.sleep

    async def sleep(seconds):
        slept.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr(child_process.asyncio, "sleep", sleep)
    fake = Fake([LabError("no QEMU"), 1, -9, 0, 0, 0, 0, 0])

    def on_start():
        started.append(1)
        if not fake.ends:
            over.set()

    task = asyncio.create_task(keep_running(fake, on_start=on_start, on_end=said.append))
    await asyncio.wait_for(over.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said[:4] == ["no QEMU", "ended with 1", "was ended by SIGKILL", "ended with 0"]
    assert slept == [0.5, 1, 2, 4, 8, 16, 20, 20]
    assert fake.stopped == 1
    assert len(started) == 8


async def test_a_long_life_resets_the_back_off(monkeypatch):
    slept = []
    enough = asyncio.Event()
    real_sleep = asyncio.sleep

    async def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 4:
            enough.set()
        await real_sleep(0)

    monkeypatch.setattr(child_process.asyncio, "sleep", sleep)
    times = iter([0, 1, 1, 2, 10, 100, 100, 101, 200, 201])
    task = asyncio.create_task(
        keep_running(Fake([0] * 4), on_start=list, on_end=lambda _: None, clock=lambda: next(times))
    )
    await asyncio.wait_for(enough.wait(), 60)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert slept == [0.5, 1.0, 0.5, 1.0]


async def test_a_python_child_writes_its_log_and_ends_by_closing_its_input(tmp_path):
    log = tmp_path / "log"
    child = PythonChild("virtual_lab.frame_pump", ["no:numbers"], log)
    await child.start()
    assert await child.wait() == 1
    assert child.pid is None
    assert "ValueError" in child.last_words()
    quiet = PythonChild("virtual_lab.frame_pump", [], log)
    await quiet.start()
    pid = quiet.pid
    assert pid is not None
    await quiet.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert await quiet.wait() in {0, -signal.SIGTERM}


async def test_a_large_log_is_moved_aside(tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    child = PythonChild("virtual_lab.frame_pump", [], log)
    await child.start()
    await child.stop()
    assert (tmp_path / "log.1").stat().st_size == 17 * 1024 * 1024
    assert log.stat().st_size < 4096
