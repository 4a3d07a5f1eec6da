"""Webhooks of boards' events: each event of an agent, and each change of a board's trust, POSTed to who asked for it.

`[[broker.webhook]]` names a URL and which events it wants. Each has a queue of its own that holds `MAX_WAITING`, so a
server that is away costs its own oldest events and nobody else's; they are counted in the log. Events are told in their
order, each tried `MAX_TRIES` times. They stand in no store: who must miss nothing reads `event/#` over MQTT. Signed as
the jobs' webhooks are, see `broker.jobs.notify`.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from broker.happenings import Action
from broker.health.happenings import TellAlert
from broker.jobs.notify import NoticeError, call, read_secret
from wire.names import Id
from wire.payloads import Event, encode
from wire.phases import EventType

log = logging.getLogger(__name__)

MAX_WAITING = 1000
MAX_TRIES = 6
AGAIN_S = (1.0, 5.0, 30.0, 120.0, 300.0)
"""After the first try, the second, …"""
HEALTH = "health"
_KINDS = "|".join([*(kind.value for kind in EventType), HEALTH])


class WebhookTable(BaseModel):
    """One `[[broker.webhook]]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(pattern=r"^https?://[^/?#@\\\s]+/[^\s#]*$", max_length=2048)]
    events: list[Annotated[str, Field(pattern=f"^({_KINDS})$")]] = []
    """Of these kinds only, as on MQTT, and `health`; empty: all."""
    boards: Annotated[list[Id], Field(max_length=10_000)] = []
    """Of these boards only; empty: all."""
    secret_file: Path | None = None
    """Signs them; the broker's `webhook_secret_file` if not given."""


@dataclass(frozen=True, slots=True)
class _Notice:
    delivery: str
    event: str
    body: bytes


class _Receiver:
    def __init__(self, table: WebhookTable, secret: bytes | None, again_s: Sequence[float]) -> None:
        self.table, self._secret, self._again_s = table, secret, again_s
        self._waiting: deque[_Notice] = deque()
        self._news = asyncio.Event()
        self._dropped = 0

    def put(self, board: str, notice: _Notice) -> None:
        table = self.table
        if (table.events and notice.event not in table.events) or (table.boards and board not in table.boards):
            return
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._dropped += 1
            if self._dropped == 1:
                log.error("webhook %s: takes events more slowly than they come; the oldest are dropped", table.url)
        self._waiting.append(notice)
        self._news.set()

    async def run(self) -> None:
        while True:
            while not self._waiting:
                if self._dropped:
                    log.warning("webhook %s: %d events were dropped meanwhile", self.table.url, self._dropped)
                    self._dropped = 0
                self._news.clear()
                await self._news.wait()
            await self._tell(self._waiting.popleft())

    async def _tell(self, notice: _Notice) -> None:
        for tried in range(1, MAX_TRIES + 1):
            try:
                await asyncio.to_thread(
                    call, self.table.url, notice.body, notice.delivery, self._secret, event=notice.event
                )
            except NoticeError as error:
                last = not error.again or tried == MAX_TRIES
                log.warning("%s was not told%s: %s", notice.delivery, "" if last else " yet", error)
                if last:
                    return
                await asyncio.sleep(self._again_s[min(tried - 1, len(self._again_s) - 1)])
            else:
                return


class BoardWebhooks:
    """`heard` and `told` when something happened; `run` does the rest."""

    def __init__(
        self, tables: Sequence[WebhookTable], secret: bytes | None, again_s: Sequence[float] = AGAIN_S
    ) -> None:
        """Reads the secrets of single webhooks: blocks.

        Raises:
            OSError: a secret cannot be read.
            ValueError: a secret is empty or too long.
        """
        self._receivers = [
            _Receiver(table, read_secret(table.secret_file) if table.secret_file is not None else secret, again_s)
            for table in tables
        ]

    def heard(self, event: Event) -> None:
        """An agent told of a board. It may tell it twice; the delivery is the same then."""
        if self._receivers:
            delivery = f"{event.agent}-{event.board}-{event.seq}"
            self._put(event.board, _Notice(delivery, event.type.value, encode(event)))

    def told(self, actions: Sequence[Action], at: datetime) -> None:
        """What the broker has saved and said; of it the changes of boards' health."""
        for action in actions if self._receivers else ():
            if isinstance(action, TellAlert):
                alert = action.alert.model_dump(mode="json") if action.alert is not None else None
                body = {"type": HEALTH, "at": at.isoformat(), "board": action.board, "alert": alert}
                delivery = f"{HEALTH}-{action.board}-{int(at.timestamp() * 1000)}"
                self._put(action.board, _Notice(delivery, HEALTH, json.dumps(body).encode()))

    def _put(self, board: str, notice: _Notice) -> None:
        for receiver in self._receivers:
            receiver.put(board, notice)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for receiver in self._receivers:
                group.create_task(receiver.run(), name=f"webhook-{receiver.table.url}")
            await asyncio.Event().wait()
