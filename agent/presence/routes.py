"""Links and neighbours as the kernel tells them over rtnetlink (linux/include/uapi/linux/rtnetlink.h): datagrams in,
observations and requests out. No I/O; pyroute2 reads the messages.

| neighbour's state (linux/neighbour.h) | entry is new | entry was there |
|---|---|---|
| REACHABLE | answers | answers |
| STALE | answers: only its own words can have made the entry | nothing: nobody has asked lately |
| FAILED | nothing | answers no more |
| others | nothing | nothing |
| (deleted) | | forgotten |
"""

import errno
import struct
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

from pyroute2.netlink.rtnl.marshal import MarshalRtnl  # type: ignore[import-untyped]  # has no stubs

from agent.presence.observations import LinkSeen, NeighbourSeen, Observation

GROUPS = 1 << 0 | 1 << 2
"""RTMGRP_LINK and RTMGRP_NEIGH."""
MAX_DATAGRAM_BYTES = 1 << 17
"""Dumps come in pieces of up to 32 KiB; a link with many virtual functions is one large message."""

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x01, 0x300, 0x10
AF_BRIDGE = 7
IFF_LOWER_UP = 1 << 16
REACHABLE, STALE, FAILED = 0x02, 0x04, 0x20
MAC_CHARACTERS = 17
MOST_NEIGHBOURS = 16_384
"""Addresses that are remembered; the kernel's own limits for IPv4 and IPv6 are 1024 each by default."""


class _Dump(Enum):
    LINKS = auto()
    NEIGHBOURS = auto()
    BRIDGES = auto()


_REQUESTS = {
    _Dump.LINKS: (RTM_GETLINK, struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0)),  # ifinfomsg
    _Dump.NEIGHBOURS: (RTM_GETNEIGH, struct.pack("=BBHiHBB", 0, 0, 0, 0, 0, 0, 0)),  # ndmsg
    _Dump.BRIDGES: (RTM_GETNEIGH, struct.pack("=BBHiHBB", AF_BRIDGE, 0, 0, 0, 0, 0, 0)),
}


def _request(dump: _Dump, number: int) -> bytes:
    kind, body = _REQUESTS[dump]
    return struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, number, 0) + body


class RouteReader:
    """Reads one rtnetlink socket. `request` is what to send next, None while an answer is under way or all is known;
    `knows_all` once everything was dumped. After an overflow `begin` asks for everything anew."""

    def __init__(self) -> None:
        self._marshal = MarshalRtnl()
        self._links: dict[int, LinkSeen] = {}
        self._neighbours: dict[tuple[int, str], str] = {}
        self._number = 0
        self.begin()

    def begin(self) -> None:
        """Ask for everything from the start; what is then not told any more is gone."""
        self._to_dump = list(_Dump)
        self._told_links: set[int] = set()
        self._told_neighbours: set[tuple[int, str]] = set()
        self.request: bytes | None = None
        self.knows_all = False
        self._ask()

    def feed(self, datagram: bytes) -> list[Observation]:
        """What a datagram of the kernel's says."""
        found: list[Observation] = []
        for message in self._marshal.parse(datagram):
            header = message["header"]
            if header["type"] in {NLMSG_DONE, NLMSG_ERROR}:
                if header["sequence_number"] == self._number:
                    code = int(message["error"]) if header["type"] == NLMSG_ERROR else 0
                    found += self._dumped(header["flags"], code)
            elif header["type"] in {RTM_NEWLINK, RTM_DELLINK}:
                found += self._link(message, gone=header["type"] == RTM_DELLINK)
            elif header["type"] in {RTM_NEWNEIGH, RTM_DELNEIGH}:
                # In a dump an old entry is listed, which nobody has made just now.
                listed = header["sequence_number"] == self._number and not self.knows_all
                found += self._neighbour(message, gone=header["type"] == RTM_DELNEIGH, listed=listed)
        return found

    def take_request(self) -> bytes | None:
        """What is to be sent now, once."""
        request, self.request = self.request, None
        return request

    def _ask(self) -> None:
        self._number += 1
        self.request = _request(self._to_dump[0], self._number)

    def _dumped(self, flags: int, code: int) -> list[Observation]:
        """A dump came to its end. An error is one too: a kernel without bridges has none to tell. But a dump that was
        cut by a change is done again, as one that came while another was under way, from before an overflow."""
        if not flags & NLM_F_DUMP_INTR and abs(code) != errno.EBUSY:
            self._to_dump.pop(0)
        if self._to_dump:
            self._ask()
            return []
        self.knows_all = True
        return list(self._not_told())

    def _not_told(self) -> Iterator[Observation]:
        for index in set(self._links) - self._told_links:
            gone = self._links.pop(index)
            yield LinkSeen(gone.interface, up=False, others=gone.others)
        for key in set(self._neighbours) - self._told_neighbours:
            yield NeighbourSeen(self._neighbours.pop(key), key[1], self._name(key[0]), answers=None)

    def _name(self, index: int) -> str:
        link = self._links.get(index)
        return f"#{index}" if link is None else link.interface

    def _link(self, message: Any, *, gone: bool) -> Iterator[Observation]:
        if message["family"] == AF_BRIDGE:
            return  # a port of a bridge, which says the same of itself without
        index, name = int(message["index"]), str(message.get_attr("IFLA_IFNAME") or "")
        properties = message.get_attr("IFLA_PROP_LIST")
        others = () if properties is None else tuple(properties.get_attrs("IFLA_ALT_IFNAME"))
        seen = LinkSeen(name, up=not gone and bool(message["flags"] & IFF_LOWER_UP), others=others)
        before = self._links.get(index)
        if before is not None and before.interface != name and before.up:
            yield LinkSeen(before.interface, up=False, others=before.others)
        if gone:
            self._links.pop(index, None)
        else:
            self._links[index] = seen
            if not self.knows_all:
                self._told_links.add(index)
        if before != seen:
            yield seen

    def _neighbour(self, message: Any, *, gone: bool, listed: bool) -> Iterator[Observation]:
        index, state = int(message["ifindex"]), int(message["state"])
        mac, address = str(message.get_attr("NDA_LLADDR") or ""), str(message.get_attr("NDA_DST") or "")
        if message["family"] == AF_BRIDGE:
            if len(mac) == MAC_CHARACTERS and (gone or state == REACHABLE):
                yield NeighbourSeen(mac, "", self._name(index), answers=None if gone else True)
            return
        key = (index, address)
        if gone:
            if (known := self._neighbours.pop(key, None)) is not None:
                yield NeighbourSeen(known, address, self._name(index), answers=None)
            return
        if not self.knows_all:
            self._told_neighbours.add(key)
        before = self._neighbours.get(key)
        if state == FAILED and before is not None:
            del self._neighbours[key]
            yield NeighbourSeen(before, address, self._name(index), answers=False)
        elif state in {REACHABLE, STALE} and len(mac) == MAC_CHARACTERS:
            is_new = before != mac
            if not is_new or len(self._neighbours) < MOST_NEIGHBOURS:
                self._neighbours[key] = mac
            if before is not None and is_new:
                yield NeighbourSeen(before, address, self._name(index), answers=None)
            if state == REACHABLE or (is_new and not listed):
                yield NeighbourSeen(mac, address, self._name(index), answers=True)
