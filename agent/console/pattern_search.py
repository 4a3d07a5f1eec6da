"""Looks for patterns in what a board says, as it comes.

Plain patterns, in which `*` is any text within a line, are looked for here. Regular expressions of strangers are not:
one with the wrong stars would hold up every board of the agent for hours. They run in a process of their own, which is
killed when the time is over.
"""

import asyncio
import json
import re
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

WINDOW_BYTES = 64 * 1024
"""Of what was said last, a match is looked for in so much."""
_LINES = re.compile(rb"[\r\n]")
_LENGTH = struct.Struct(">I")

_WORKER = """
import json, re, struct, sys
window = int(sys.argv[1])
patterns = [re.compile(p.encode("utf-8"), re.MULTILINE) for p in sys.argv[2:]]
said, stream = b"", sys.stdin.buffer
while len(head := stream.read(4)) == 4:
    said = (said + stream.read(struct.unpack(">I", head)[0]))[-window:]
    found = [(m.start(), m.end(), n) for n, p in enumerate(patterns) if (m := p.search(said)) is not None]
    if found:
        start, end, index = min(found)
        print(json.dumps([index, said[:start].hex(), said[start:end].hex()]), flush=True)
        break
"""


@dataclass(frozen=True, slots=True)
class Found:
    """`index` of the pattern, what matched, and what was said before it, of the last `WINDOW_BYTES`."""

    index: int
    before: bytes
    match: bytes


class PlainSearch:
    """Patterns as of `grep` elsewhere in boardhand: text, with `*` for any text within the line."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [[part.encode() for part in pattern.split("*") if part] for pattern in patterns]
        self._said = b""
        self._open = 0
        """Where in it the line begins that has not ended; those before have been looked at."""
        self._future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()

    def feed(self, data: bytes) -> None:
        """The board said `data`."""
        said = self._said + data
        self._said = said[-WINDOW_BYTES:]
        if self._future.done():
            return
        begin = max(0, self._open - (len(said) - len(self._said)))
        news = self._said[begin:]
        self._open = begin + max(news.rfind(b"\n"), news.rfind(b"\r")) + 1
        spans = [
            (begin + span[0], begin + span[1], index)
            for index, parts in enumerate(self._patterns)
            if (span := _span(parts, news)) is not None
        ]
        if spans:
            start, end, index = min(spans)
            self._future.set_result(Found(index, self._said[:start], self._said[start:end]))

    async def found(self) -> Found:
        """The first match."""
        return await self._future

    async def close(self) -> None:
        """Nothing is left behind."""


def _span(parts: list[bytes], said: bytes) -> tuple[int, int] | None:
    """Where the parts first stand one after the other in one line. Linear: a board cannot make it slow."""
    begin = 0
    for line in _LINES.split(said):
        at, start = 0, -1
        for part in parts:
            at = line.find(part, at)
            if at < 0:
                break
            start = at if start < 0 else start
            at += len(part)
        else:
            if start >= 0:
                return begin + start, begin + at
        begin += len(line) + 1
    return None


class RegexSearch:
    """Regular expressions of Python's `re`, over bytes, in a process of their own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._feeding: asyncio.Queue[bytes] = asyncio.Queue()
        self._feeder = asyncio.create_task(self._feed_for_ever(), name="patterns")

    @classmethod
    async def begun(cls, patterns: Sequence[str]) -> "RegexSearch":
        """The process runs.

        Raises:
            OSError: it cannot be started.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _WORKER, str(WINDOW_BYTES), *patterns),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=8 * WINDOW_BYTES,
        )
        return cls(process)

    def feed(self, data: bytes) -> None:
        """The board said `data`. A search that cannot keep up misses what is older than its window."""
        if self._feeding.qsize() < 64:
            self._feeding.put_nowait(data)

    async def _feed_for_ever(self) -> None:
        stdin = self._process.stdin
        if stdin is None:
            return
        with suppress(OSError):  # it has found something, and ended
            while True:
                data = await self._feeding.get()
                while not self._feeding.empty():
                    data += self._feeding.get_nowait()
                data = data[-WINDOW_BYTES:]
                stdin.write(_LENGTH.pack(len(data)) + data)
                await stdin.drain()

    async def found(self) -> Found:
        """The first match.

        Raises:
            OSError: the process has ended without one: somebody killed it.
        """
        line = b"" if self._process.stdout is None else await self._process.stdout.readline()
        if not line:
            raise OSError("the search for patterns has ended by itself")
        index, before, match = json.loads(line)
        return Found(index, bytes.fromhex(before), bytes.fromhex(match))

    async def close(self) -> None:
        """Kill what is left."""
        self._feeder.cancel()
        with suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.gather(self._feeder, self._process.wait(), return_exceptions=True)


Search = PlainSearch | RegexSearch
