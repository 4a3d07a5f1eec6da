"""What the conformance kit sees of a driver beside its answers: what it holds, what it logs, how long it blocks."""

import asyncio
import contextlib
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

NUMBERED = re.compile(r":\[\d+\]$|(?<=^/dev/pts/)\d+$")
"""A device that was pulled out and plugged in may get another number."""
OPEN_FILES = Path("/proc/self/fd")
SHARED_THREADS = "asyncio_"
"""Threads of the loop's own pool, which name lookups of any library use, and which stay."""
TICK_S = 0.005


@dataclass(frozen=True)
class Held:
    """Tasks, threads and open files of this process."""

    tasks: frozenset["asyncio.Task[object]"]
    threads: frozenset[threading.Thread]
    files: Counter[str]
    """What is open, without the numbers that only name one socket or pipe -> how often."""

    @classmethod
    def now(cls) -> Self:
        files: Counter[str] = Counter()
        for entry in OPEN_FILES.iterdir():
            with contextlib.suppress(OSError):  # the descriptor of this very listing is closed by now
                target = os.readlink(entry)  # noqa: PTH115 - a target that is no path
                files[NUMBERED.sub("", target)] += 1
        return cls(
            frozenset(asyncio.all_tasks()),
            frozenset(thread for thread in threading.enumerate() if not thread.name.startswith(SHARED_THREADS)),
            files,
        )

    def beyond(self, before: Self) -> list[str]:
        """What is held now and was not before, in words."""
        return [
            *(f"task {task.get_name()}" for task in self.tasks - before.tasks if not task.done()),
            *(f"thread {thread.name}" for thread in self.threads - before.threads if thread.is_alive()),
            *(f"{count} more of open file {target}" for target, count in sorted((self.files - before.files).items())),
        ]


class LogRecorder(logging.Handler):
    """Writes everything that is logged, formatted, to a list."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._seen = seen
        self._level_before = logging.WARNING

    def emit(self, record: logging.LogRecord) -> None:
        self._seen.append(self.format(record))

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._level_before = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._level_before)


class MachineWatch:
    """When the machine let this process not run: a thread that is woken too late, while the process used no time of a
    processor. What holds up the event loop alone does not hold up a thread, or uses a processor."""

    def __init__(self) -> None:
        self._withheld: list[tuple[float, float, float]] = []
        """From, to, and how much of that."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="machine watch", daemon=True)

    def _watch(self) -> None:
        before, used = time.monotonic(), time.process_time()
        while not self._over.wait(TICK_S):
            now, used_now = time.monotonic(), time.process_time()
            late_s = now - before - TICK_S - (used_now - used)
            if late_s > TICK_S:
                self._withheld.append((before, now, late_s))
            before, used = now, used_now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def withheld_s(self, begin: float, end: float) -> float:
        """How long the process could not run between two times of `time.monotonic`; known once the watch is over."""
        return sum(late_s for first, last, late_s in self._withheld if first < end and last > begin)


async def longest_stall_s(work: Awaitable[None]) -> float:
    """Do the work; returns the longest time for which nothing else could run, without what the machine withheld."""
    gaps: list[tuple[float, float]] = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK_S)
            gaps.append((before, time.monotonic()))

    with MachineWatch() as machine:
        ticking = asyncio.create_task(tick(), name="event loop watch")
        try:
            await asyncio.sleep(0)
            await work
            await asyncio.sleep(TICK_S)  # a stall at the very end is seen, too
        finally:
            ticking.cancel()
            await asyncio.wait([ticking])
    return max((end - begin - TICK_S - machine.withheld_s(begin, end) for begin, end in gaps), default=0.0)
