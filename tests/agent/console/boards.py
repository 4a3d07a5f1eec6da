"""Boards for consoles to be tried on, and the desk of an agent that has them."""

import asyncio
import contextlib
import os
import pty
import tty
from dataclasses import dataclass, field

from agent.console.desk import ConsoleDesk


class PtyBoard:
    """A board on the other side of a pty. `path` is its serial port."""

    def __init__(self, link=None):
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        # Held open, so that what the board says before the agent is there stays.
        self._slave = slave
        os.set_blocking(self.master, False)
        self.link = link
        if link is not None:
            link.symlink_to(self.path)

    def opened_by_agent(self):
        """Only the agent has the port now: a reader of the other side sees it end."""
        os.close(self._slave)
        self._slave = None

    async def says(self, data):
        """Print `data`, as fast as it is read."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.master, view[:4096]) :]
            except BlockingIOError:
                await asyncio.sleep(0.001)

    async def hears(self, count, deadline_s=60.0):
        """`count` bytes that were typed."""
        found = b""
        async with asyncio.timeout(deadline_s):
            while len(found) < count:
                try:
                    found += os.read(self.master, 65536)
                except BlockingIOError:
                    await asyncio.sleep(0.002)
        return found

    def heard_now(self):
        with contextlib.suppress(BlockingIOError):
            return os.read(self.master, 65536)
        return b""

    def vanishes(self):
        """As a UART whose board lost its power."""
        if self.link is not None:
            self.link.unlink()
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None
        os.close(self.master)
        self.master = None

    def close(self):
        for fd in (self.master, self._slave):
            if fd is not None:
                os.close(fd)


async def until(what, holds, deadline_s=60.0):
    """Wait until `holds()` is true."""
    try:
        async with asyncio.timeout(deadline_s):
            while not (found := holds()):  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {deadline_s} s: {what}") from None
    return found


class Reader:
    """A reader in the agent: counts what it is told, and keeps it."""

    def __init__(self, *, keep=True):
        self.heard = b""
        self.size = 0
        self.keep = keep

    def said(self, data):
        self.size += len(data)
        if self.keep:
            self.heard += data

    def changed(self):
        pass


@dataclass
class Farm:
    """A desk with what it told."""

    desk: ConsoleDesk
    folder: object
    sights: list = field(default_factory=list)
    states: list = field(default_factory=list)
    troubles: list = field(default_factory=list)
    leases: dict = field(default_factory=dict)

    async def open(self, board):
        console = self.desk.consoles[board]
        await until(f"console of {board} open", lambda: console.port.state.is_open)
        return console

    async def lines(self, board, **query):
        answer = await self.desk.answer({"board": board, "do": "read", **query})
        lines = answer["lines"]
        while answer["next"] is not None:
            answer = await self.desk.answer({"board": board, "do": "read", "after": answer["next"], **query})
            lines += answer["lines"]
        return lines
