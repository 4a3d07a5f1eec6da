"""What the worker waits with: `Turns`, the pure form, or `Pump`, which leaves packets in stride to compiled code.

The pump (native/pump.c) sends what follows while each packet from a client is exactly the ACK that is awaited; all else
comes up to the same state machine that decides everything in the pure form. What it may send stands in a table with
one lane for each descriptor, which both sides read and write, never at the same time.

ctypes is imported only where there is a pump, because it costs the worker memory.
"""

import select
import struct
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from ctypes import CDLL

BATCH = 64  # events of one turn
_VERSION = 1
_LANE = struct.Struct("=QdIIHHI")  # next, sent_at, bytes, left, awaited, step, open
_LEFT_BY = struct.Struct("=8xd8xH")  # sent_at, awaited
_REPORT = struct.Struct("=iiiHxxd8s")
_WORD = struct.Struct("=I")
_OPEN_AT = _LANE.size - _WORD.size
_EDGE = select.EPOLLIN | select.EPOLLET
_FIRST_LANES = 256  # descriptors; the table grows with the highest

NOT_READ, READ, READ_FAILED, NOT_SENT = range(4)


class PumpMissingError(Exception):
    """There is no compiled pump, or one that does not fit; the message says why."""


class Report(NamedTuple):
    """What a lane ended with. `kind` READ: `data` was received, or is the first eight octets of it; READ_FAILED and
    NOT_SENT: errno `number`. `awaited` and `sent_at` are as the lane left them."""

    fd: int
    kind: int
    number: int
    awaited: int
    sent_at: float
    data: bytes


Event = tuple[int, Report | None]
"""A descriptor, and what was done with it; None: it is to be read."""


class Waiting(Protocol):
    """Either form."""

    name: str

    def run(self, until: float) -> list[Event]:
        """Wait for events, at most until the monotonic time `until` (infinite: for ever)."""


class Turns:
    """The pure form: every event is the caller's."""

    name = "python"

    def __init__(self, epoll: select.epoll) -> None:
        self._poll = epoll.poll

    def run(self, until: float) -> list[Event]:
        """Wait for events, at most until `until`."""
        wait_s = until - time.monotonic()
        return [(fd, None) for fd, _ in self._poll(-1.0 if wait_s > 1e6 else max(0.0, wait_s), BATCH)]


class Pump:
    """The compiled form.

    Raises:
        PumpMissingError: it was not compiled, or is of another version.
    """

    name = "native"

    def __init__(self, epoll: select.epoll, path: str) -> None:
        try:
            import ctypes  # noqa: PLC0415 -- see the head
        except ImportError as error:
            raise PumpMissingError(f"this Python has no ctypes: {error}") from error
        try:
            library: CDLL = ctypes.CDLL(path)
            version = library.pump_version
            run = library.pump_run
        except (OSError, AttributeError) as error:
            raise PumpMissingError(str(error)) from error
        wanted = _VERSION << 24 | BATCH << 16 | _LANE.size << 8 | _REPORT.size
        if version() != wanted:
            raise PumpMissingError(f"{path} is of another version")
        run.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_double, ctypes.c_double,
                        ctypes.c_void_p]  # fmt: skip
        self._run = run
        self._octet = ctypes.c_char
        self._address = ctypes.addressof
        self._epoll = epoll
        self._epoll_fd = epoll.fileno()
        self._reports = bytearray(BATCH * _REPORT.size)
        self._reports_at = self.address(self._reports)
        self._table = bytearray()
        self._lanes = self._table_at = 0
        self._grow(_FIRST_LANES)

    def address(self, buffer: bytearray | memoryview) -> int:
        """Where the octets of `buffer` are, as long as somebody keeps it; it is never resized."""
        return self._address(self._octet.from_buffer(buffer))

    def _grow(self, lanes: int) -> None:
        self._table = self._table + bytes((lanes - self._lanes) * _LANE.size)
        self._lanes = lanes
        self._table_at = self.address(self._table)

    def open(
        self, fd: int, view: memoryview, start: int, window_bytes: int, awaited: int, step: int, sent_at: float
    ) -> bool:
        """Leave it to the pump to send the windows of `window_bytes` octets, `step` blocks each, that lie in `view`
        from `start` on, as many as are full. `awaited` is the ACK of what was sent at `sent_at`. The caller keeps
        `view` until the lane is closed, and has registered `fd` for EPOLLIN. False: there is none to send.

        Raises:
            ValueError: what is asked for lies outside of `view`, or the numbers are none.
        """
        if not (fd >= 0 <= start and 0 < window_bytes <= 0xFFFFFFFF and 0 < step <= 0xFFFF):
            raise ValueError(f"no lane: {fd}, {start}, {window_bytes}, {step}")
        windows = (view.nbytes - start) // window_bytes
        if windows <= 0:
            return False
        if fd >= self._lanes:
            self._grow(2 * fd)
        _LANE.pack_into(
            self._table, fd * _LANE.size,
            self.address(view) + start, sent_at, window_bytes, windows, awaited & 0xFFFF, step, 1,
        )  # fmt: skip
        self._epoll.modify(fd, _EDGE)
        return True

    def peek(self, fd: int) -> tuple[int, float]:
        """The ACK that the open lane of `fd` awaits, and when its last window left."""
        sent_at, awaited = _LEFT_BY.unpack_from(self._table, fd * _LANE.size)
        return awaited, sent_at

    def resume(self, fd: int) -> None:
        """Open the lane of `fd` again where it ended with a report: what was received changed nothing."""
        _WORD.pack_into(self._table, fd * _LANE.size + _OPEN_AT, 1)
        self._epoll.modify(fd, _EDGE)

    def close(self, fd: int) -> None:
        """From now on all events of `fd` come up."""
        _WORD.pack_into(self._table, fd * _LANE.size + _OPEN_AT, 0)
        self._epoll.modify(fd, select.EPOLLIN)

    def run(self, until: float, now: float = -1.0) -> list[Event]:
        """Pump, until something comes up or at most until `until`; `now` makes it one turn at that time, for tests.

        What was received comes first: reading the others may close descriptors and open new ones of the same number.
        """
        count = self._run(
            self._epoll_fd, self._table_at, self._lanes, until if until < 1e15 else -1.0, now, self._reports_at
        )
        if count < 0:
            raise OSError(-count, "the pump cannot wait")
        found = [
            Report(fd, kind, number, awaited, sent_at, data[:number] if kind == READ else b"")
            for fd, kind, number, awaited, sent_at, data in _REPORT.iter_unpack(self._reports[: count * _REPORT.size])
        ]
        return [(report.fd, report) for report in found if report.kind] + [
            (report.fd, None) for report in found if not report.kind
        ]


def make_waiting(form: str, epoll: select.epoll, path: str) -> tuple[Waiting, str]:
    """The form that the settings name: `python`, `native`, or `auto` for the compiled one where it is. The text says
    why it is not, or is empty.

    Raises:
        PumpMissingError: `native` is wanted and not there.
    """
    if form == "python":
        return Turns(epoll), "the settings say so"
    try:
        return Pump(epoll, path), ""
    except PumpMissingError as error:
        if form == "native":
            raise
        return Turns(epoll), str(error)
