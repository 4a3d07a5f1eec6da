"""Sends files down a connection by sendfile(2) without holding the event loop: the call reads the disk, so threads make
it, and wait a short while for room in the socket; a client that is slower than that costs no thread, only a place in
the event loop's selector.
"""

import asyncio
import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from netboot.http_files import FileChangedError, OpenFile

THREADS = 4
"""More do not fill a link better; each waits for disk or link, and leaves the interpreter free."""
STRETCH_S = 0.05
"""So long a thread serves one client before another's turn."""
ROOM_WAIT_MS = 5
"""So long a thread waits for room in the socket: a client on a fast link makes some in less."""
CALL_BYTES = 1 << 20
"""Of one sendfile call: few calls, and the file is checked often."""
ROOM_MIN_POLL_S, ROOM_MAX_POLL_S = 0.0005, 0.02
_Result = TypeVar("_Result")


class StalledClientError(ConnectionError):
    """The client takes nothing, or next to nothing: the connection is of no use."""


class Threads:
    """The threads that touch files, for one server."""

    def __init__(self, count: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="netboot-http")

    async def open(self, make: Callable[[], tuple[OpenFile, bool]]) -> tuple[OpenFile, bool]:
        """Open a file; if the caller is cancelled meanwhile, it is closed.

        Raises:
            OSError: what `make` raises.
        """
        job = self._pool.submit(make)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            job.add_done_callback(_close_result)
            raise

    def submit(self, work: Callable[[], _Result]) -> "Future[_Result]":
        """Begin a piece of work."""
        return self._pool.submit(work)

    def stop(self) -> None:
        """Begin nothing more. What is under way ends by itself soon."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _close_result(job: "Future[tuple[OpenFile, bool]]") -> None:
    if not job.cancelled() and job.exception() is None:
        job.result()[0].close()


class Pump:
    """One file on its way down one connection. It works on a duplicate of the socket, so that neither side closes what
    the other still uses. The transport's own buffer has to be empty.

    Args:
        socket_fd: the connection's socket, not blocking.
        file: closed by `close`, together with the duplicate, once no thread uses them.
        stall_s: a client that takes no octet for so long is given up.
        slowest_bytes_s: and one that is slower on average, after `stall_s`.
    """

    def __init__(
        self, threads: Threads, socket_fd: int, file: OpenFile, *, stall_s: float, slowest_bytes_s: float
    ) -> None:
        self._threads = threads
        self._file = file
        self._stall_s = stall_s
        self._slowest_bytes_s = slowest_bytes_s
        self._job: Future[object] | None = None
        self._socket = os.dup(socket_fd)
        self._began = time.monotonic()
        self.sent_bytes = 0

    async def send(self, offset: int, count: int) -> None:
        """Send `count` octets of the file.

        Raises:
            FileChangedError: the file is no longer what was opened.
            StalledClientError: the client takes nothing.
            OSError: the client is gone, or the file cannot be read.
        """
        while count > 0:
            sent, full = await self._run(partial(self._stretch, offset, count))
            offset, count = offset + sent, count - sent
            self.sent_bytes += sent
            self._judge_pace()
            if full:
                await self._room()

    async def read_last(self, offset: int, count: int) -> bytes:
        """Octets that complete the answer: given out when the client has all that went before, and it is certain that
        nothing of that was changed on the way (sendfile sends the file's pages, not a copy).

        Raises:
            FileChangedError, StalledClientError, OSError: as `send`.
        """
        pause_s, quiet_since, before = ROOM_MIN_POLL_S, time.monotonic(), -1
        while (unacknowledged := _unacknowledged_bytes(self._socket)) > 0:
            now = time.monotonic()
            if unacknowledged != before:
                before, quiet_since = unacknowledged, now
            if now - quiet_since > self._stall_s:
                raise StalledClientError(f"the client took nothing for {self._stall_s:.0f} s")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, ROOM_MAX_POLL_S)
        return await self._run(lambda: self._file.read(offset, count))

    def close(self) -> None:
        """Give file and socket back, at once or when the thread that uses them has ended."""
        if self._job is None:
            self._close()
        else:
            self._job.add_done_callback(lambda _: self._close())

    def _close(self) -> None:
        os.close(self._socket)
        self._file.close()

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        job = self._threads.submit(work)
        self._job = job  # type: ignore[assignment]  # only its end is of interest
        return await asyncio.wrap_future(job)

    def _stretch(self, offset: int, count: int) -> tuple[int, bool]:
        """In a thread: how much was sent, and whether the socket is full."""
        self._file.check()
        end, sent = time.monotonic() + STRETCH_S, 0
        room = select.poll()
        room.register(self._socket, select.POLLOUT)
        while sent < count and time.monotonic() < end:
            try:
                done = os.sendfile(self._socket, self._file.fd, offset + sent, min(CALL_BYTES, count - sent))
            except BlockingIOError:
                if not room.poll(ROOM_WAIT_MS):
                    return sent, True
                continue
            if done == 0:
                raise FileChangedError("the file became shorter while it was being sent")
            sent += done
        return sent, False

    async def _room(self) -> None:
        """Wait for room in the socket. There is room when a third of it is free, which is a megabyte or more: a slow
        client may take long for that without having stalled."""
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        loop.add_writer(self._socket, room.set)
        try:
            while True:
                before = _unacknowledged_bytes(self._socket)
                try:
                    async with asyncio.timeout(self._stall_s):
                        await room.wait()
                except TimeoutError:
                    if _unacknowledged_bytes(self._socket) >= before:
                        raise StalledClientError(f"the client took nothing for {self._stall_s:.0f} s") from None
                    self._judge_pace()
                else:
                    return
        finally:
            loop.remove_writer(self._socket)

    def _judge_pace(self) -> None:
        spent = time.monotonic() - self._began
        taken = self.sent_bytes - _unacknowledged_bytes(self._socket)
        if spent > self._stall_s and taken < spent * self._slowest_bytes_s:
            raise StalledClientError(f"the client takes less than {self._slowest_bytes_s:.0f} octets a second")


def _unacknowledged_bytes(socket_fd: int) -> int:
    """Octets in the socket's send queue that the peer has not acknowledged (tcp(7), SIOCOUTQ)."""
    answer = fcntl.ioctl(socket_fd, termios.TIOCOUTQ, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])
