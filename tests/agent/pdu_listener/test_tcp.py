import asyncio
import contextlib

import pytest

from agent.pdu_listener.settings import Endpoint
from agent.pdu_listener.tcp_server import TcpServer
from wire.phases import ErrorKind, Power, PowerAction


@pytest.mark.parametrize(
    ("line", "call"),
    [
        (b"pdu-a 3 on", ("pi", PowerAction.ON, None)),
        (b"pdu05.lab.example 03 off\r\n", ("pi", PowerAction.OFF, None)),
        (b"pdu-a 3 reboot", ("pi", PowerAction.CYCLE, 5.0)),
        (b"pdu-a 9 reboot 2\n", ("pdu-a:9", PowerAction.CYCLE, 2.0)),
    ],
)
async def test_pdudaemons_line_switches(listen, say, line, call):
    listener, desk = await listen()
    assert await say(listener, line) == b"ack\n"
    assert desk.calls == [call]


async def test_a_line_may_come_in_pieces_and_end_with_the_stream(listen, say):
    listener, desk = await listen()
    assert await say(listener, b"pdu-a", b" 3", b" on", eof=True) == b"ack\n"
    # Two words are no request, so silence after them is no end.
    assert await say(listener, b"pdu-a 3", b" off\n", pause_s=0.3) == b"ack\n"
    assert [call[1] for call in desk.calls] == [PowerAction.ON, PowerAction.OFF]


async def test_the_state(listen, say):
    listener, desk = await listen()
    assert await say(listener, b"pdu-a 3 state\n") == b"off\n"
    desk.errors["pi"] = ErrorKind.UNREACHABLE
    assert await say(listener, b"pdu-a 3 state\n") == b"unknown\n"


async def test_a_failure_says_nack_and_why(listen, say):
    listener, desk = await listen()
    desk.errors["pi"] = ErrorKind.NOT_VERIFIED
    assert await say(listener, b"pdu-a 3 on\n") == b"nack: pi: is broken; mend it\n"
    assert (await say(listener, b"nobody 3 on\n")).startswith(b"nack: no controller is named 'nobody'")


@pytest.mark.parametrize(
    "junk",
    [b"pdu-a 3 reboot abc\n", b"\n", b"\xff\x00\n", b"a" * 5000, b"GET / HTTP/1.1\r\n\r\n", b" " * 5000, b"pdu-a 3\n"],
)
async def test_junk_is_answered_nack_and_switches_nothing(listen, say, junk):
    listener, desk = await listen()
    answer = await say(listener, junk)
    assert answer.startswith(b"nack: ")
    assert answer.count(b"\n") == 1
    assert desk.calls == []
    assert await say(listener, b"pdu-a 3 state\n") == b"off\n"


async def test_slow_and_too_many_clients(until):
    async def carry_out(_asked, _who):
        raise AssertionError("nothing was asked")

    server = TcpServer(carry_out, most=2, line_timeout_s=3.0)
    endpoint = await server.start(Endpoint("127.0.0.1", 0))
    try:
        slow, slow_out = await asyncio.open_connection(*endpoint)
        silent, silent_out = await asyncio.open_connection(*endpoint)
        slow_out.write(b"pdu-a")
        third, third_out = await asyncio.open_connection(*endpoint)
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                assert await third.read() == b""
            for reader in (slow, silent):
                assert await reader.read() == b"nack: no whole line came within 3 s\n"
        for writer in (slow_out, silent_out, third_out):
            writer.close()
    finally:
        await server.stop()


async def test_a_client_that_leaves_does_not_stop_its_switch(listen, until):
    listener, desk = await listen()
    desk.go_on.clear()
    _, writer = await asyncio.open_connection(*listener.tcp)
    writer.write(b"pdu-a 3 on\n")
    await until(lambda: desk.begun == 1)
    writer.transport.abort()
    desk.go_on.set()
    await until(lambda: desk.power.get("pi") is Power.ON)
