"""The compiled pump against the pure form: the same packets in, the same packets out; its bounds; how it is made."""

import contextlib
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netboot.native import build
from netboot.tftp_cache import PacketCache
from netboot.tftp_packet import READ, Negotiated, Request, encode_error
from netboot.tftp_pump import BATCH, NOT_SENT, READ_FAILED, Pump, PumpMissingError, Turns, make_waiting
from netboot.tftp_pump import READ as WAS_READ
from netboot.tftp_session import Asked, Session
from netboot.tftp_sessions import Sessions
from netboot.tftp_source import Source

LIBRARY = os.environ.get("BOARDHAND_TEST_PUMP") or str(build.LIBRARY)
BLOCK = 16


@contextlib.contextmanager
def pair():
    """A client's socket and the server's, connected to each other."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        for one in (client, sock):
            one.bind(("127.0.0.1", 0))
            one.setblocking(False)
        sock.connect(client.getsockname())
        client.connect(sock.getsockname())
        yield client, sock


class Server:
    """One transfer in one form, driven by hand, with its client's socket."""

    def __init__(self, stack, data, *, pumped, window, rollover=0, oack=False):
        self.client, sock = stack.enter_context(pair())
        self.epoll = stack.enter_context(select.epoll())
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        self.pump = Pump(self.epoll, LIBRARY) if pumped else None
        cache = PacketCache(1 << 20)
        self.sessions = Sessions(cache, self.pump)
        self.session = Session.begin(
            asked=Asked(1, Request(READ, "f", "octet"), self.client.getsockname(), "127.0.0.1", 0.0),
            sock=sock,
            source=Source(cache, data=data),
            negotiated=Negotiated(BLOCK, window, None, (("windowsize", str(window)),) if oack else ()),
            now=0.0,
            rollover=rollover,
            pump=self.pump,
        )
        self.sessions.add(self.session)
        self.session.start(0.0)
        self.in_pump = 0

    def turn(self, now):
        """One turn of the worker's loop."""
        if self.session.ended:
            return
        if self.pump is None:
            if self.epoll.poll(0):
                self.session.readable(now)
        else:
            self.in_pump += self.session._pumped
            for _, report in self.pump.run(0.0, now):
                if report is None:
                    self.session.readable(now)
                else:
                    self.session.handed_up(report, now)
        if not self.session.ended and self.session.transfer.deadline <= now:
            self.session.timer(now)

    def as_a_row(self):
        """Wait as a row, and no longer."""
        fd = self.session.sock.fileno()
        self.sessions.park(self.session)
        self.session = self.sessions.wake(fd)

    def replies(self):
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.client.recv(2048))
        return found

    def state(self):
        """What the client can notice, now or later."""
        transfer = self.session.transfer
        if self.pump is not None and self.session._pumped:
            transfer.left(*self.pump.peek(self.session._fd))
        transfer._catch_up()
        return transfer.outcome, transfer.base, transfer.sent, transfer.resent, transfer.ignored, transfer.deadline


STEPS = st.one_of(
    st.tuples(st.just("ack"), st.just(0), st.just(0.001)),  # what a healthy client does, mostly
    st.tuples(st.just("many"), st.integers(1, 60), st.sampled_from([0.0005, 0.03])),
    st.tuples(st.just("ack"), st.integers(-20, 20), st.sampled_from([0.0, 0.001, 0.012, 0.3])),
    st.tuples(st.just("raw"), st.binary(max_size=12), st.just(0.001)),
    st.tuples(st.just("padded"), st.integers(-1, 1), st.just(0.001)),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from([0.01, 0.03, 0.2, 5.0])),
    st.tuples(st.just("row"), st.just(0), st.just(0.001)),
    st.tuples(st.just("again"), st.just(0), st.just(0.001)),
    st.tuples(st.just("error"), st.integers(0, 8), st.just(0.001)),
)


def packet(kind, value, expected):
    """What the client sends; `expected` is the highest block that it got."""
    ack = b"\0\4" + ((expected + value) & 0xFFFF).to_bytes(2, "big") if kind in {"ack", "padded", "many"} else b""
    return {"ack": ack, "many": ack, "padded": ack + b"padding", "raw": value}.get(kind) or encode_error(
        value if kind == "error" else 0, "enough"
    )


def highest(replies, before):
    return max([before, *(int.from_bytes(data[2:4], "big") for data in replies if data[1] == 3)])


@settings(
    max_examples=int(os.environ.get("BOARDHAND_TEST_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    steps=st.lists(STEPS, max_size=40),
    window=st.sampled_from([1, 1, 2, 5, 16]),
    blocks=st.sampled_from([3, 200, 1500, 5000]),
    more=st.integers(0, BLOCK - 1),
    oack=st.booleans(),
)
def test_same_packets_same_replies(steps, window, blocks, more, oack):
    data = bytes(range(256)) * (blocks * BLOCK // 256 + 1)
    data = data[: blocks * BLOCK + more]
    with contextlib.ExitStack() as stack:
        servers = [Server(stack, data, pumped=pumped, window=window, oack=oack) for pumped in (False, True)]
        pure, pumped = servers
        replies = [server.replies() for server in servers]
        assert replies[0] == replies[1]
        now, expected = 0.0, highest(replies[0], 0)
        for kind, value, later in [("many", 12, 0.001), *steps]:
            for _ in range(value if kind == "many" else 1):
                now += later
                if kind == "row" and all(server.session.waits for server in servers):
                    for server in servers:
                        server.as_a_row()
                for server in servers:
                    if kind == "again":
                        server.session.repeat_start(now)
                    elif kind not in {"wait", "row"} and not server.session.ended:
                        server.client.send(packet(kind, 0 if kind == "many" else value, expected))
                    server.turn(now)
                replies = [server.replies() for server in servers]
                assert replies[0] == replies[1]
                assert pure.state() == pumped.state()
                expected = highest(replies[0], expected)
            if pure.session.ended:
                assert pure.session.reason() == pumped.session.reason()
                break
        assert blocks < 200 or pumped.in_pump > 0


@pytest.mark.parametrize("window", [1, 4, 16])
@pytest.mark.parametrize("rollover", [0, 1])
def test_a_whole_file_by_the_pump_and_over_65535_blocks(window, rollover):
    data = os.urandom(70_000 * BLOCK + 5)
    with contextlib.ExitStack() as stack:
        server = Server(stack, data, pumped=True, window=window, rollover=rollover)
        got, now = bytearray(), 0.0
        while not server.session.ended:
            replies = server.replies()
            got += b"".join(reply[4:] for reply in replies)
            server.client.send(b"\0\4" + replies[-1][2:4])
            now += 0.001
            server.turn(now)
        assert server.session.complete
        assert got == data
        assert server.session.transfer.resent == 0
        # Numbers that start again at 1 are left to Python.
        assert server.in_pump > 60_000 // window if not rollover else server.in_pump == 0


def in_its_lane(stack, blocks):
    """A transfer in lockstep that the pump has taken over, and the block that its client got last."""
    server = Server(stack, bytes(blocks * BLOCK), pumped=True, window=1)
    for block in range(1, 20):
        server.client.send(b"\0\4" + block.to_bytes(2, "big"))
        server.turn(block * 0.001)
    assert server.session._pumped
    assert [int.from_bytes(reply[2:4], "big") for reply in server.replies()] == list(range(1, 21))
    return server, 20


@pytest.mark.parametrize("behind", [b"\0\4\0\1", b"", b"junk", "same"])
def test_a_packet_that_waits_behind_another_delays_nothing(behind):
    """The watch is edge-triggered: what lies behind the ACK is read with the next packet, and that one at once too."""
    with contextlib.ExitStack() as stack:
        server, block = in_its_lane(stack, 200)
        for turn in range(100):
            ack = b"\0\4" + block.to_bytes(2, "big")
            server.client.send(ack)
            server.client.send(ack if behind == "same" else behind)
            for _ in range(3):
                server.turn(0.02)  # no timer can help
            block += 1
            assert [int.from_bytes(reply[2:4], "big") for reply in server.replies()] == [block], turn
        assert server.in_pump > 100
        assert server.session.transfer.resent == 0


def test_an_error_behind_an_ack_is_heard_at_the_next_timer():
    with contextlib.ExitStack() as stack:
        server, block = in_its_lane(stack, 200)
        server.client.send(b"\0\4" + block.to_bytes(2, "big"))
        server.client.send(encode_error(8, "User aborted"))
        for _ in range(3):
            server.turn(0.02)
        assert not server.session.ended
        for _ in range(2):
            server.turn(0.2)
        assert server.session.reason().startswith("aborted by the client")


@contextlib.contextmanager
def lane(view=None, *, windows=3):
    """A pump with one open lane of windows of 100 octets, and the client's socket."""
    with pair() as (client, sock), select.epoll() as epoll:
        epoll.register(sock.fileno(), select.EPOLLIN)
        pump = Pump(epoll, LIBRARY)
        view = memoryview(bytearray(os.urandom(100 * windows + 99))) if view is None else view
        assert pump.open(sock.fileno(), view, 0, 100, 65535, 2, 5.0)
        yield pump, client, sock.fileno(), view


def test_a_lane_sends_only_what_was_allowed_and_only_for_the_ack_that_is_awaited():
    with lane() as (pump, client, fd, view):
        for number, awaited in enumerate((65535, 1, 3)):  # steps of two, over the end of 16 bits
            client.send(b"\0\4" + awaited.to_bytes(2, "big"))
            assert pump.run(0.0, 6.0 + number) == []
            assert client.recv(2000) == view[100 * number : 100 * number + 100]
            assert pump.peek(fd) == ((awaited + 2) & 0xFFFF, 6.0 + number)
        client.send(b"\0\4\0\5")
        ((descriptor, report),) = pump.run(0.0, 9.0)
        assert (descriptor, report.kind, report.data, report.awaited) == (fd, WAS_READ, b"\0\4\0\5", 5)
        client.send(b"\0\4\0\7")
        assert pump.run(0.0, 9.0) == [(fd, None)]  # it is closed, and nothing was read
        with pytest.raises(BlockingIOError):
            client.recv(2000)


@pytest.mark.parametrize(
    "data", [b"", b"\0\4\xff", b"\0\4\xff\xff\0", b"\0\4\xff\xfe", b"\0\4\xfe\xff", b"\0\3\xff\xff", bytes(9)]
)
def test_anything_else_comes_up_and_the_lane_can_go_on(data):
    with lane() as (pump, client, fd, view):
        client.send(data)
        ((_, report),) = pump.run(0.0, 6.0)
        assert (report.kind, report.data, report.number) == (WAS_READ, data[:8], len(data[:8]))
        assert (report.awaited, report.sent_at) == (65535, 5.0)
        pump.resume(fd)
        client.send(b"\0\4\xff\xff")
        assert pump.run(0.0, 6.0) == []
        assert client.recv(2000) == view[:100]


def test_errors_of_the_socket_come_up():
    with lane() as (pump, client, _fd, _view):
        client.send(b"\0\4\xff\xff")
        client.close()
        assert pump.run(0.0, 6.0) == []  # what it sent now finds a closed port
        ((_, report),) = pump.run(0.0, 7.0)
        assert report.kind == READ_FAILED
        assert os.strerror(report.number) == "Connection refused"
        assert report.sent_at == 6.0
    too_long = memoryview(bytearray(70_000))
    with pair() as (client, sock), select.epoll() as epoll:
        epoll.register(sock.fileno(), select.EPOLLIN)
        pump = Pump(epoll, LIBRARY)
        assert pump.open(sock.fileno(), too_long, 0, 66_000, 1, 1, 5.0)
        client.send(b"\0\4\0\1")
        ((_, report),) = pump.run(0.0, 6.0)
        assert report.kind == NOT_SENT
        assert report.awaited == 2  # as if it had left: `again` sends it anew


@pytest.mark.parametrize(
    ("start", "size", "step", "opens"),
    [(0, 100, 1, True), (299, 100, 1, True), (300, 100, 1, False), (10**9, 100, 1, False), (0, 400, 1, False)],
)
def test_a_lane_never_leaves_its_buffer(start, size, step, opens):
    with pair() as (_, sock), select.epoll() as epoll:
        epoll.register(sock.fileno(), select.EPOLLIN)
        pump = Pump(epoll, LIBRARY)
        assert pump.open(sock.fileno(), memoryview(bytearray(399)), start, size, 1, step, 0.0) is opens


@pytest.mark.parametrize(("fd", "start", "size", "step"), [(-1, 0, 1, 1), (3, -1, 1, 1), (3, 0, 0, 1), (3, 0, 1, 0),
                                                           (3, 0, 1, 65536), (3, 0, 1 << 32, 1)])  # fmt: skip
def test_a_lane_that_is_none(fd, start, size, step):
    with select.epoll() as epoll, pytest.raises(ValueError, match="no lane"):
        Pump(epoll, LIBRARY).open(fd, memoryview(bytearray(399)), start, size, 1, step, 0.0)


def test_more_events_than_a_turn_holds_and_descriptors_beyond_the_table():
    with contextlib.ExitStack() as stack:
        epoll = stack.enter_context(select.epoll())
        pump = Pump(epoll, LIBRARY)
        view = memoryview(bytearray(os.urandom(200)))
        pairs = [stack.enter_context(pair()) for _ in range(150)]
        for client, sock in pairs:
            epoll.register(sock.fileno(), select.EPOLLIN)
            assert pump.open(sock.fileno(), view, 0, 100, 1, 1, 0.0)
            client.send(b"\0\4\0\2")
        assert max(sock.fileno() for _, sock in pairs) > 256
        seen, turns = set(), 0
        while len(seen) < len(pairs):
            events = pump.run(0.0, 1.0)
            assert 0 < len(events) <= BATCH
            seen |= {fd for fd, report in events if report is not None}
            for fd, _ in events:
                epoll.modify(fd, 0)
            turns += 1
        assert turns == 3


def test_without_it_pure_python_serves(tmp_path):
    (tmp_path / "no library").write_bytes(b"no library")
    foreign = next(Path("/lib").glob("*/libc.so.6"), None) or "libc.so.6"
    with select.epoll() as epoll:
        for path in (tmp_path / "missing", tmp_path / "no library", foreign):
            form, why = make_waiting("auto", epoll, str(path))
            assert isinstance(form, Turns)
            assert why
            with pytest.raises(PumpMissingError):
                make_waiting("native", epoll, str(path))
        assert make_waiting("python", epoll, LIBRARY)[0].name == "python"
        assert make_waiting("auto", epoll, LIBRARY)[0].name == "native"


async def test_what_serves_is_told(make_farm, pump, caplog):
    with caplog.at_level("INFO", logger="netboot.tftp_process"):
        farm = await make_farm()
    assert farm.process.pump == pump
    assert f"TFTP port {farm.port}, pump: {pump}" in caplog.text


def test_it_is_made_where_a_compiler_is_and_only_then(tmp_path, monkeypatch):
    made = build.build(tmp_path / "pump.so", ["-Werror"])
    with select.epoll() as epoll:
        assert make_waiting("native", epoll, str(made))[0].name == "native"
    before = made.read_bytes()
    with pytest.raises(build.CompileError, match="failed"):
        build.build(made, ["-std=none"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.CompileError, match="no C compiler"):
        build.build(made)
    monkeypatch.setenv("BOARDHAND_PUMP", "0")
    with pytest.raises(build.CompileError, match="BOARDHAND_PUMP=0"):
        build.build(made)
    assert made.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["pump.so"]


def test_address_and_undefined_behaviour_sanitizers_find_nothing(tmp_path):
    """The tests above once more with a pump that watches itself; Python's memory is watched too."""
    library = build.build(tmp_path / "pump.so", ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
    preload = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:cov", __file__,
         "-k", "replies or whole_file or lane or comes_up or come_up or more_events or behind"],
        env={**os.environ, "LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc",
             "BOARDHAND_TEST_PUMP": str(library), "BOARDHAND_TEST_EXAMPLES": "15"},
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "passed" in result.stdout
