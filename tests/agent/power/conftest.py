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

    async def wait(condition, timeout_s=20):
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - what is waited for is in another process or a poll
                await asyncio.sleep(0.01)

    return wait
