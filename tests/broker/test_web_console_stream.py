"""A console's bytes on their way to a browser: the telnet filter, the bounded queue, addresses, and who may type."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.console.telnet import Own, TelnetServer, Typed, escaped, own
from broker.web.access import Person, Role
from broker.web.console_stream import (
    MAX_COMMAND_BYTES,
    MOST_AHEAD_BYTES,
    MOST_NOTES,
    MOST_WAITING_BYTES,
    Address,
    AgentStream,
    NoConsoleError,
    Outgoing,
    address_of,
)
from broker.web.lease_rules import may_not_type
from broker.web.open_consoles import MOST_CONSOLES, MOST_OF_ONE, Consoles, TooManyConsolesError
from wire.payloads import Lease

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


# --- telnet ------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=40) | st.dictionaries(st.text(max_size=4), st.integers(), max_size=2)), st.data())
def test_what_the_agent_sends_comes_out_whole_however_it_is_cut(parts, data):
    sent = b"".join(own(part) if isinstance(part, dict) else escaped(part) for part in parts)
    stream, found = AgentStream(), []
    while sent:
        cut = data.draw(st.integers(1, len(sent)))
        found += stream.feed(sent[:cut])
        sent = sent[cut:]
    assert [item for item in found if isinstance(item, dict)] == [part for part in parts if isinstance(part, dict)]
    assert b"".join(item for item in found if isinstance(item, bytes)) == b"".join(
        part for part in parts if isinstance(part, bytes)
    )


@given(st.lists(st.binary(max_size=40)))
def test_the_agents_telnet_takes_what_is_typed_as_it_was(parts):
    server, stream = TelnetServer(115200), AgentStream()
    typed, messages = b"", []
    stream.say({"take": True})
    for part in parts:
        stream.typed(part)
    for _ in range(3):
        for event in server.feed(stream.take()):
            if isinstance(event, Typed):
                typed += event.data
            elif isinstance(event, Own):
                messages.append(event.message)
        stream.feed(server.take())
    # Until both have agreed on binary, RFC 854 has its way with CR.
    assert typed.replace(b"\r\n", b"\r").replace(b"\r\0", b"\r") == b"".join(parts).replace(b"\r\n", b"\r").replace(
        b"\r\0", b"\r"
    )
    assert messages == [{"take": True}]
    assert server.is_ours


@given(st.binary(max_size=400))
def test_noise_breaks_nothing_and_is_not_kept(noise):
    stream = AgentStream()
    for _ in range(30):
        stream.feed(noise)
    assert len(stream._left) <= MAX_COMMAND_BYTES + len(noise)
    for body in (b"\xb0[1]", b"\xb0{", b"\x2c{}"):
        assert AgentStream().feed(b"\xff\xfa" + body + b"\xff\xf0") == []


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("telnet://10.0.0.2:7004", Address(host="10.0.0.2", port=7004)),
        ("telnet://[::1]:7004", Address(host="::1", port=7004)),
        ("unix:/var/lib/boardhand/consoles/pi.sock", Address(path="/var/lib/boardhand/consoles/pi.sock")),
    ],
)
def test_addresses(told, found):
    assert address_of("pi", told) == found


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (None, "has no console"),
        ("/dev/ttyUSB0", "is not served; set telnet_port in"),
        ("telnet://lab", "is not served"),
        ("telnet://lab:99999", "is not served"),
        ("telnet://[::1", "is not served"),
        ("http://lab:80", "is not served"),
        ("unix:/run/docker.sock", "is no console of an agent"),
        ("unix:/var/consoles/other.sock", "is no console of an agent"),
        ("unix:/a/../consoles/pi.sock", "is no console of an agent"),
    ],
)
def test_what_is_no_console_is_not_connected_to(told, words):
    with pytest.raises(NoConsoleError, match=words):
        address_of("pi", told)


# --- the queue ---------------------------------------------------------------------------------------------------


def told(item):
    return json.loads(item) if isinstance(item, str) else item


def test_nothing_live_comes_before_what_was_recorded():
    out = Outgoing()
    out.board_said(b"live")
    out.state({"you": False})
    out.state({"you": True})
    assert told(out.next()) == {"state": {"you": True}}, "only the last counts"
    assert out.next() is None
    out.begin(b"recorded", "so far")
    assert [told(out.next()) for _ in range(4)] == [b"recorded", {"note": "so far"}, b"live", None]


def test_who_shows_nothing_is_sent_no_more_and_what_does_not_fit_is_dropped_whole():
    out = Outgoing()
    out.begin(b"", "")
    out.seen(0)
    piece = b"x" * 65536
    for _ in range(20):
        out.board_said(piece)
    sent = 0
    # 16 fit; with the 17th all of that was dropped, and three came after.
    first = told(out.next())
    assert first["note"].startswith(f"{17 * 65536} bytes are not shown")
    while (item := out.next()) is not None:
        sent += len(item)
    assert sent == 3 * 65536
    out.seen(10**9)
    assert out.next() is None, "it cannot have seen what it was not sent"
    for _ in range(12):
        out.board_said(piece)
    while (item := out.next()) is not None:
        sent += len(item)
    assert sent == MOST_AHEAD_BYTES
    out.state({"you": False})
    assert isinstance(out.next(), str), "how things are is told all the same"
    out.seen(sent)
    assert out.next()


@given(st.lists(st.tuples(st.sampled_from(["say", "note", "take", "see"]), st.integers(0, 300_000)), max_size=60))
def test_every_byte_is_sent_or_counted_as_missed_and_little_waits(steps):
    out = Outgoing()
    out.begin(b"", "")
    said = sent = missed = 0

    def take():
        nonlocal sent, missed
        item = told(out.next())
        if isinstance(item, bytes):
            sent += len(item)
        elif item is not None and "are not shown" in item["note"]:
            missed += int(item["note"].split()[0])
        return item

    for what, count in steps:
        if what == "say":
            out.board_said(b"y" * count)
            said += count
        elif what == "note":
            out.note("so")
        elif what == "see":
            out.seen(min(count, sent))
        else:
            take()
        assert sum(len(item) for item in out._waiting if isinstance(item, bytes)) <= MOST_WAITING_BYTES
    out.seen(sent)
    while take() is not None:
        out.seen(sent)
    assert sent + missed == said


def test_remarks_without_end_are_cut_off():
    out = Outgoing()
    for n in range(MOST_NOTES * 3):
        out.note(str(n))
        out.refuse(str(n))
    assert len(out._waiting) == MOST_NOTES


# --- who may ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "holder", "words"),
    [
        (Role.READER, None, "alice is reader; typing is for users"),
        (Role.READER, "alice", "typing is for users"),
        (Role.USER, None, None),
        (Role.USER, "alice", None),
        (Role.USER, "bob", "held by bob until"),
        (Role.ADMIN, "bob", "held by bob until"),
        (Role.USER, "job-7", "held by job-7 until"),
    ],
)
def test_who_may_type(role, holder, words):
    lease = None if holder is None else Lease(holder=holder, token=1, expires=NOW + timedelta(minutes=1))
    refused = may_not_type("pi", Person("alice", role), lease, NOW)
    assert (refused is None) if words is None else words in refused
    if role is not Role.READER:
        assert may_not_type("pi", Person("alice", role), lease, NOW + timedelta(minutes=1)) is None, "it has run out"


def test_one_person_does_not_open_all_consoles():
    consoles, alice = Consoles(), Person("alice", Role.USER)
    opened = [consoles.opened(alice) for _ in range(MOST_OF_ONE)]
    for one in opened:
        one.__enter__()
    with pytest.raises(TooManyConsolesError, match="close one"), consoles.opened(alice):
        pass
    people = [Person(f"p{n}", Role.USER) for n in range(MOST_CONSOLES - MOST_OF_ONE)]
    others = [consoles.opened(person) for person in people]
    for one in others:
        one.__enter__()
    with pytest.raises(TooManyConsolesError, match="try later"), consoles.opened(Person("bob", Role.USER)):
        pass
    for one in opened:
        one.__exit__(None, None, None)
    assert consoles.count == len(people)
    for one in others:
        one.__exit__(None, None, None)
    assert consoles.count == 0
