"""Fixtures of the power tests.

With --import-mode=importlib test folders are no packages, so what several files share comes as a fixture.
"""

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("power_fakes", Path(__file__).with_name("fakes.py"))
_module = importlib.util.module_from_spec(_spec)
sys.modules["power_fakes"] = _module  # dataclasses look their module up
_spec.loader.exec_module(_module)


@pytest.fixture
def fakes():
    return _module


@pytest.fixture
def until():
    """Wait for a condition, with a deadline."""

    async def wait(condition, timeout_s=60.0):
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - what is waited for is in another process or a poll
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def listening(until):
    """Wait until somebody listens on a UNIX socket.

    A path alone says only that `bind` was called: QEMU calls `listen` later, and refuses in between. /proc/net/unix
    tells without connecting, so that the one client whom QMP serves is still the test's.
    """

    def listens(path):
        # proc(5): Num RefCount Protocol Flags Type St Inode Path; 00010000 is SO_ACCEPTCON.
        lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
        return any(parts[3] == "00010000" and parts[-1] == str(path) for parts in lines)

    async def wait(path, timeout_s=60.0):
        await until(lambda: listens(path), timeout_s)

    return wait
