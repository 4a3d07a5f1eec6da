"""A whole farm at once, and what accepting may run into."""

import asyncio
import errno
import os
import socket
import time

import pytest

from netboot import http_accept
from netboot.http_accept import Acceptor
from netboot.http_server import HttpBootServer
from netboot.tftp_process import SendFile

FARM = 256
DATA = os.urandom(400_000)


class Echo(asyncio.Protocol):
    """Says one octet and ends."""

    def connection_made(self, transport):
        transport.write(b"x")
        transport.close()


@pytest.fixture
def listener():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    sock.listen(16)
    yield sock
    sock.close()


async def said(listener):
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    async with asyncio.timeout(60):
        data = await reader.read()
    writer.close()
    return data


async def test_without_a_descriptor_it_waits_and_goes_on(listener, monkeypatch, caplog):
    monkeypatch.setattr(http_accept, "OUT_OF_ROOM_S", 0.05)
    loop = asyncio.get_running_loop()
    accept, troubles = loop.sock_accept, [errno.EMFILE, errno.ECONNABORTED, errno.ENOBUFS]

    async def troubled(sock):
        if troubles:
            raise OSError(troubles.pop(0), "trouble")
        return await accept(sock)

    monkeypatch.setattr(loop, "sock_accept", troubled)
    acceptor = Acceptor(listener, Echo)
    assert await said(listener) == b"x"
    assert troubles == []
    assert caplog.text.count("can let nobody in") == 2
    await acceptor.stop()
    assert listener.fileno() == -1


async def test_clients_that_left_while_they_waited_hold_up_nobody(listener):
    for _ in range(8):
        gone = socket.create_connection(listener.getsockname())
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, and no orderly end
        gone.close()
    acceptor = Acceptor(listener, Echo)
    assert [await said(listener) for _ in range(3)] == [b"x"] * 3
    await acceptor.stop()


async def test_a_whole_farm_at_once_while_some_take_nothing(tmp_path):
    path = tmp_path / "kernel"
    path.write_bytes(DATA)
    done = []
    server = HttpBootServer(
        "127.0.0.1",
        0,
        answer=lambda _: asyncio.sleep(0, SendFile(path)),
        on_done=done.append,
        on_refusal=done.append,
    )
    port = await server.start()
    worst = 0.0

    async def tick():
        nonlocal worst
        while True:
            # Of this thread's own time, in which others on the machine have no part.
            begun = time.thread_time()
            await asyncio.sleep(0.002)
            worst = max(worst, time.thread_time() - begun)

    async def board(number):
        where = (f"127.78.{number >> 8}.{number & 255}", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=where, limit=1 << 20)
        writer.write(b"GET /kernel HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        return body == DATA

    silent = []
    for number in range(16):
        sock = socket.create_connection(("127.0.0.1", port), source_address=(f"127.79.0.{number}", 0))
        sock.sendall(b"GET /kernel HTTP/1.1\r\nHost: b\r\n\r\n")
        silent.append(sock)
    ticking = asyncio.create_task(tick())
    async with asyncio.timeout(60):
        assert await asyncio.gather(*(board(number) for number in range(FARM))) == [True] * FARM
    ticking.cancel()
    for sock in silent:
        sock.close()
    await server.stop()
    assert sum(one.size_bytes == len(DATA) for one in done) >= FARM
    assert worst < 0.5  # clients and test are in the same process; bench/http_boot.py measures the server alone
