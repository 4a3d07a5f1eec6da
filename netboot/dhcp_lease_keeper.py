"""Leases that are stored before they are confirmed (RFC 2131 section 3.1: the server commits the binding, then sends
DHCPACK), so that a kill of the agent gives nobody's address to somebody else."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from netboot.dhcp_leases import LeaseTable

log = logging.getLogger(__name__)

SaveLeases = Callable[[dict[str, object]], Awaitable[None] | None]
"""Gets the whole state as plain JSON values. A plain function or a coroutine function; it has stored it on return."""


class LeaseKeeper:
    """Stores `leases` when they change. Changes during a save go into the next one together."""

    def __init__(
        self,
        leases: LeaseTable,
        save: SaveLeases,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._leases = leases
        self._save = save
        self._clock = clock
        self._wall_clock = wall_clock
        self._kept = self._asked = leases.revision
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._failed = False

    def stored(self) -> asyncio.Future[None] | None:
        """None when nothing has changed since the last call: a board with a reserved address waits for no disk.
        Otherwise saving begins, and the future is done when the change is stored or has failed to be: a full disk must
        not keep boards from booting."""
        if self._asked == self._leases.revision:
            return None
        self._asked = self._leases.revision
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="netboot-save-leases")
        return waiter

    async def close(self) -> None:
        """Store what is not stored."""
        if self._task is not None:
            await self._task
        if self._failed or self._kept != self._leases.revision:
            await self._store()

    async def _run(self) -> None:
        while self._waiting or self._kept != self._leases.revision:
            waiting, self._waiting = self._waiting, []
            await self._store()
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)
        self._task = None

    async def _store(self) -> None:
        self._kept = self._leases.revision
        state = self._leases.state(self._clock(), self._wall_clock())
        try:
            result = self._save(state)
            if result is not None:
                await result
        except Exception:  # whatever the owner's store raises, boards get their addresses
            if not self._failed:
                log.exception("the DHCP leases cannot be stored; after a restart boards may get other addresses")
            self._failed = True
        else:
            self._failed = False
