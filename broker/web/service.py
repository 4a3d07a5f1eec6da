"""The web server inside the broker's process: its own MQTT link, its own store, uvicorn on the same event loop."""

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from broker.web.access import Door, Person, TokensError, read_tokens
from broker.web.app import application
from broker.web.asking import Asker
from broker.web.console_session import MOST_TYPED_BYTES
from broker.web.desk import Desk
from broker.web.farm_mirror import Change, FarmMirror
from broker.web.guard import Guard
from broker.web.live import Live
from broker.web.metrics import Metrics
from broker.web.open_consoles import Consoles
from broker.web.settings import WebTable
from broker.web.strangers import Strangers
from broker.web.timeline_store import TimelineStore
from daemon.foreground import DaemonError
from daemon.mqtt_link import Message, MqttLink
from daemon.mqtt_settings import MqttSettings
from wire.payloads import Event
from wire.topics import Topics

log = logging.getLogger(__name__)

TOKENS_EVERY_S = 2.0
"""How soon a token that was taken away is good for nothing."""
CLOSE_S = 3
"""For requests under way when the broker is stopped."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the daemon has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Web:
    """The API and the page, from `start` to `stop`."""

    def __init__(self, table: WebTable, mqtt: MqttSettings, state_dir: Path) -> None:
        self._table = table
        self._mqtt = mqtt
        self._state_dir = state_dir
        self._topics = Topics(mqtt.prefix)
        self._door = Door()
        self._mirror = FarmMirror(mqtt.prefix)
        self._live = Live()
        self._consoles = Consoles()
        self._strangers = Strangers(mqtt.prefix)
        self._metrics = Metrics(self._mirror, self._live, self._consoles)
        self._tokens_read: tuple[int, int] | None = None
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.port = table.port

    async def start(self) -> None:
        """Open the port and begin to listen to the farm.

        Raises:
            DaemonError: the port, the certificate, or the tokens file cannot be used.
            daemon.store.StoreError: the store of timelines cannot be used.
        """
        await self._read_tokens(first=True)
        listening = self._listen()
        self._timeline = await TimelineStore.open(self._state_dir, self._table.events_kept)
        asker = Asker(lambda: self._link, self._topics)
        self._asker = asker
        guard = Guard(self._door, anonymous=self._table.anonymous, clock=asyncio.get_running_loop().time)
        desk = Desk(
            mirror=self._mirror,
            asker=asker,
            live=self._live,
            door=self._door,
            guard=guard,
            metrics=self._metrics,
            timeline=self._timeline,
            consoles=self._consoles,
            strangers=self._strangers,
        )
        self._link = MqttLink(
            self._mqtt,
            f"{self._mqtt.prefix}-web-{secrets.token_hex(4)}".replace("/", "-")[-64:],
            will=None,
            subscriptions=[*self._mirror.subscriptions(), *self._strangers.subscriptions(), *asker.subscriptions()],
            on_message=self._heard,
            on_connect=self._connected,
        )
        config = uvicorn.Config(
            application(desk, self._closing),
            log_config=None,
            access_log=False,
            lifespan="off",
            ssl_certfile=self._table.certificate,
            ssl_keyfile=self._table.key,
            timeout_graceful_shutdown=CLOSE_S,
            server_header=False,
            # Works with every uvicorn that is allowed, and h11 is there already.
            ws="wsproto",
            ws_max_size=MOST_TYPED_BYTES,
        )
        try:
            config.load()
        except OSError as error:
            raise DaemonError(f"[web] certificate, key: {error}") from error
        self._server = _Server(config)
        await self._link.start()
        self._tasks = [
            asyncio.create_task(self._server.serve(sockets=[listening]), name="web-server"),
            asyncio.create_task(self._timeline.run(), name="web-timeline"),
            asyncio.create_task(self._watch_tokens(), name="web-tokens"),
        ]
        scheme = "http" if self._table.certificate is None else "https"
        log.info("the page is at %s://%s:%d/", scheme, self._table.address, self.port)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Tasks that live as long as the server; one that ends is a fault of ours."""
        return self._tasks

    async def stop(self) -> None:
        """End streams and requests, and let go of everything."""
        self._closing.set()
        self._server.should_exit = True
        server, *others = self._tasks
        await asyncio.wait({server}, timeout=CLOSE_S + 1)
        for task in [server, *others]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.stop()
        await self._timeline.close()

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._table.address else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self._table.address, self._table.port))
            listening.listen(128)
        except OSError as error:
            listening.close()
            where = f"{self._table.address}:{self._table.port}"
            raise DaemonError(f"[web] {where}: {error.strerror}; mend address or port") from error
        listening.setblocking(False)  # the socket module's own way
        self.port = listening.getsockname()[1]
        return listening

    async def _connected(self) -> None:
        return

    def _heard(self, message: Message) -> None:
        if self._asker.heard(message.topic, message.payload):
            return
        if not message.retain:
            for change in self._strangers.feed(message.topic, message.payload, datetime.now(UTC)):
                self._live.tell(change)
        for change in self._mirror.feed(message.topic, message.payload):
            if change.kind == "event":
                self._timeline.add(Event.model_validate(change.document, strict=False))
            self._metrics.saw(change, _times(change))
            self._live.tell(change)

    # --- tokens ----------------------------------------------------------------------------------------------

    async def _watch_tokens(self) -> None:
        while True:
            await asyncio.sleep(TOKENS_EVERY_S)
            await self._read_tokens(first=False)

    async def _read_tokens(self, *, first: bool) -> None:
        path = self._table.tokens
        try:
            found = await asyncio.to_thread(_tokens_of, path, self._tokens_read)
        except (OSError, TokensError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            if first and not (self._table.anonymous and isinstance(error, FileNotFoundError)):
                raise DaemonError(f"[web] tokens: {path}: {why}; make one with 'boardhand token add'") from error
            if not first and self._tokens_read is not None:
                log.error("%s: %s; nobody is let in until that is mended", path, why)  # noqa: TRY400
                self._tokens_read = None
                self._door.change({})
            return
        if found is not None:
            self._tokens_read, people = found
            self._door.change(people)


def _tokens_of(path: Path, known: tuple[int, int] | None) -> tuple[tuple[int, int], dict[str, Person]] | None:
    """The tokens, where the file has changed since `known`."""
    stat = path.stat()
    stamp = (stat.st_mtime_ns, stat.st_ino)
    return None if stamp == known else (stamp, read_tokens(path.read_text(encoding="utf-8")))


def _times(change: Change) -> tuple[float, float] | None:
    """When a job was handed in and when it began, in seconds."""
    submitted, started = change.document.get("submitted"), change.document.get("started")
    if change.kind != "job" or not isinstance(submitted, str) or not isinstance(started, str):
        return None
    return datetime.fromisoformat(submitted).timestamp(), datetime.fromisoformat(started).timestamp()
