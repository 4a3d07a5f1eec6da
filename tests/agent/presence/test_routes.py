"""The table of a neighbour's states, with messages as linux/neighbour.h lays them out."""

import socket
import struct

import pytest

from agent.presence.observations import LinkSeen, NeighbourSeen
from agent.presence.routes import RouteReader

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
IP = "10.9.0.2"
INCOMPLETE, REACHABLE, STALE, DELAY, PROBE, FAILED, NOARP, PERMANENT = (1 << n for n in range(8))
NEW, DEL, NEWLINK, DELLINK, DONE, ERROR = 28, 29, 16, 17, 3, 2
INTERRUPTED = 0x10


def message(kind: int, body: bytes, number: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    padded = value + bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + padded


def neighbour(kind: int, state: int, mac: str | None = MAC, family: int = socket.AF_INET, number: int = 0) -> bytes:
    body = struct.pack("=BBHiHBB", family, 0, 0, 2, state, 0, 0)
    if family == socket.AF_INET:
        body += attribute(1, socket.inet_aton(IP))
    if mac is not None:
        body += attribute(2, bytes.fromhex(mac.replace(":", "")))
    return message(kind, body, number)


def link(kind: int, name: str, *, up: bool, index: int = 2, number: int = 0) -> bytes:
    flags = 0x1 | (0x10000 if up else 0)
    return message(kind, struct.pack("=BBHiII", 0, 0, 1, index, flags, 0) + attribute(3, name.encode() + b"\0"), number)


def ready() -> RouteReader:
    reader = RouteReader()
    for number in (1, 2, 3):
        assert reader.take_request() is not None
        assert reader.take_request() is None
        if number == 1:
            reader.feed(link(NEWLINK, "lan0", up=True, number=1))
        assert not reader.knows_all
        reader.feed(message(DONE, bytes(4), number))
    assert reader.knows_all
    assert reader.take_request() is None
    return reader


def seen(answers: bool | None, mac: str = MAC, address: str = IP) -> list[NeighbourSeen]:
    return [NeighbourSeen(mac, address, "lan0", answers=answers)]


@pytest.mark.parametrize("state", [INCOMPLETE, DELAY, PROBE, FAILED, NOARP, PERMANENT])
def test_a_new_entry_that_says_nothing(state: int) -> None:
    assert ready().feed(neighbour(NEW, state)) == []


@pytest.mark.parametrize("state", [REACHABLE, STALE])
def test_a_new_entry_that_its_board_has_made(state: int) -> None:
    reader = ready()
    assert reader.feed(neighbour(NEW, state)) == seen(answers=True)
    for quiet in (STALE, DELAY, PROBE, INCOMPLETE):
        assert reader.feed(neighbour(NEW, quiet)) == []
    assert reader.feed(neighbour(NEW, FAILED, None)) == seen(answers=False)
    assert reader.feed(neighbour(NEW, FAILED, None)) == []
    assert reader.feed(neighbour(NEW, REACHABLE)) == seen(answers=True)
    assert reader.feed(neighbour(DEL, STALE)) == seen(answers=None)
    assert reader.feed(neighbour(DEL, STALE)) == []


def test_an_old_entry_that_was_there_before_us_is_no_sign() -> None:
    reader = RouteReader()
    reader.feed(message(DONE, bytes(4), 1))
    assert reader.feed(neighbour(NEW, STALE, number=2)) == []
    assert reader.feed(neighbour(NEW, REACHABLE, number=2)) == [NeighbourSeen(MAC, IP, "#2", answers=True)]


def test_an_address_that_goes_to_another_board() -> None:
    reader = ready()
    reader.feed(neighbour(NEW, REACHABLE))
    assert reader.feed(neighbour(NEW, REACHABLE, OTHER)) == [*seen(answers=None), *seen(answers=True, mac=OTHER)]


def test_a_bridge_that_sees_frames() -> None:
    reader = ready()
    assert reader.feed(neighbour(NEW, REACHABLE, family=7)) == seen(answers=True, address="")
    assert reader.feed(neighbour(NEW, PERMANENT, family=7)) == []
    assert reader.feed(neighbour(DEL, REACHABLE, family=7)) == seen(answers=None, address="")


def test_a_link_that_is_renamed_and_one_that_goes() -> None:
    reader = ready()
    assert reader.feed(link(NEWLINK, "lan0", up=True)) == []
    assert reader.feed(link(NEWLINK, "enx1", up=True)) == [LinkSeen("lan0", up=False), LinkSeen("enx1", up=True)]
    assert reader.feed(link(DELLINK, "enx1", up=True)) == [LinkSeen("enx1", up=False)]


def test_what_is_not_told_any_more_after_an_overflow_is_gone() -> None:
    reader = ready()
    reader.feed(neighbour(NEW, REACHABLE) + link(NEWLINK, "lan1", up=True, index=3))
    reader.begin()
    reader.feed(message(DONE, bytes(4), 1))  # of a dump from before
    reader.feed(link(NEWLINK, "lan1", up=True, index=3, number=4) + message(DONE, bytes(4), 4))
    reader.feed(message(DONE, bytes(4), 5))
    found = reader.feed(message(DONE, bytes(4), 6))
    assert found == [LinkSeen("lan0", up=False), NeighbourSeen(MAC, IP, "#2", answers=None)]
    assert reader.knows_all


def test_a_dump_that_was_cut_or_came_too_early_is_asked_for_again() -> None:
    reader = RouteReader()
    first = reader.take_request()
    reader.feed(message(DONE, bytes(4), 1, INTERRUPTED))
    again = reader.take_request()
    assert first is not None
    assert again is not None
    assert again[4:6] == first[4:6]
    busy = struct.pack("=i", -16) + again
    reader.feed(message(ERROR, busy, 2))
    third = reader.take_request()
    assert third is not None
    assert third[4:6] == first[4:6]
    # No bridges in this kernel: the others are known all the same.
    for number in (3, 4):
        reader.feed(message(DONE, bytes(4), number))
    reader.feed(message(ERROR, struct.pack("=i", -95) + again, 5))
    assert reader.knows_all
