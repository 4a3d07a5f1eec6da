"""A disk that takes nothing: how actions and commands ended is answered all the same, kept in memory, and tried again.

Whatever the agent could not write is told by alert `store` until there is room.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.action_store import ActionStore
from agent.unit import Effects
from wire.payloads import Alert, encode

if TYPE_CHECKING:
    from agent.daemon import Agent
    from daemon.store import Store

log = logging.getLogger(__name__)

STORE_ALERT = "store"
"""Of the agent, not of a board."""
AGAIN_S = 10.0
"""Between attempts to store what waits: whoever makes room on the disk wants to see soon that it was enough."""

Write = Callable[[bytes], Awaitable[None]]


class UnstoredEnds:
    """Stores how actions and commands ended, and keeps what cannot be stored as long as the agent runs.

    A restart before the disk is mended finds these without an end, and says that they were interrupted.
    """

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._store: ActionStore | None = None
        self._file: Store | None = None
        self._waiting: dict[str, tuple[bytes, Write]] = {}
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._stopped = False

    def start(self, store: ActionStore) -> None:
        """Store in `store` from now on, and watch its file. An alert of an earlier run is over: nothing waits yet."""
        self._store, self._file = store, store.file
        self._file.on_failure = self.failed
        self._say(b"")

    def failed(self, error: Exception) -> None:
        """The disk did not take something: told once, and looked at until it does."""
        if self._stopped or (self._task is not None and not self._task.done()):
            return
        state_dir = self._agent.settings.agent.state_dir
        log.error("%s: cannot be written: %s", state_dir, error)
        what = f"{state_dir} cannot be written ({error}): nothing is stored, neither events nor how actions ended"
        do = "make room on the disk, or mend it; what actions answered is kept as long as the agent runs"
        self._say(encode(Alert(what=what[:1024], since=datetime.now(UTC), do=do)))
        self._task = asyncio.create_task(self._again(), name="unstored ends")

    def get(self, name: str) -> bytes | None:
        """The response of an action, or the result of a command, that is done and could not be stored."""
        waiting = self._waiting.get(name)
        return None if waiting is None else waiting[0]

    async def end(self, transaction: str, response: bytes) -> None:
        """Store the response of an action. Never raises for the disk: whoever waits for the response gets it."""
        store = self._store
        if store is not None:
            await self.keep(transaction, response, lambda payload: store.end(transaction, payload))

    async def keep(self, name: str, payload: bytes, write: Write) -> None:
        """Have `write(payload)` done, now or when there is room; until then `get(name)` has it. Never raises for the
        disk."""
        self._waiting[name] = payload, write  # a repeated request finds it, whatever becomes of the disk meanwhile
        error = await self._try(name)
        if error is None:
            self._room.set()
            return
        log.error("the end of %s is not stored: %s", name, error)
        self.failed(error)

    async def stop(self) -> None:
        """Try a last time, and no more."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for name in list(self._waiting):
            if await self._try(name) is not None:
                log.error("the end of %s is not stored: the next start will say interrupted", name)

    async def _try(self, name: str) -> sqlite3.Error | None:
        waiting = self._waiting.get(name)
        if waiting is None:
            return None
        payload, write = waiting
        try:
            await write(payload)
        except sqlite3.Error as error:
            return error
        self._waiting.pop(name, None)
        return None

    async def _again(self) -> None:
        while True:
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await self._room.wait()
            if await self._is_well():
                break
        log.warning("%s: can be written again, and all that waited is stored", self._agent.settings.agent.state_dir)
        self._say(b"")
        self._agent.submit(Effects())  # with it go the boards whose last state is not stored

    async def _is_well(self) -> bool:
        """Store what waits; whether all of it was taken, and more would be."""
        for name in list(self._waiting):
            if await self._try(name) is not None:
                return False
        try:
            if self._file is not None:
                await self._file.probe()
        except (sqlite3.Error, OSError) as error:
            log.debug("the disk takes nothing yet: %s", error)
            return False
        return True

    def _say(self, payload: bytes) -> None:
        agent = self._agent
        agent.voice.retain(agent.topics.agent_alert(agent.name, STORE_ALERT), payload)
