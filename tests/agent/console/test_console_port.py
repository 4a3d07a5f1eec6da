"""A console's port and its faults: held by another, gone and back, floods, noise; sockets and TCP as ports."""

import asyncio
import os
import socket
import subprocess
import sys
import termios
import time

import pytest

from agent.console.holders import holders
from agent.console.milestones import Kind
from agent.console.settings import ConsolesTable, ConsoleTable, Place, contradictions
from agent.console.writer_place import Binding, Writer
from agent.requests import RequestError
from tests.agent.console.boards import Reader, until


async def test_the_very_first_byte_is_there(farm, board):
    one = board()
    await one.says(b"\x00U-Boot 2024.01")  # before anybody has opened it
    made = await farm({"b1": one.path})
    reader = Reader()
    made.desk.consoles["b1"].attach(reader)
    await made.open("b1")
    await until("the banner", lambda: b"U-Boot" in reader.heard)
    assert reader.heard == b"\x00U-Boot 2024.01"


async def test_a_port_that_another_program_holds_is_named_and_taken_when_it_is_free(farm, board, monkeypatch):
    monkeypatch.setattr("agent.console.port.HELD_RETRY_S", 0.1)
    one = board()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1], 'rb'); print('has it', flush=True); sys.stdin.read()",
         one.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == b"has it\n"
        made = await farm({"b1": one.path})
        console = made.desk.consoles["b1"]
        await until("it is named", lambda: f"process {holder.pid}" in (console.port.state.why or ""))
        assert not console.port.state.is_open
        assert holders(one.path)[0].pid == holder.pid
        answer = await made.desk.answer({"board": "b1"})
        assert f"process {holder.pid}" in answer["why"]
    finally:
        holder.communicate(b"")
    await until("it is ours", lambda: console.port.state.is_open)


async def test_our_port_is_refused_to_others(farm, board):
    one = board()
    one_farm = await farm({"b1": one.path})
    await one_farm.open("b1")
    check = "import serial, sys; serial.Serial(sys.argv[1], exclusive=True)"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", check, one.path], capture_output=True, check=False, timeout=60
    )
    assert b"xclusively lock" in done.stderr


async def test_it_is_back_within_milliseconds_under_its_path(farm, board, tmp_path, monkeypatch):
    monkeypatch.setattr("agent.console.port.RETRY_S", 60.0)  # so that only inotify can tell
    link = tmp_path / "serial" / "by-path" / "usb-1"
    made = await farm({"b1": str(link)})
    console = made.desk.consoles["b1"]
    await until("it is away", lambda: "no such file" in (console.port.state.why or ""))
    link.parent.parent.mkdir()
    await asyncio.sleep(0.05)
    link.parent.mkdir()
    await asyncio.sleep(0.05)
    for n in range(3):
        one = board(link)
        began = time.monotonic()
        await until("it is open", lambda: console.port.state.is_open)
        assert time.monotonic() - began < 40
        reader = Reader()
        console.attach(reader)
        await one.says(b"boot %d" % n)
        await until("it speaks", lambda r=reader, n=n: r.heard == b"boot %d" % n)
        one.vanishes()
        await until("it is away", lambda: not console.port.state.is_open)


class SocketBoard:
    """A board behind a listening socket, as QEMU's."""

    def __init__(self, server):
        self.server = server
        server.listen(1)
        server.setblocking(False)
        self.connection = None

    async def accepts(self):
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            self.connection, _ = await loop.sock_accept(self.server)
        self.connection.setblocking(False)

    def close(self):
        for one in (self.connection, self.server):
            if one is not None:
                one.close()


@pytest.fixture(params=["unix", "tcp"])
def socket_board(request, tmp_path):
    if request.param == "unix":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "console"))
        device = f"unix:{tmp_path / 'console'}"
    else:
        server = socket.create_server(("127.0.0.1", 0))
        device = f"tcp:127.0.0.1:{server.getsockname()[1]}"
    found = SocketBoard(server)
    found.device = device
    yield found
    found.close()


async def test_a_socket_is_a_port_too_and_is_connected_again(farm, socket_board, monkeypatch):
    monkeypatch.setattr("agent.console.port.RETRY_S", 0.1)
    made = await farm({"b1": socket_board.device})
    reader = Reader()
    console = made.desk.consoles["b1"]
    console.attach(reader)
    for _ in range(2):
        await socket_board.accepts()
        await made.open("b1")
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(socket_board.connection, b"hello\r\n")
        await until("heard", lambda: reader.heard.endswith(b"hello\r\n"))
        assert console.type(Writer("test"), b"ls\r") is None or console.place.holder is not None
        console.place.holder = None
        assert await loop.sock_recv(socket_board.connection, 100) == b"ls\r"
        socket_board.connection.close()
        await until("away", lambda: not console.port.state.is_open)
    assert reader.heard == b"hello\r\n" * 2


async def test_a_flood_from_one_board_leaves_the_others_readable(farm, board, tmp_path):
    """64 MiB as fast as a socket takes it; the other board's lines come within moments all the while."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "flood"))
    flooding = SocketBoard(server)
    quiet = board()
    made = await farm({"b1": f"unix:{tmp_path / 'flood'}", "b2": quiet.path}, keep_mb=1)
    flood, calm = Reader(keep=False), Reader()
    made.desk.consoles["b1"].attach(flood)
    made.desk.consoles["b2"].attach(calm)
    await flooding.accepts()
    await made.open("b1")
    await made.open("b2")
    total = 64 << 20
    code = "import socket,sys; s=socket.socket(fileno=int(sys.argv[1]))\nfor _ in range(%d): s.sendall(bytes(65536))"
    os.set_blocking(flooding.connection.fileno(), True)
    sender = subprocess.Popen(
        [sys.executable, "-c", code % (total >> 16), str(flooding.connection.fileno())],
        pass_fds=[flooding.connection.fileno()],
    )
    try:
        waits = []
        while sender.poll() is None:
            before, began = len(calm.heard), time.monotonic()
            await quiet.says(b"still here\r\n")
            await until("the other board", lambda b=before: len(calm.heard) >= b + 12)
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.01)
        await until("all of the flood", lambda: flood.size == total)
    finally:
        sender.kill()
        sender.wait()
        flooding.close()
    assert waits
    assert sorted(waits)[len(waits) // 2] < 0.5, "the median of what a line of the other board took"
    lines = await made.lines("b2")
    assert sum(line[1] == "still here" for line in lines) == len(waits)


async def test_a_reader_that_does_not_read_holds_nobody_up(farm, board, tmp_path, free_ports):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "flood"))
    flooding = SocketBoard(server)
    (raw,) = free_ports(1)
    made = await farm({"b1": {"device": f"unix:{tmp_path / 'flood'}", "raw_port": raw}}, keep_mb=1)
    good = Reader(keep=False)
    made.desk.consoles["b1"].attach(good)
    await flooding.accepts()
    await made.open("b1")
    with socket.create_connection(("127.0.0.1", raw)):  # reads nothing
        await until("it is there", lambda: made.desk.consoles["b1"].readers == 2)
        loop = asyncio.get_running_loop()
        for _ in range(24):
            await loop.sock_sendall(flooding.connection, b"x" * (1 << 20))
        await until("the other has all", lambda: good.size == 24 << 20, 20)
    flooding.close()


async def test_typing_is_bounded_and_goes_on(farm, board):
    one = board()
    made = await farm({"b1": one.path})
    console = await made.open("b1")
    who = Writer("test")
    sent = 0
    while console.type(who, bytes([sent % 251]) * 1000) is None:  # the board does not read
        sent += 1
        assert sent < 1000
    assert console.port.is_full
    assert console.type(who, b"x") == "the board takes nothing more now"
    drained = []
    console.port.when_drained(lambda: drained.append(True))
    heard = await one.hears(sent * 1000)
    assert heard == b"".join(bytes([n % 251]) * 1000 for n in range(sent))
    await until("drained", lambda: drained)


async def test_a_panic_is_told_with_its_last_lines(farm, board, monkeypatch):
    monkeypatch.setattr("agent.console.console.AFTER_PANIC_S", 0.3)
    one = board()
    made = await farm({"b1": one.path})
    await made.open("b1")
    await one.says(b"".join(b"[    1.%06d] line %d\r\n" % (n, n) for n in range(100)))
    await one.says(b"[    2.000000] Kernel panic - not syncing: VFS: no root\r\n[    2.000001] CPU: 0 PID: 1\r\n")
    (sight,) = await until("the panic", lambda: made.sights)
    assert sight.kind is Kind.PANIC
    assert sight.milestone.line == "[    2.000000] Kernel panic - not syncing: VFS: no root"
    assert len(sight.lines) == 50
    assert sight.lines[-1] == "[    2.000001] CPU: 0 PID: 1"


async def test_boots_by_power_and_by_restart(farm, board):
    from wire.phases import Power

    one = board()
    made = await farm({"b1": one.path})
    await made.open("b1")
    made.desk.power("b1", Power.OFF)
    for text in (b"U-Boot 2024.01\r\n[    0.000000] Linux version 6.1\r\nfirst\r\n", b"U-Boot 2024.01\r\nsecond\r\n"):
        await one.says(text)
        await until("seen", lambda t=text: made.desk.consoles["b1"].last_line() == t.split()[-1].decode())
    made.desk.power("b1", Power.ON)
    made.desk.power("b1", Power.OFF)
    await one.says(b"third\r\n")
    await until("seen", lambda: made.desk.consoles["b1"].last_line() == "third")
    said = [[line[1] for line in await made.lines("b1", boot=boot) if len(line) == 2] for boot in (0, -1, -2)]
    assert said == [
        ["third"],
        ["U-Boot 2024.01", "second"],
        ["U-Boot 2024.01", "[    0.000000] Linux version 6.1", "first"],
    ]
    with pytest.raises(RequestError, match="there is no boot -9; 4 are recorded"):
        await made.lines("b1", boot=-9)
    assert made.desk.placing(lambda _: "no DHCP")("b1") == "no DHCP; the last on its console: third"
    assert made.desk.placing(lambda _: None)("b2") is None


async def test_no_secret_stands_in_the_recording_nor_goes_to_readers(farm, board, tmp_path):
    one = board()
    made = await farm({"b1": one.path})
    await made.open("b1")
    reader = Reader()
    made.desk.consoles["b1"].attach(reader)
    secret = b"0123456789abcdef" * 4
    for byte in b"[    0.000000] Kernel command line: boardhand.secret=" + secret + b" quiet\r\n":
        await one.says(bytes([byte]))
    await until("all of it", lambda: reader.heard.endswith(b"quiet\r\n"))
    assert secret[:16] not in reader.heard
    (line,) = await made.lines("b1", grep="command line")
    assert line[1] == "[    0.000000] Kernel command line: boardhand.secret=" + "*" * 64 + " quiet"
    for path in (made.folder / "consoles" / "b1").iterdir():
        assert secret[:16] not in path.read_bytes()


BAD = [
    ({"board": "b9"}, "no console here", "unknown-board"),
    ({"board": "b1", "do": "dance"}, "do: status", "bad-request"),
    ({"board": "b1", "do": "read", "since": "yesterday"}, "since", "bad-request"),
    ({"board": "b1", "do": "read", "since": [1]}, "since", "bad-request"),
    ({"board": "b1", "do": "read", "grep": 7}, "grep", "bad-request"),
    ({"board": "b1", "do": "read", "after": "x"}, "after", "bad-request"),
    ({"board": "b1", "do": "read", "boot": "last"}, "boot", "bad-request"),
    ({"board": "b1", "do": "write"}, "text", "bad-request"),
    ({"board": "b1", "do": "write", "text": "x" * 5000}, "at most", "bad-request"),
]


@pytest.mark.parametrize(("data", "says", "kind"), BAD, ids=[str(row[0])[:60] for row in BAD])
async def test_requests_that_are_wrong(farm, board, data, says, kind):
    made = await farm({"b1": board().path})
    with pytest.raises(RequestError, match=says) as failed:
        await made.desk.answer(data)
    assert failed.value.info.kind == kind


async def test_typing_over_mqtt_obeys_leases_and_the_writers_place(farm, board):
    one = board()
    made = await farm({"b1": one.path})
    console = await made.open("b1")
    await made.desk.answer({"board": "b1", "do": "write", "text": "ls\r"})
    assert await one.hears(3) == b"ls\r"
    made.leases["b1"] = Binding("alice", 7)
    with pytest.raises(RequestError, match="leased by alice"):
        await made.desk.answer({"board": "b1", "do": "write", "text": "ls\r"})
    await made.desk.answer({"board": "b1", "do": "write", "text": "id\r", "token": 7})
    assert await one.hears(3) == b"id\r"
    console.type(Writer("bob"), b"x")
    with pytest.raises(RequestError, match="bob is typing"):
        await made.desk.answer({"board": "b1", "do": "write", "text": "ls\r", "token": 7})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("/dev/ttyUSB0", ("tty", "/dev/ttyUSB0", 0)),
        ("pty:/dev/pts/3", ("tty", "/dev/pts/3", 0)),
        ("unix:/run/q.console", ("unix", "/run/q.console", 0)),
        ("tcp:ts1:4001", ("tcp", "ts1", 4001)),
        ("tcp:[::1]:4001", ("tcp", "::1", 4001)),
    ],
)
def test_places(text, place):
    assert Place.parse(text) == place


@pytest.mark.parametrize("text", ["ttyUSB0", "tcp:host", "tcp:host:0", "tcp:host:99999", "unix:x", ""])
def test_what_is_no_place(text):
    with pytest.raises(ValueError, match="is no console"):
        ConsoleTable(device=text)


def test_two_boards_cannot_have_one_port():
    tables = {
        "a": ConsoleTable(device="/dev/a", telnet_port=7001),
        "b": ConsoleTable(device="/dev/b", telnet_port=7002, raw_port=7001),
        "c": ConsoleTable(device="/dev/a"),
        "d": None,
    }
    assert [key for key, _ in contradictions(tables)] == [
        ("boards", "b", "console", "raw_port"), ("boards", "c", "console", "device")]  # fmt: skip


async def test_an_address_that_is_taken_is_named(farm, board, free_ports):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=rf"boards.b1.console.telnet_port: cannot listen at 127.0.0.1, port {port}"):
            await farm({"b1": {"device": board().path, "telnet_port": port}})


def test_listening_is_on_this_host_unless_told_otherwise():
    assert [str(address) for address in ConsolesTable().listen] == ["127.0.0.1"]


async def test_clients_set_the_speed_where_the_settings_say_so(farm, board, free_ports):
    one = board()
    (telnet,) = free_ports(1)
    made = await farm({"b1": {"device": one.path, "telnet_port": telnet}}, clients_set_speed=True)
    console = await made.open("b1")
    reader, writer = await asyncio.open_connection("127.0.0.1", telnet)
    await reader.readexactly(15)
    writer.write(bytes([255, 251, 44, 255, 250, 44, 1, 0, 0, 0x25, 0x80, 255, 240]))
    await until("9600 baud", lambda: console.speed == 9600)
    assert termios.tcgetattr(one.master)[4] == termios.B9600, "the port itself has it"
    await one.says(b"still here")
    assert b"still here" in await reader.readuntil(b"here")
    writer.close()


async def test_the_socket_of_an_agent_that_was_killed_is_taken_over(farm, board, tmp_path):
    folder = tmp_path / "state" / "consoles"
    folder.mkdir(parents=True)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(folder / "b1.sock"))
    left.close()
    made = await farm({"b1": board().path})
    await made.open("b1")
    reader, writer = await asyncio.open_unix_connection(folder / "b1.sock")
    assert len(await reader.readexactly(15)) == 15
    writer.close()
