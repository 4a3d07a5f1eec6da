"""What boards and hosts do to consoles: noise at any speed, and a disk that is full."""

import asyncio
import json
import os
import random
import re
import resource
import socket
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.agent.console.boards import Reader, until
from wire.phases import Power

ROOT = Path(__file__).parents[3]
PATIENCE_S = 40.0
LINE_BYTES = 9  # of full_disk.py
MOUNTED = 'mount -t tmpfs -o size=256k,mode=700 tmpfs "$1" && exec "$2" "$3" "$1"'


def noise(seed, size):
    """Bytes of every kind, with what terminals, telnet and our own milestones and secrets take for theirs."""
    dice = random.Random(seed)
    words = [
        b"\xff\xfb\x2c",
        b"\xff\xfa\x2c\x01\xff\xf0",
        b"\x1b[2J",
        b"\x00" * 40,
        b"boardhand.secret=",
        b"\x03\x1a\x04",
    ]
    found = bytearray()
    while len(found) < size:
        found += dice.randbytes(dice.randrange(1, 3000)) + dice.choice(words)
    return bytes(found[:size])


@pytest.mark.parametrize("speed", [50, 9600, 115200, 1_500_000, 4_000_000])
async def test_binary_noise_at_any_speed_comes_through_byte_for_byte(farm, board, speed):
    one, other = board(), board()
    made = await farm({"b1": {"device": one.path, "speed": speed}, "b2": other.path})
    console = await made.open("b1")
    await made.open("b2")
    assert termios.tcgetattr(one.master)[4] == getattr(termios, f"B{speed}"), "the port itself has the speed"
    reader, calm = Reader(), Reader()
    console.attach(reader)
    made.desk.consoles["b2"].attach(calm)
    data = noise(speed, 200_000)
    await one.says(data)
    await other.says(b"calm\r\n")
    await until("all of it", lambda: len(reader.heard) == len(data), PATIENCE_S)
    await until("the other board", lambda: calm.heard == b"calm\r\n", PATIENCE_S)
    secret = data.count(b"boardhand.secret=")
    assert secret
    hidden = sum(was != now for was, now in zip(data, reader.heard, strict=True))
    assert hidden <= secret * 64, "what looks like a secret is hidden, and nothing else is touched"
    await one.says(b"\r\nstill here\r\n")
    await until("a line after it", lambda: reader.heard.endswith(b"still here\r\n"), PATIENCE_S)
    assert (await made.lines("b1"))[-1][1] == "still here"
    assert made.sights == []
    assert console.port.state.is_open


async def test_a_tcp_console_that_speaks_noise_and_ends_in_the_middle(farm, monkeypatch):
    monkeypatch.setattr("agent.console.port.RETRY_S", 0.05)
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        made = await farm({"b1": f"tcp:127.0.0.1:{server.getsockname()[1]}"})
        reader, whole = Reader(), b""
        made.desk.consoles["b1"].attach(reader)
        for seed in range(4):
            async with asyncio.timeout(PATIENCE_S):
                connection, _ = await loop.sock_accept(server)
            connection.setblocking(False)
            data = noise(seed, 30_000).replace(b"boardhand.secret=", b"")
            whole += data
            await loop.sock_sendall(connection, data)
            if seed % 2:  # a reset, and not an end
                await until("it is read", lambda whole=whole: len(reader.heard) == len(whole), PATIENCE_S)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
            await until("all of it", lambda whole=whole: len(reader.heard) == len(whole), PATIENCE_S)
        assert reader.heard == whole


async def test_a_full_disk_ends_neither_reading_nor_the_other_boards(tmp_path):
    """A file system of 256 KiB in a namespace of its own, not an error that somebody made up."""
    script = Path(__file__).with_name("full_disk.py")
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        MOUNTED,
        "sh",
        tmp_path,
        sys.executable,
        script,
    ]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["troubles"] == ["no space left on device"]
    assert seen["all_troubles"] == ["no space left on device", None]
    assert done.stderr.count("cannot be recorded") == 1, "it is said once"
    first, second = seen["lines"]["b1"], seen["lines"]["b2"]
    assert second[-1] == first[-1] == "after"
    kept = [int(line) for line in first if re.fullmatch("[0-9]{7}", line)]
    assert kept[0] == 0
    assert kept == sorted(kept)
    notes = [
        int(line.split()[0]) for line in first if line.endswith("bytes are missing here: they could not be recorded")
    ]
    assert notes
    # A line at either edge of what is missing may be cut in two.
    assert abs(sum(notes) - (seen["said"] - len(kept)) * LINE_BYTES) <= 2 * LINE_BYTES * len(notes), "all is counted"


async def test_tries_at_a_full_disk_leave_no_heap_of_files_and_one_boot(farm, board, monkeypatch):
    monkeypatch.setattr("agent.console.recorder.RETRY_S", 0.02)
    one = board()
    made = await farm({"b1": one.path})
    await made.open("b1")
    await one.says(b"first\r\n")
    await until("recorded", (made.folder / "consoles/b1").is_dir, PATIENCE_S)
    assert (await made.lines("b1"))[-1][1] == "first"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        made.desk.power("b1", Power.ON)
        made.desk.power("b1", Power.OFF)
        for _ in range(10):
            await one.says(b"lost\r\n")
            await made.desk.answer({"board": "b1", "do": "boots"})
        await until("it is known", lambda: made.troubles, PATIENCE_S)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await until("the disk is well", lambda: made.troubles[-1] is None, PATIENCE_S)
    made.desk.consoles["b1"].look()
    await one.says(b"second\r\n")
    await until("heard", lambda: made.desk.consoles["b1"].last_line() == "second", PATIENCE_S)
    assert (await made.lines("b1", boot=0))[-1][1] == "second"
    assert "first" in [line[1] for line in await made.lines("b1", boot=-1)], "one boot, however often it was tried"
    boots = [path.name.split("-")[1] for path in (made.folder / "consoles/b1").iterdir()]
    assert set(boots) == {"00000000", "00000001"}
    assert len(boots) <= 4
