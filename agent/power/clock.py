"""Time, as the power core sees it."""

import asyncio
import time
from pathlib import Path
from typing import Protocol

KERNEL_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Injected, so that tests need no waiting."""

    def now(self) -> float:
        """Seconds that never jump and also count while the host is suspended; comparable between processes of one
        kernel boot."""

    def wall(self) -> float:
        """Seconds since the epoch; for people, never for intervals."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The host's clocks."""

    def now(self) -> float:
        # CLOCK_BOOTTIME, because CLOCK_MONOTONIC stands still while a laptop sleeps and an outlet stays off.
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def kernel_boot_id(path: Path = KERNEL_BOOT_ID_FILE) -> str:
    """The kernel's random id of this boot (proc(5)); readings of `now` compare only within one.

    Raises:
        OSError: the file cannot be read.
    """
    return path.read_text(encoding="ascii").strip()
