"""Tells when something changes in the folders of paths that are awaited: inotify on the event loop.

A UART that hangs off its board's power comes back under its path in /dev; waiting for the change, rather than looking
every second, is what keeps the first line of its console.
"""

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path

_IN_ATTRIB, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE_SELF = 0x4, 0x80, 0x100, 0x400
_WATCHED = _IN_ATTRIB | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF
"""ATTRIB, because udev gives a new node its rights after it is there."""
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # IN_NONBLOCK and IN_CLOEXEC are the same numbers (inotify_init(2))
_EVENTS_READ_BYTES = 65536


class PathWatch:
    """One inotify for all paths of an agent. Without inotify (its limits are per user) only the time-outs wake."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_FLAGS)
        self._changed: asyncio.Future[None] | None = None
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._read)

    def close(self) -> None:
        """Watch nothing more."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def expect(self, path: str) -> "asyncio.Future[None]":
        """A future that is done at the next change in the nearest folder above `path` that is there. Call it, look
        whether `path` is usable, and only then await: so no change is missed. Others wait on the same future; hand it
        to `until`."""
        folder = Path(path).parent
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        if self._fd >= 0:
            # Twice the same folder is the same watch, which goes with the folder.
            self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _WATCHED)
        if self._changed is None or self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed

    @staticmethod
    async def until(changed: "asyncio.Future[None]", timeout_s: float) -> None:
        """Wait for the change, `timeout_s` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(changed)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            os.read(self._fd, _EVENTS_READ_BYTES)
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
