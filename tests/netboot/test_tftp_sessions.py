"""Transfers that wait as rows: nothing is lost on the way there and back, little memory is taken."""

import asyncio
import contextlib
import gc
import resource
import socket
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.tftp_cache import PacketCache
from netboot.tftp_packet import READ, Negotiated, Request
from netboot.tftp_session import Asked, Session
from netboot.tftp_sessions import STATE, Sessions
from netboot.tftp_source import Source
from netboot.tftp_transfer import Transfer

DERIVED = {
    "size", "block_bytes", "total", "window", "rollover", "_modulus", "sent", "last", "awaited", "deadline",
    "outcome", "client_error", "_lane",
}  # fmt: skip
"""What a row has in another form, or what is as it was made in every transfer that waits."""
PEERS = [
    ("127.0.0.1", 69), ("10.77.255.3", 65535), ("fe80::1", 40000, 0, 3), ("2001:db8::ff:0", 1, 0xFFFFF, 0xFFFFFFFF),
    ("::", 2070, 0, 0),
]  # fmt: skip
FILE = bytes(range(256)) * 20_000
DATA, OACK = 3, 6


@contextlib.contextmanager
def sockets(count):
    """Sockets, closed afterwards if nobody did."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]


def begin(sessions, cache, sock, peer, *, number=1, window=1, block=16, options=(), timeout=None, rollover=0):
    session = Session.begin(
        asked=Asked(number, Request(READ, "f", "octet", options), peer, "127.0.0.1", 0.0),
        sock=sock,
        source=Source(cache, data=FILE),
        negotiated=Negotiated(block, window, timeout, options),
        now=0.5,
        rollover=rollover,
    )
    sessions.add(session)
    return session


def state(transfer):
    return {name: getattr(transfer, name) for name in Transfer.__slots__}


def test_rows_leave_nothing_out():
    assert DERIVED | set(STATE) == set(Transfer.__slots__)
    assert not DERIVED & set(STATE)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["ack", "ack", "part", "old", "timer", "timer", "timer"]), st.floats(0.0003, 2.0)),
        max_size=60,
    ),
    window=st.sampled_from([1, 2, 16, 64]),
    block=st.sampled_from([8, 1468]),
    peer=st.sampled_from(PEERS),
    number=st.integers(0, 2**64 - 1),
    options=st.sampled_from([(), (("tsize", "5120000"), ("blksize", "1468"))]),
    timeout=st.sampled_from([None, 1, 255]),
    rollover=st.booleans(),
)
def test_a_transfer_goes_on_as_if_it_had_never_been_a_row(
    steps, window, block, peer, number, options, timeout, rollover
):
    cache = PacketCache(1 << 20)
    sessions = Sessions(cache, None)
    with sockets(1) as (sock,):
        session = begin(sessions, cache, sock, peer, number=number, window=window, block=block, options=options,
                        timeout=timeout, rollover=int(rollover))  # fmt: skip
        session.transfer.start(0.5)
        now = 0.5
        for kind, later in steps:
            if session.waits:
                before, who = state(session.transfer), session
                sessions.park(session)
                assert (len(sessions), sessions.awake) == (1, {})
                session = sessions.of(peer)
                assert session is sessions.awake[session.sock.fileno()]
                for name in ("number", "request_hash", "peer", "started", "packets", "_at_once"):
                    assert getattr(session, name) == getattr(who, name)
                assert session.oack == (who.oack if before["base"] < 0 else b"")
                after = state(session.transfer)
                assert set(STATE) - {n for n in STATE if after[n] == pytest.approx(before[n], rel=1e-6)} == set()
                for name in DERIVED:
                    assert after[name] == before[name], name
                sessions.park(session)
                (fd,) = iter_fds(sessions)
                session = sessions.wake(fd)
                assert state(session.transfer) == after
            transfer = session.transfer
            now += later
            if kind == "timer":
                now = max(now, transfer.deadline)
                transfer.on_timer(now)
            else:
                block_number = {
                    "ack": transfer.sent,
                    "part": (transfer.base + transfer.sent) // 2,
                    "old": transfer.base,
                }
                wire = transfer.wire_number(max(0, block_number[kind]))
                transfer.on_packet(b"\0\4" + wire.to_bytes(2, "big"), now)
            if session.ended:
                break
        sessions.remove(session)
        session.close()
        assert len(sessions) == 0
        assert sessions.of(peer) is None
        assert cache.used_bytes == 0


def iter_fds(sessions):
    """The descriptors of rows."""
    for number, page in enumerate(sessions._pages):
        for row, deadline in enumerate(page.deadlines):
            if deadline < float("inf"):
                yield number * len(page.deadlines) + row


def test_each_is_found_by_its_port_and_when_it_is_due():
    cache = PacketCache(1 << 20)
    sessions = Sessions(cache, None)
    with sockets(300) as socks:
        for number, sock in enumerate(socks):
            session = begin(
                sessions, cache, sock, ("127.0.0.1", 1000 + number), number=number, options=(("tsize", "1"),)
            )
            session.transfer.start(float(number))
            if number % 3:
                sessions.park(session)
        assert (len(sessions), len(sessions.awake)) == (300, 100)
        assert min(sessions.deadlines()) == pytest.approx(0.1)
        assert not list(sessions.due(0.05))
        early = []
        for session in sessions.due(10.5):
            early.append(session.number)
            assert len(sessions.awake) <= 101  # no more than the one that is looked at
            if session.number % 3:
                sessions.park(session)
        assert sorted(early) == list(range(11))
        assert sessions.wake(10**6) is None
        assert sessions.wake(-1) is None
        for number in range(300):
            session = sessions.of(("127.0.0.1", 1000 + number))
            assert session.number == number
            assert session.oack == b"\0\6tsize\x001\0"
            sessions.remove(session)
            session.close()
            assert sessions.of(("127.0.0.1", 1000 + number)) is None
        assert len(sessions) == 0


def test_a_row_takes_less_than_200_octets():
    cache = PacketCache(1 << 20)
    sessions = Sessions(cache, None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    packets = cache.open_bytes(FILE, 1468)
    try:
        with sockets(900) as socks:
            tracemalloc.start()
            for number, sock in enumerate(socks):
                session = begin(sessions, cache, sock, ("127.0.0.1", 1000 + number), options=(("tsize", "5120000"),))
                session._source.close()
                session.packets = packets
                session.transfer.start(0.0)
                sessions.park(session)
            del session
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            fds = list(iter_fds(sessions))
            assert len(fds) == 900
            for fd in fds:
                session = sessions.wake(fd)
                session.sock.close()
            assert taken / 900 < 200
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def next_block(client, number):
    """The octets of block `number`; copies of the one before it are passed over."""
    while True:
        opcode, got, *rest = client.receive()
        if opcode == OACK:
            continue
        assert (opcode, got - number) in {(DATA, 0), (DATA, -1)}
        if got == number:
            return rest[0]


async def test_clients_that_fall_silent_get_their_files_all_the_same(farm, raw_client):
    """Before the first ACK and in the middle, each until it was sent the same three times."""
    data = FILE[:60_000]
    farm.add_file("f", data)

    def boot():
        clients = [raw_client(farm.port) for _ in range(30)]
        received = [bytearray() for _ in clients]
        for client in clients:
            client.ask("f", "blksize", 512, "tsize", 0)
        for client in clients:
            assert [client.receive()[0] for _ in range(3)] == [OACK] * 3
        for client, octets in zip(clients, received, strict=True):
            for number in range(1, 60):
                client.ack(number - 1)
                octets.extend(next_block(client, number))
        for client in clients:
            copies = 0
            while copies < 3:
                copies += client.receive()[:2] == (DATA, 59)
        for client, octets in zip(clients, received, strict=True):
            for number in range(60, len(data) // 512 + 2):
                client.ack(number - 1)
                octets.extend(next_block(client, number))
            client.ack(len(data) // 512 + 1)
        return received

    assert all(octets == data for octets in await asyncio.to_thread(boot))
    async with asyncio.timeout(60):
        while len(farm.done) < 30:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert all(done.ok and done.resent >= 4 for done in farm.done)
