"""Telnet and RFC 2217 from the server's side, byte by byte and whole."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.console import telnet
from agent.console.telnet import Own, Pulse, Setting, TelnetServer, Typed, Wanted, escaped, own
from cli.console_stream import ConsoleStream, Keys, Order

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BINARY, ECHO, SGA, COM = 0, 1, 3, 44


def com(command, value=b""):
    return bytes([IAC, SB, COM, command]) + escaped(value) + bytes([IAC, SE])


def typed(events):
    return b"".join(event.data for event in events if isinstance(event, Typed))


def others(events):
    return [event for event in events if not isinstance(event, Typed)]


@pytest.fixture
def server():
    """A server whose greeting is sent."""
    found = TelnetServer(115200)
    assert found.take() == bytes([IAC, WILL, 1, IAC, WILL, 3, IAC, WILL, 0, IAC, DO, 3, IAC, DO, 0])
    return found


TABLE = [
    ("plain text", b"ls\r", b"ls\r", [], b""),
    ("enter of a telnet that sends no binary", b"ls\r\0", b"ls\r", [], b""),
    ("enter as RFC 854 has it", b"ls\r\n", b"ls\r", [], b""),
    ("an escaped 255", bytes([IAC, IAC]), b"\xff", [], b""),
    ("what we have offered needs no answer", bytes([IAC, DO, ECHO]), b"", [], b""),
    ("we will not be what we cannot", bytes([IAC, DO, 31]), b"", [], bytes([IAC, WONT, 31])),
    ("nor have the client", bytes([IAC, WILL, 24]), b"", [], bytes([IAC, DONT, 24])),
    ("RFC 2217 by the client", bytes([IAC, WILL, COM]), b"", [], bytes([IAC, DO, COM]) + com(107, b"\xb0")),
    ("RFC 2217 by us", bytes([IAC, DO, COM]), b"", [], bytes([IAC, WILL, COM])),
    ("a refusal is taken", bytes([IAC, DONT, ECHO]), b"", [], bytes([IAC, WONT, ECHO])),
    ("speed", com(1, struct.pack("!I", 9600)), b"", [Wanted(Setting.SPEED, 9600)], com(101, struct.pack("!I", 9600))),
    ("speed with a 255 in it", com(1, struct.pack("!I", 0xFF00)), b"", [Wanted(Setting.SPEED, 0xFF00)],
     com(101, struct.pack("!I", 0xFF00))),
    ("speed asked for", com(1, struct.pack("!I", 0)), b"", [], com(101, struct.pack("!I", 115200))),
    ("data bits", com(2, b"\x07"), b"", [], com(102, b"\x07")),
    ("data bits asked for", com(2, b"\0"), b"", [], com(102, b"\x08")),
    ("parity", com(3, b"\x03"), b"", [], com(103, b"\x03")),
    ("stop bits", com(4, b"\x02"), b"", [], com(104, b"\x02")),
    ("no flow control", com(5, b"\x01"), b"", [], com(105, b"\x01")),
    ("flow control asked for", com(5, b"\x00"), b"", [], com(105, b"\x01")),
    ("break begins", com(5, b"\x05"), b"", [Wanted(Setting.BREAK, 1)], com(105, b"\x05")),
    ("break ends", com(5, b"\x06"), b"", [Wanted(Setting.BREAK, 0)], com(105, b"\x06")),
    ("DTR off", com(5, b"\x09"), b"", [Wanted(Setting.DTR, 0)], com(105, b"\x09")),
    ("RTS on", com(5, b"\x0b"), b"", [Wanted(Setting.RTS, 1)], com(105, b"\x0b")),
    ("modem state asked for", com(7, b""), b"", [], com(107, b"\xb0")),
    ("line state mask", com(10, b"\x10"), b"", [], com(110, b"\x10")),
    ("purge", com(12, b"\x03"), b"", [], com(112, b"\x03")),
    ("signature asked for", com(0), b"", [], com(100, b"boardhand")),
    ("the client's signature", com(0, b"pyserial"), b"", [], b""),
    ("a command of another RFC", com(99, b"x"), b"", [], b""),
    ("speed of the wrong length", com(1, b"\1"), b"", [], b""),
    ("telnet's break", b"a" + bytes([IAC, 243]) + b"b", b"ab", [Pulse()], b""),
    ("nothing to do", bytes([IAC, 241]), b"", [], b""),
    ("another's subnegotiation", bytes([IAC, SB, 24, 0]) + b"xterm" + bytes([IAC, SE]) + b"x", b"x", [], b""),
    ("a word of ours that is none", bytes([IAC, SB, 176]) + b"{nonsense" + bytes([IAC, SE]), b"", [], b""),
    ("a word of ours", own({"take": True}), b"", [Own({"take": True})], b""),
]  # fmt: skip


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(
    ("sent", "data", "events", "answer"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_what_a_client_sends(server, sent, data, events, answer, whole):
    found = server.feed(sent) if whole else [event for byte in sent for event in server.feed(bytes([byte]))]
    assert typed(found) == data
    assert others(found) == events
    assert server.take() == answer


def test_two_sides_cannot_loop(server):
    for _ in range(3):
        server.feed(bytes([IAC, DO, COM]))
    assert server.take() == bytes([IAC, WILL, COM])
    server.feed(bytes([IAC, WILL, BINARY, IAC, WILL, SGA]))
    assert server.take() == b"", "they answer what we asked for"


def test_binary_keeps_what_nvt_eats(server):
    server.feed(bytes([IAC, WILL, BINARY]))
    assert typed(server.feed(b"a\r\nb\r\0c")) == b"a\r\nb\r\0c"


@given(st.binary(max_size=600))
def test_noise_neither_raises_nor_grows(noise):
    server = TelnetServer(9600)
    for byte in noise:
        server.feed(bytes([byte]))
    assert len(server._sub) <= telnet.MAX_SUBNEGOTIATION + 2


def test_a_subnegotiation_without_end_keeps_no_memory(server):
    server.feed(bytes([IAC, SB, COM]) + b"\x01" * 100_000)
    assert len(server._sub) <= telnet.MAX_SUBNEGOTIATION + 2
    assert server.feed(bytes([IAC, SE]) + b"on") == [Typed(b"on")]


@given(st.lists(st.one_of(st.binary(max_size=50), st.dictionaries(st.text(max_size=5), st.integers())), max_size=8),
       st.lists(st.integers(0, 2000), max_size=8))  # fmt: skip
def test_our_client_reads_what_our_server_writes(items, cuts):
    stream, expected, messages = bytearray(), b"", []
    for item in items:
        if isinstance(item, bytes):
            stream += escaped(item)
            expected += item
        else:
            stream += own(item)
            messages.append(item)
    places = sorted({cut % (len(stream) + 1) for cut in cuts})
    client, found = ConsoleStream(), b""
    for a, b in zip([0, *places], [*places, len(stream)], strict=True):
        found += client.feed(bytes(stream[a:b]))
    assert found == expected
    assert client.messages == messages


def test_our_client_and_our_server_agree():
    server, client = TelnetServer(115200), ConsoleStream()
    client.typed(b"\xffhi\r\n")
    client.say({"name": "alice"})
    heard = []
    for _ in range(4):
        client.feed(server.take())
        heard += server.feed(client.take())
    assert server.is_ours
    assert not server.is_remote_port
    assert typed(heard).startswith(b"\xffhi\r")
    assert others(heard) == [Own({"name": "alice"})]
    assert server.take() == b""
    assert client.take() == b""


def test_a_message_is_ascii():
    assert own({"name": "ä\xff"}).isascii() is False
    assert b"\xff\xff" not in own({"name": "ä\xff"})
    assert json.loads(own({"name": "ä"})[3:-2]) == {"name": "ä"}


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (b"ls\r", [b"ls\r"]),
        (b"a\x1d.b", [b"a", Order.LEAVE, b"b"]),
        (b"\x1d\x1d", [b"\x1d"]),
        (b"\x1dr\x1db\x1dw\x1dg\x1ds", [Order.CYCLE, Order.BREAK, Order.TAKE, Order.GIVE, Order.STATE]),
        (b"\x1dz", [Order.HELP]),
    ],
)
def test_keys(keys, found):
    assert Keys().feed(keys) == found
    one_by_one, single = Keys(), []
    for byte in keys:
        single += one_by_one.feed(bytes([byte]))
    assert [x for x in single if isinstance(x, Order)] == [x for x in found if isinstance(x, Order)]
