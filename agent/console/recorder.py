"""Writes the consoles' recordings on one thread for all boards: nothing here waits for a disk.

What is recorded is handed over every `WRITE_EVERY_S`; a kill -9 costs as much. Where the disk is slower than the boards
speak, or full, readers go on, what is missing is counted, and stands in the recording as soon as it can.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from agent.console.recording import HEADER, Page, Query, Record, RecordedBoot, RecordKind, Segment
from agent.console.recording import boots as boots_in
from agent.console.recording import search as search_in
from agent.console.recording import segments as segments_in

log = logging.getLogger(__name__)

WRITE_EVERY_S = 0.25
JOINED_US = 10_000
"""What comes within 10 ms has one time: a record for each of a slow UART's bytes would be 13 times their size."""
PENDING_BYTES = 2 << 20
"""Of one board; at 115200 baud three minutes."""
URGENT_BYTES = 256 * 1024
"""So much is written at once."""
RECORD_BYTES = 64 * 1024
SEGMENTS_OF_LIMIT = 8
"""Of what is kept, at most this part goes at once."""
SEGMENTS_MOST = 512
"""A board that restarts every second makes a segment each time."""
RETRY_S = 5.0
"""How often a disk that failed is tried again."""
PAGE_BYTES = 48 * 1024
PAGE_READ_BYTES = 4 << 20
"""So that a search holds its thread, and the interpreter's lock, for some tens of milliseconds."""


@dataclass(slots=True)
class _Pending:
    """What waits for the disk of one board. `boot` of an entry: a new boot begins with it."""

    entries: list[tuple[bool, Record]] = field(default_factory=list)
    size: int = 0
    lost: int = 0


class _Tape:
    """One board's recording on the recorder's thread."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._fd: int | None = None
        self._size = 0
        self._kept: list[tuple[Segment, int]] | None = None
        self._number = 0
        self._boot = 0
        self.written = 0
        """How many entries of the last `write` are on the disk."""

    def write(self, entries: list[tuple[bool, Record]]) -> None:
        """Append, and count in `written`; raises OSError with nothing half written left in the way of what follows."""
        self.written = 0
        self._look()
        run = bytearray()
        for number, (new_boot, record) in enumerate(entries):
            if new_boot or self._fd is None or self._size + len(run) >= self._limit // SEGMENTS_OF_LIMIT:
                self._append(run)
                self.written = number
                run = bytearray()
                self._begin(record.at_us, new_boot=new_boot)
            run += record.encoded()
        self._append(run)
        self.written = len(entries)

    def _look(self) -> None:
        if self._kept is not None:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = segments_in(self._folder)
        self._kept = [(segment, segment.path.stat().st_size) for segment in found]
        if found:
            self._number, self._boot = found[-1].number, max(segment.boot for segment in found)

    def _begin(self, at_us: int, *, new_boot: bool) -> None:
        self.close()
        segment = Segment.named(self._folder, self._number + 1, self._boot + new_boot, at_us)
        # What a board prints may be private to who works with it.
        self._fd = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._number, self._boot = segment.number, segment.boot
        self._size = 0
        kept = self._kept if self._kept is not None else []
        kept.append((segment, 0))
        # A segment ends behind the record that fills it.
        share = self._limit // SEGMENTS_OF_LIMIT + RECORD_BYTES
        while len(kept) > 1 and (sum(s for _, s in kept) + share > self._limit or len(kept) > SEGMENTS_MOST):
            oldest, _ = kept.pop(0)
            oldest.path.unlink(missing_ok=True)

    def _append(self, run: bytearray) -> None:
        if not run or self._fd is None:
            return
        written = 0
        try:
            while written < len(run):
                written += os.write(self._fd, memoryview(run)[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            self.close()
            if self._size == 0:
                self._unmake()
            raise
        self._size += len(run)
        if self._kept:
            self._kept[-1] = self._kept[-1][0], self._size

    def _unmake(self) -> None:
        """Take back the segment that was begun and got nothing: each try at a full disk would leave one, and a boot."""
        if self._kept:
            segment, _ = self._kept.pop()
            with contextlib.suppress(OSError):
                segment.path.unlink()
        self._boot = self._kept[-1][0].boot if self._kept else 0

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Recorder:
    """The recordings of all consoles of an agent."""

    def __init__(self, folder: Path, limit_bytes: int, on_trouble: Callable[[str | None], None]) -> None:
        """`limit_bytes` of each board are kept. `on_trouble` is told once what is wrong with the disk, and None when it
        is well again."""
        self._folder = folder
        self._limit = limit_bytes
        self._on_trouble = on_trouble
        self._pending: dict[str, _Pending] = {}
        self._tapes: dict[str, _Tape] = {}
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="console-recorder")
        self._something = asyncio.Event()
        self._urgent = asyncio.Event()
        self._trouble: str | None = None
        self._starting: set[str] = set()

    def data(self, board: str, data: bytes) -> None:
        """A board said `data`, now."""
        pending = self._pending_of(board)
        now_us = time.time_ns() // 1000
        if pending.entries and board not in self._starting:
            new_boot, last = pending.entries[-1]
            joins = last.kind is RecordKind.DATA and now_us - last.at_us < JOINED_US
            if joins and len(last.data) + len(data) <= RECORD_BYTES and pending.size < PENDING_BYTES:
                pending.entries[-1] = new_boot, Record(last.at_us, RecordKind.DATA, last.data + data)
                self._grew(pending, len(data))
                return
        self._add(board, Record(now_us, RecordKind.DATA, data))

    def note(self, board: str, text: str) -> None:
        """The agent has something to say that belongs into the recording."""
        self._add(board, Record(time.time_ns() // 1000, RecordKind.NOTE, text.encode()))

    def new_boot(self, board: str) -> None:
        """What comes next is of another boot."""
        self._starting.add(board)

    def _pending_of(self, board: str) -> _Pending:
        return self._pending.setdefault(board, _Pending())

    def _add(self, board: str, record: Record) -> None:
        pending = self._pending_of(board)
        if pending.size >= PENDING_BYTES:
            pending.lost += len(record.data)
            return
        starts = board in self._starting
        self._starting.discard(board)
        pending.entries.append((starts, record))
        self._grew(pending, len(record.data) + HEADER.size)
        self._something.set()

    def _grew(self, pending: _Pending, size: int) -> None:
        pending.size += size
        if pending.size >= URGENT_BYTES:
            self._urgent.set()

    async def run(self) -> None:
        """Write what comes, for ever."""
        while True:
            await self._something.wait()
            self._something.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_EVERY_S):
                    await self._urgent.wait()
            self._urgent.clear()
            if not await self._write():
                await asyncio.sleep(RETRY_S)
                self._something.set()

    async def close(self) -> None:
        """Write what is not written, and close the files."""
        await self._write()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._close_tapes)
        self._executor.shutdown(wait=False)

    def _close_tapes(self) -> None:
        for tape in self._tapes.values():
            tape.close()

    async def _write(self) -> bool:
        """Hand over all that waits; whether all of it was written."""
        batch = {board: pending for board, pending in self._pending.items() if pending.entries or pending.lost}
        self._pending = {}
        if not batch:
            return True
        failed, why = await asyncio.get_running_loop().run_in_executor(self._executor, self._write_batch, batch)
        for board, (lost, starts) in failed.items():
            self._pending_of(board).lost += lost
            if starts:
                self._starting.add(board)
        if why != self._trouble and (why is None or self._trouble is None):
            self._trouble = why
            if why is not None:
                log.error("%s: consoles cannot be recorded: %s; their readers go on", self._folder, why)
            self._on_trouble(why)
        return why is None

    def _write_batch(self, batch: dict[str, _Pending]) -> tuple[dict[str, tuple[int, bool]], str | None]:
        """On the thread. Returns what could not be written: bytes, and whether a boot began in them."""
        failed: dict[str, tuple[int, bool]] = {}
        why = None
        for board, pending in batch.items():
            entries = pending.entries
            if pending.lost:
                at_us = entries[0][1].at_us if entries else time.time_ns() // 1000
                text = f"{pending.lost} bytes are missing here: they could not be recorded"
                entries = [(False, Record(at_us, RecordKind.NOTE, text.encode())), *entries]
            tape = self._tapes.setdefault(board, _Tape(self._folder / board, self._limit))
            try:
                tape.write(entries)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                left = entries[tape.written :]
                lost = sum(len(record.data) for _, record in left if record.kind is RecordKind.DATA)
                if tape.written == 0:  # else the note of what was missing before is written
                    lost += pending.lost
                failed[board] = lost, any(starts for starts, _ in left)
        return failed, why

    async def boots(self, board: str) -> list[RecordedBoot]:
        """What is recorded of a board, up to now.

        Raises:
            OSError: it cannot be read.
        """
        await self._write()
        return await asyncio.to_thread(boots_in, self._folder / board)

    async def search(self, board: str, query: Query) -> Page:
        """A page of what `query` is after, up to now.

        Raises:
            OSError: it cannot be read.
        """
        await self._write()
        folder = self._folder / board
        return await asyncio.to_thread(search_in, folder, query, most_bytes=PAGE_BYTES, most_read_bytes=PAGE_READ_BYTES)
