"""The virtual cable, with pyserial at the other end."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import serial

from virtual_lab.serial_cable import VirtualCable

REPOSITORY = Path(__file__).parents[2]


async def talk(device, sent, expected):
    """Send bytes with pyserial, on a thread, and return what comes back up to `expected` bytes."""

    def work():
        with serial.Serial(device, timeout=30 if expected else 0.1, exclusive=True) as port:
            port.write(sent)
            return port.read(max(expected, 1))

    return await asyncio.to_thread(work)


async def test_digits_switch_and_a_question_mark_tells():
    changes = []
    async with VirtualCable(on_power=changes.append) as cable:
        assert await talk(cable.device, b"?", 1) == b"0"
        assert await talk(cable.device, b"b?", 1) == b"b"
        assert await talk(cable.device, b"\r\nzA?", 1) == b"a"
        assert cable.digits == [0xB, 0xA]
        assert cable.edges == changes == [True, False]


async def test_a_lying_and_a_silent_cable():
    async with VirtualCable(lying=True) as cable:
        assert await talk(cable.device, b"1?", 1) == b"0"
        cable.silent = True
        assert await talk(cable.device, b"1?", 0) == b""
        assert cable.digits == [1, 1]
        assert cable.edges == []


async def test_as_a_program_it_makes_and_removes_its_link(tmp_path):
    link = tmp_path / "cable0"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "virtual_lab.serial_cable", "--link", str(link),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            ready = json.loads(await process.stdout.readline())
            assert ready == {"ready": True, "device": str(link)}
            assert await talk(str(link), b"1?", 1) == b"1"
            for request, expected in (
                ({"do": "state"}, True), ({"do": "press", "on": False}, False), ({"do": "vanish"}, False),
            ):  # fmt: skip
                process.stdin.write(json.dumps(request).encode() + b"\n")
                assert json.loads(await process.stdout.readline())["on"] is expected
            assert not link.exists()
            process.stdin.write(b'{"do": "return"}\n{"do": "dance"}\n')
            assert json.loads(await process.stdout.readline())["ok"]
            assert not json.loads(await process.stdout.readline())["ok"]
            assert await talk(str(link), b"?", 1) == b"0"
            process.terminate()
            assert await process.wait() == 0
            assert not link.is_symlink()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_vanished_cable_gives_an_error_to_who_has_it_open():
    async with VirtualCable() as cable:
        with serial.Serial(cable.device, timeout=1) as port:
            cable.vanish()
            with pytest.raises(OSError):
                await asyncio.to_thread(port.read, 1)
