"""Ends of actions on a disk that does not take them: answered all the same, kept in memory, told, tried again."""

import asyncio
import contextlib
import logging
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.action_store import ActionStore
from wire.payloads import Alert, encode

if TYPE_CHECKING:
    from agent.daemon import Agent

log = logging.getLogger(__name__)

STORE_ALERT = "store"
"""Of the agent, not of a board."""
AGAIN_S = 10.0
"""Between attempts to store what waits: whoever makes room on the disk wants to see soon that it was enough."""


class UnstoredEnds:
    """Stores how actions ended, and keeps what cannot be stored as long as the agent runs.

    A restart before the disk is mended finds these actions without an end, and says that they were interrupted.
    """

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._store: ActionStore | None = None
        self._waiting: dict[str, bytes] = {}
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()

    def start(self, store: ActionStore) -> None:
        """Store in `store` from now on. An alert of an earlier run is over: nothing waits yet."""
        self._store = store
        self._say(b"")

    def get(self, transaction: str) -> bytes | None:
        """The response of an action that is done and could not be stored."""
        return self._waiting.get(transaction)

    async def end(self, transaction: str, response: bytes) -> None:
        """Store a response. Never raises for the disk: whoever waits for the response gets it."""
        self._waiting[transaction] = response  # a repeated request finds it, whatever becomes of the disk meanwhile
        error = await self._try(transaction)
        if error is None:
            self._room.set()
            return
        state_dir = self._agent.settings.agent.state_dir
        log.error("%s: cannot be written (%s); the end of action %s is not stored", state_dir, error, transaction)
        if self._task is None or self._task.done():
            what = f"{state_dir} cannot be written ({error}): nothing is stored, neither events nor how actions ended"
            do = "make room on the disk, or mend it; what actions answered is kept as long as the agent runs"
            self._say(encode(Alert(what=what[:1024], since=datetime.now(UTC), do=do)))
            self._task = asyncio.create_task(self._again(), name="unstored ends")

    async def stop(self) -> None:
        """Try a last time, and no more."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for transaction in list(self._waiting):
            if await self._try(transaction) is not None:
                log.error("the end of action %s is not stored: the next start will say interrupted", transaction)

    async def _try(self, transaction: str) -> sqlite3.Error | None:
        response = self._waiting.get(transaction)
        if self._store is None or response is None:
            return None
        try:
            await self._store.end(transaction, response)
        except sqlite3.Error as error:
            return error
        self._waiting.pop(transaction, None)
        return None

    async def _again(self) -> None:
        while self._waiting:
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await self._room.wait()
            for transaction in list(self._waiting):
                if await self._try(transaction) is not None:
                    break
        log.warning(
            "%s: can be written again, and all ends of actions are stored", self._agent.settings.agent.state_dir
        )
        self._say(b"")

    def _say(self, payload: bytes) -> None:
        agent = self._agent
        agent.voice.retain(agent.topics.agent_alert(agent.name, STORE_ALERT), payload)
