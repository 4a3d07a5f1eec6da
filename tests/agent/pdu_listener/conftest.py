"""A listener on free ports before a desk without hardware."""

import asyncio
import importlib.util
import sys
from pathlib import Path

import aiohttp
import pytest

_spec = importlib.util.spec_from_file_location("pdu_listener_desk", Path(__file__).with_name("fake_desk.py"))
_module = importlib.util.module_from_spec(_spec)
sys.modules["pdu_listener_desk"] = _module  # dataclasses look their module up
_spec.loader.exec_module(_module)


@pytest.fixture
def fake():
    return _module


@pytest.fixture
async def listen(fake):
    """Starts listeners: `listener, desk = await listen(**table)`."""
    started = []

    async def start(**table):
        table = {"http": "127.0.0.1:0", "tcp": "127.0.0.1:0"} | table
        listener, desk = fake.make({key: value for key, value in table.items() if value is not None})
        await listener.start()
        started.append((listener, desk))
        return listener, desk

    yield start
    for listener, desk in started:
        desk.go_on.set()
        await listener.stop()


@pytest.fixture
async def http():
    """`status, text = await http(listener, "/power/…")`."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:

        async def ask(listener, path, method="GET", **options):
            async with session.request(method, f"http://{listener.http}{path}", **options) as answer:
                return answer.status, await answer.text()

        ask.session = session
        yield ask


@pytest.fixture
def say():
    """One line by TCP as pduclient sends it, and the whole answer."""

    async def say(listener, *pieces, eof=False, pause_s=0.0):
        reader, writer = await asyncio.open_connection(listener.tcp.host, listener.tcp.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
            if eof:
                writer.write_eof()
            async with asyncio.timeout(60):
                return await reader.read()
        finally:
            writer.close()

    return say


@pytest.fixture
def until():
    """Wait for a condition, with a deadline."""

    async def wait(condition, timeout_s=60.0):
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in another task
                await asyncio.sleep(0.005)

    return wait
