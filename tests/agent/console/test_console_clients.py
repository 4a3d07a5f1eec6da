"""Real clients on a console's ports: pyserial, telnet, labgrid, socat; and `boardhand console` on a pty."""

import asyncio
import contextlib
import json
import os
import pty
import sys
from pathlib import Path

import pytest
import serial

from agent.console.telnet import own
from tests.agent.console.boards import until

ROOT = Path(__file__).parents[3]
LABGRID = ROOT / ".cache" / "peers" / "labgrid" / "bin" / "python"
CLI = (sys.executable, "-m", "cli")


@pytest.fixture
async def bench(farm, board, free_ports):
    """A board `b1` on a pty, and its ports."""
    one = board()
    telnet, raw = free_ports(2)
    made = await farm({"b1": {"device": one.path, "telnet_port": telnet, "raw_port": raw}}, writer_idle_s=4)
    await made.open("b1")
    made.board, made.telnet, made.raw = one, telnet, raw
    return made


async def as_uboot(board):
    """A prompt that echoes and knows one command, garbage first."""
    await board.says(b"\x00\xff\xfe\r\nU-Boot 2024.01\r\n=> ")
    line = b""
    while True:
        line += await board.hears(1, deadline_s=60)
        if line.endswith((b"\r", b"\n")):
            command = line.rstrip(b"\r\n")
            await board.says(command + (b"\r\nbootcmd=bootflow" if command else b"") + b"\r\n=> ")
            line = b""


PYSERIAL = pytest.mark.filterwarnings("ignore:set(Daemon|Name)\\(:DeprecationWarning")
"""pyserial 3.5 starts its thread so."""


@PYSERIAL
async def test_pyserial_rfc2217(bench):
    def client():
        port = serial.serial_for_url(f"rfc2217://127.0.0.1:{bench.telnet}", baudrate=115200, timeout=5)
        with port:
            port.write(bytes(range(256)))
            heard = port.read(256)
            port.send_break(0.01)
            port.baudrate = 9600
            port.dtr = False
            return heard, port.cts, port.baudrate

    done = asyncio.create_task(asyncio.to_thread(client))
    assert await bench.board.hears(256) == bytes(range(256)), "every byte as it is"
    await bench.board.says(bytes(range(255, -1, -1)))
    assert await done == (bytes(range(255, -1, -1)), True, 9600)
    assert bench.desk.consoles["b1"].speed == 115200, "told yes, and the line stays as its board needs it"


@PYSERIAL
async def test_pyserial_with_its_own_speed_is_let_in(bench):
    """Its URL without options asks for 9600 baud, and it gives up where that is refused."""

    def client():
        with serial.serial_for_url(f"rfc2217://127.0.0.1:{bench.telnet}", timeout=5) as port:
            port.write(b"?")
            return port.read(3)

    done = asyncio.create_task(asyncio.to_thread(client))
    assert await bench.board.hears(1) == b"?"
    await bench.board.says(b"abc")
    assert await done == b"abc"


async def test_pyserial_raw(bench):
    def client():
        with serial.serial_for_url(f"socket://127.0.0.1:{bench.raw}", timeout=5) as port:
            port.write(b"\xff\xfb\x01\r\n")
            return port.read(4)

    done = asyncio.create_task(asyncio.to_thread(client))
    assert await bench.board.hears(5) == b"\xff\xfb\x01\r\n"
    await bench.board.says(b"\xff\xff\x00!")
    assert await done == b"\xff\xff\x00!"


async def test_telnet(bench):
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        "telnet", "127.0.0.1", str(bench.telnet), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    os.set_blocking(master, False)
    shown = b""

    def saw(text):
        nonlocal shown
        with contextlib.suppress(BlockingIOError):
            shown += os.read(master, 65536)
        return text in shown

    try:
        await until("connected", lambda: saw(b"Escape character"))
        await until("it reads", lambda: bench.desk.consoles["b1"].readers)
        await bench.board.says(b"=> ")
        await until("prompt", lambda: saw(b"=> "))
        os.write(master, b"version\r")
        assert await bench.board.hears(8) == b"version\r", "character mode, and enter is one CR"
        await bench.board.says(b"version\r\nU-Boot\r\n")
        await until("answer", lambda: saw(b"U-Boot"))
        assert shown.count(b"version") == 1, "the board echoes, telnet does not"
    finally:
        process.kill()
        await process.wait()
        os.close(master)


@pytest.mark.parametrize("protocol", ["rfc2217", "raw"])
async def test_labgrid(bench, tmp_path, protocol):
    assert LABGRID.is_file(), f"{LABGRID} is not there: run `make test` once"
    port = bench.telnet if protocol == "rfc2217" else bench.raw
    environment = tmp_path / "environment.json"  # YAML holds JSON
    resource = {"NetworkSerialPort": {"host": "127.0.0.1", "port": port, "speed": 115200, "protocol": protocol}}
    target = {"resources": resource, "drivers": {"SerialDriver": {}}}
    environment.write_text(json.dumps({"targets": {"main": target}}))
    process = await asyncio.create_subprocess_exec(
        LABGRID, Path(__file__).with_name("drive_labgrid.py"), environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    await until("it reads", lambda: bench.desk.consoles["b1"].readers, 30)
    uboot = asyncio.create_task(as_uboot(bench.board))
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        uboot.cancel()
    assert process.returncode == 0, err.decode()
    found = json.loads(out)
    assert found["bootcmd"] == "bootflow"
    assert found["echo"].endswith("printenv bootcmd\r\n")


async def test_connections_stay_while_the_board_is_away(farm, board, free_ports, tmp_path):
    """labgrid 1387, LAVA's lava-docker 162: the UART goes with the board's power, the session does not."""
    link = tmp_path / "by-path"
    first = board(link)
    (raw,) = free_ports(1)
    made = await farm({"b1": {"device": str(link), "raw_port": raw}})
    console = await made.open("b1")
    reader, writer = await asyncio.open_connection("127.0.0.1", raw)
    await until("it reads", lambda: console.readers)
    await first.says(b"before")
    assert await reader.readexactly(6) == b"before"
    first.vanishes()
    await until("away", lambda: not console.port.state.is_open)
    writer.write(b"to nobody")
    second = board(link)
    await second.says(b"the very first byte")
    async with asyncio.timeout(60):
        assert await reader.readexactly(19) == b"the very first byte"
    writer.write(b"ls\r")
    assert await second.hears(3) == b"ls\r", "what was typed for a board without power is not for its next boot"
    writer.close()


async def test_many_read_and_one_types(bench):
    console = bench.desk.consoles["b1"]
    clients = [await asyncio.open_connection("127.0.0.1", bench.raw) for _ in range(3)]
    await until("all read", lambda: console.readers == 3)
    await bench.board.says(b"for all")
    for reader, _ in clients:
        assert await reader.readexactly(7) == b"for all"
    first, second = clients[0][1], clients[1][1]
    first.write(b"one")
    assert await bench.board.hears(3) == b"one"
    second.write(b"two")
    await asyncio.sleep(0.1)  # that nothing comes
    assert bench.board.heard_now() == b""
    first.close()
    await until("the place is free", lambda: console.place.holder is None)
    second.write(b"three")
    assert await bench.board.hears(5) == b"three", "it is free when its holder leaves"
    clients[2][1].write(b"x")
    await asyncio.sleep(4.2)
    clients[2][1].write(b"four")
    assert await bench.board.hears(4) == b"four", "and when he has typed nothing for a while"


async def test_a_lease_binds_writers_where_the_settings_say_so(farm, board, free_ports):
    from agent.console.writer_place import Binding

    one = board()
    (telnet,) = free_ports(1)
    made = await farm({"b1": {"device": one.path, "telnet_port": telnet, "writers": "lease"}})
    await made.open("b1")
    made.leases["b1"] = Binding("alice", 7)
    reader, writer = await asyncio.open_connection("127.0.0.1", telnet)
    await reader.readexactly(15)
    writer.write(b"rm -rf /\r")
    assert b"leased by alice" in await reader.readuntil(b"]")
    assert one.heard_now() == b""
    writer.write(bytes([255, 251, 176]) + own({"name": "alice", "token": 7}) + b"ls\r\0")
    assert await one.hears(3) == b"ls\r"
    made.leases["b1"] = Binding("bob", 8)
    writer.write(b"id\r\0")
    while True:
        if b"leased by bob" in await reader.readuntil(b"}"):
            break
    assert one.heard_now() == b"", "a token of an old lease types nothing"
    writer.close()


class Terminal:
    """A command on a pty."""

    def __init__(self, *arguments):
        self.arguments = arguments
        self.shown = b""

    async def __aenter__(self):
        self.master, slave = pty.openpty()
        self.process = await asyncio.create_subprocess_exec(
            *CLI, *self.arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=ROOT
        )
        os.close(slave)
        os.set_blocking(self.master, False)
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        os.close(self.master)

    def saw(self, text):
        with contextlib.suppress(OSError):
            self.shown += os.read(self.master, 65536)
        return text in self.shown

    async def sees(self, text):
        await until(text, lambda: self.saw(text), 15)

    def types(self, data):
        os.write(self.master, data)


async def test_boardhand_console_in_a_terminal(bench):
    address = f"127.0.0.1:{bench.telnet}"
    console = bench.desk.consoles["b1"]
    async with Terminal("console", "b1", "--address", address) as alice:
        await alice.sees(b"Ctrl-] . leaves")
        await bench.board.says(b"\xffvirt login: ")
        await alice.sees(b"\xffvirt login: ")
        alice.types(b"root\r\x03")
        assert await bench.board.hears(6) == b"root\r\x03", "raw: Ctrl-C is the board's"
        async with Terminal("console", "b1", "--address", address) as bob:
            await bob.sees(b"Ctrl-] . leaves")
            await until("both read", lambda: console.readers == 2)
            bob.types(b"x")
            await bob.sees(b"is typing")
            bob.types(b"\x1dw")
            await alice.sees(b"writes now")
            bob.types(b"bob")
            assert await bench.board.hears(3) == b"bob"
            bob.types(b"\x1ds")
            await bob.sees(b"you write")
            bob.types(b"\x1d?")
            await bob.sees(b"send break")
            bob.types(b"\x1d.")
            assert await bob.process.wait() == 0
        alice.types(b"\x1d.")
        assert await alice.process.wait() == 0


async def test_boardhand_console_in_a_pipe_over_the_socket_of_this_host(bench):
    path = bench.folder / "consoles" / "b1.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    process = await asyncio.create_subprocess_exec(
        *CLI, "console", "b1", "--address", f"unix:{path}", "--for-s", "3",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    process.stdin.write(b"uname\r")
    process.stdin.close()
    assert await bench.board.hears(6) == b"uname\r"
    await bench.board.says(b"Linux\r\n")
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"Linux\r\n", b"")
