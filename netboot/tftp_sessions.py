"""All transfers of a worker by descriptor: those that run as objects, those that wait as rows of octets.

A transfer whose client is silent takes a kilobyte as objects. So it is packed into a row, with its file and its OACK,
which many have in common, as numbers, and made again when a packet comes or its time is due. The table has hardly a
gap, because a file is open once for all its transfers and nearly all descriptors are sockets.

Durations are kept to seven digits. What a row leaves out follows from the rest, or is found out again.
"""

import socket
import struct
from array import array
from collections.abc import Iterator
from operator import attrgetter
from typing import Generic, TypeVar

from netboot.tftp_cache import PacketCache, PacketFile
from netboot.tftp_packet import encode_ack
from netboot.tftp_pump import Pump
from netboot.tftp_session import Origin, Session
from netboot.tftp_socket import Peer, socket_again
from netboot.tftp_source import Source
from netboot.tftp_transfer import Transfer

STATE = {
    "base": "q", "sent_at": "d", "_progress_at": "d", "_restarted_at": "d", "resent": "Q",
    "_srtt_s": "f", "_rttvar_s": "f", "_rto_s": "f", "_base_rto_s": "f", "_min_rto_s": "f", "_max_rto_s": "f",
    "_gap_s": "f", "ignored": "Q", "_samples": "I", "_losses": "I", "_burst": "H", "_collapses": "B", "tries": "B",
    "_guarded": "B", "_clean": "B", "heard": "?", "_resent_window": "?", "_doubtful": "?",
}  # fmt: skip
"""What a row keeps of a transfer as it is, and in which form."""

_SESSION = "QdI16sHIIBIIHHH"
"""Number, start, request; peer: address, port, flow, scope, length; file, OACK; window, and the blocks from `base` to
`sent` and to `last`, which the window bounds."""
_ROW = struct.Struct("=" + _SESSION + "".join(STATE.values()))
_SESSION_FIELDS = len(_SESSION.replace("16s", "s"))
_state_of = attrgetter(*STATE)
_KEY_BYTES = 8
_NO_KEY = bytes(_KEY_BYTES)
_PAGE = 128  # rows; the table grows by so many, and no page is ever moved: that would leave holes in the memory
_NEVER = float("inf")
SILENT_TRIES = 2  # timers in a row that passed in vain
PROMPT_S = 0.01  # most clients answer the first packet within this time
MAX_UNHEARD = 32  # objects; beyond, what waits for its first answer is a row from the start
_Value = TypeVar("_Value")


class _Shared(Generic[_Value]):
    """Values that many rows have, each held once and known by a number."""

    def __init__(self) -> None:
        self._numbers: dict[_Value, int] = {}
        self._values: list[_Value | None] = []
        self._users = array("I")
        self._free: list[int] = []

    def take(self, value: _Value) -> int:
        """The number of `value`, for one row more."""
        number = self._numbers.get(value)
        if number is None:
            if not self._free:
                self._free.append(len(self._values))
                self._values.append(None)
                self._users.append(0)
            number = self._numbers[value] = self._free.pop()
            self._values[number] = value
        self._users[number] += 1
        return number

    def give_back(self, number: int) -> _Value:
        """The value, for a row that no longer is."""
        value = self._values[number]
        if value is None:
            raise LookupError(f"no row has the value {number}")
        self._users[number] -= 1
        if not self._users[number]:
            self._values[number] = None
            del self._numbers[value]
            self._free.append(number)
        return value


class _Page:
    """The rows of some descriptors that follow each other, and two columns that are searched as a whole."""

    __slots__ = ("deadlines", "keys", "rows")

    def __init__(self) -> None:
        self.rows = bytearray(_PAGE * _ROW.size)
        self.deadlines = array("d", [_NEVER]) * _PAGE  # of rows that are in use
        self.keys = bytearray(_PAGE * _KEY_BYTES)  # of all, awake or not

    def set_key(self, row: int, key: bytes) -> None:
        self.keys[row * _KEY_BYTES : (row + 1) * _KEY_BYTES] = key

    def with_key(self, key: bytes) -> Iterator[int]:
        """The rows with this key."""
        at = self.keys.find(key)
        while at >= 0:
            if not at % _KEY_BYTES:
                yield at // _KEY_BYTES
            at = self.keys.find(key, at + 1)


class Sessions:
    """`awake` are the objects; whoever is found by any other way is made one."""

    def __init__(self, cache: PacketCache, pump: Pump | None) -> None:
        self.awake: dict[int, Session] = {}
        self._cache = cache
        self._pump = pump
        self._pages: list[_Page] = []
        self._parked = 0
        self._files: _Shared[PacketFile] = _Shared()
        self._oacks: _Shared[bytes] = _Shared()

    def __len__(self) -> int:
        return len(self.awake) + self._parked

    def add(self, session: Session) -> None:
        """A new one; no other has its peer."""
        fd = session.sock.fileno()
        while fd >= len(self._pages) * _PAGE:
            self._pages.append(_Page())
        self.awake[fd] = session
        self._pages[fd // _PAGE].set_key(fd % _PAGE, _key(session.peer))

    def remove(self, session: Session) -> None:
        """One that has ended, before its socket is closed."""
        fd = session.sock.fileno()
        del self.awake[fd]
        self._pages[fd // _PAGE].set_key(fd % _PAGE, _NO_KEY)

    def of(self, peer: Peer) -> Session | None:
        """The session with this client's port."""
        key = _key(peer)
        for number, page in enumerate(self._pages):
            for row in page.with_key(key) if key in page.keys else ():
                fd = number * _PAGE + row
                session = self.awake.get(fd) or self.wake(fd)
                if session is not None and session.peer == peer:
                    return session
        return None

    def due(self, now: float) -> Iterator[Session]:
        """Those whose deadline has come, each made when it is its turn: all at once would take what rows save."""
        yield from [session for session in self.awake.values() if session.transfer.deadline <= now]
        for number, page in enumerate(self._pages if self._parked else []):
            if min(page.deadlines) <= now:
                for row, deadline in enumerate(page.deadlines):
                    session = self.wake(number * _PAGE + row) if deadline <= now else None
                    if session is not None:
                        yield session

    def deadlines(self) -> list[float]:
        """Among them is the next one."""
        found = [session.transfer.deadline for session in self.awake.values()]
        if self._parked:
            found += [min(page.deadlines) for page in self._pages]
        return found

    def settle(self, session: Session, now: float) -> None:
        """Make a row of one that waits, and will for a while as it seems: one lost packet is no reason."""
        transfer = session.transfer
        if transfer.heard:
            silent = transfer.tries >= SILENT_TRIES
        else:
            silent = now - session.started >= PROMPT_S or len(self.awake) > MAX_UNHEARD
        if silent and session.waits:
            self.park(session)

    def settle_unheard(self, now: float) -> None:
        """The same for all that never sent an ACK."""
        for session in [session for session in self.awake.values() if not session.transfer.heard]:
            self.settle(session, now)

    def park(self, session: Session) -> None:
        """Make a row of one that `waits`. The object must not be used any more."""
        transfer, peer = session.transfer, session.peer
        flow, scope = peer[2:] if len(peer) == 4 else (0, 0)
        fd = session.sock.fileno()
        page = self._pages[fd // _PAGE]
        family = socket.AF_INET6 if len(peer) == 4 else socket.AF_INET
        _ROW.pack_into(
            page.rows, fd % _PAGE * _ROW.size,
            session.number, session.started, session.request_hash,
            socket.inet_pton(family, peer[0]), peer[1], flow, scope, len(peer),
            self._files.take(session.packets), self._oacks.take(session.oack if transfer.base < 0 else b""),
            transfer.window, transfer.sent - transfer.base, transfer.last - transfer.base, *_state_of(transfer),
        )  # fmt: skip
        page.deadlines[fd % _PAGE] = transfer.deadline
        session.let_go()
        del self.awake[fd]
        self._parked += 1

    def wake(self, fd: int) -> Session | None:
        """The session of this descriptor as an object again; None: it has no row."""
        page, row = self._pages[fd // _PAGE] if 0 <= fd < len(self._pages) * _PAGE else None, fd % _PAGE
        if page is None or page.deadlines[row] == _NEVER:
            return None
        values = _ROW.unpack_from(page.rows, row * _ROW.size)
        (number, started, request_hash, address, port, flow, scope, length, file, oack, window, sent, last) = values[
            :_SESSION_FIELDS
        ]
        packets = self._files.give_back(file)
        transfer = Transfer(
            size=packets.size,
            block_bytes=packets.block_bytes,
            window=window,
            with_oack=False,
            now=started,
            rollover=packets.rollover,
        )
        for name, value in zip(STATE, values[_SESSION_FIELDS:], strict=True):
            setattr(transfer, name, value)
        transfer.deadline = page.deadlines[row]
        transfer.sent = transfer.base + sent
        transfer.last = transfer.base + last
        transfer.awaited = encode_ack(transfer.wire_number(transfer.last))
        peer: Peer
        if length == 4:
            peer = (socket.inet_ntop(socket.AF_INET6, address), port, flow, scope)
        else:
            peer = (socket.inet_ntop(socket.AF_INET, address[:4]), port)
        session = self.awake[fd] = Session(
            origin=Origin(number, request_hash, peer, started),
            sock=socket_again(fd, peer),
            source=Source(self._cache, packets=packets),
            packets=packets,
            oack=self._oacks.give_back(oack),
            transfer=transfer,
            pump=self._pump,
        )
        page.deadlines[row] = _NEVER
        self._parked -= 1
        return session


def _key(peer: Peer) -> bytes:
    return (hash(peer) & 0xFFFFFFFFFFFFFFFF).to_bytes(_KEY_BYTES, "little")
