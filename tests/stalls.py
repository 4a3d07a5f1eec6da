"""Time as this process had it: what the machine kept from it is not counted.

A build server's other guests may hold a process for seconds. An assertion that something was quick must not fail for
that, and a limit of many seconds would find nothing.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_S = 0.02
ORDINARY_LATE_S = 0.03
"""A wake-up may be so late on a machine that is merely in use."""


@contextmanager
def watch() -> Iterator[Callable[[], float]]:
    """Gives a function: seconds since the block began, less the stalls.

    A thread of its own measures how late it is woken. It is not held up by an event loop that blocks, nor by a call
    that waits, so those are counted.
    """
    over = threading.Event()
    began = time.monotonic()
    stalled_s = 0.0

    def measure() -> None:
        nonlocal stalled_s
        last = time.monotonic()
        while not over.wait(TICK_S):
            now = time.monotonic()
            late_s = now - last - TICK_S
            if late_s > ORDINARY_LATE_S:
                stalled_s += late_s
            last = now

    watcher = threading.Thread(target=measure, name="stalls", daemon=True)
    watcher.start()
    try:
        yield lambda: time.monotonic() - began - stalled_s
    finally:
        over.set()
        watcher.join()
