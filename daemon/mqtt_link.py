"""The connection to the MQTT server: paho-mqtt on its own thread, asyncio on ours.

paho's traps that this module closes (facts/mqtt.md, section 2): an exception in a callback kills its thread, so
callbacks only hand over to the event loop; a publish while disconnected is queued behind our back and may be sent
twice, so we refuse it; its reconnect has no jitter, so we reconnect ourselves; MQTT 3.1.1 acknowledges what an ACL
drops, so version 5 is asked for first and its reason codes are read.
"""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from daemon.mqtt_discovery import Endpoint, SrvLookup
from daemon.mqtt_settings import MqttSettings

log = logging.getLogger(__name__)

RECONNECT_FIRST_S = 0.2
RECONNECT_MAX_S = 15.0
"""A lab of 200 agents must not hit a restarted server at once (facts: 200 connects in flight fill its backlog), and a
person who restarted it does not want to wait longer than this."""
ACK_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 3.0
REFUSED_FROM = 0x80
"""MQTT 5, section 2.4: reason codes from 0x80 on are failures."""
UNSUPPORTED_VERSION = {0x84, 0x01}
"""MQTT 5's code and MQTT 3.1.1's for "unacceptable protocol version"."""


class LinkError(Exception):
    """A message did not reach the MQTT server."""


class NotConnectedError(LinkError):
    """There is no connection, or it broke before the server acknowledged; send it again after the next connect."""


class PublishRefusedError(LinkError):
    """The server will not take this message from us; sending it again will not help."""


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    retain: bool


@dataclass(frozen=True, slots=True)
class Will:
    """What the server says for us when we are gone without a word: QoS 1, retained."""

    topic: str
    payload: bytes


def _send_at_once(_client: paho.Client, _data: object, connection: object) -> None:
    """Without this, Nagle's algorithm and delayed acknowledgements hold every answer for 40 ms (measured)."""
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class MqttLink:
    """One connection, kept up for ever. All methods are for the event loop's thread."""

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        *,
        will: Will | None,
        subscriptions: Sequence[str],
        on_message: Callable[[Message], None],
        on_connect: Callable[[], Awaitable[None]],
        on_disconnect: Callable[[str], None] | None = None,
        lookup: SrvLookup | None = None,
    ) -> None:
        """Nothing is opened yet.

        `on_message` is called in the event loop for each message and must not block. `on_connect` is awaited after
        the subscriptions were acknowledged, at each connect and reconnect. `on_disconnect` is told the reason when a
        connection ended or could not be made. `lookup` asks DNS for `mqtt+srv`, the system's resolver when absent.
        """
        self._settings = settings
        self._client_id = client_id
        self._will = will
        self._subscriptions = list(subscriptions)
        self._on_message = on_message
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._lookup = lookup
        self._version = MQTTProtocolVersion.MQTTv5
        self._client: paho.Client | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._acks: dict[int, asyncio.Future[None]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: asyncio.Future[ReasonCode] | None = None
        self._subscribed: asyncio.Future[list[ReasonCode]] | None = None

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    async def start(self) -> None:
        """Begin to connect, in the background and for ever; returns at once."""
        self._loop = asyncio.get_running_loop()
        self._keeper = asyncio.create_task(self._keep_connected(), name=f"mqtt-{self._client_id}")

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait until there is a connection.

        Raises:
            TimeoutError: there was none in `timeout_s`.
        """
        async with asyncio.timeout(timeout_s):
            await self._connected.wait()

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1, timeout_s: float = ACK_TIMEOUT_S
    ) -> None:
        """Publish, and return when the server acknowledged it (QoS 1) or when it was handed to the socket (QoS 0).

        Raises:
            NotConnectedError: no connection, or it ended or stayed silent before the acknowledgement.
            PublishRefusedError: the server refused this message (MQTT 5 only).
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.hand_over(topic, payload, retain=retain, qos=qos)
        except TimeoutError:
            raise NotConnectedError(f"{topic}: no acknowledgement in {timeout_s:g} s") from None

    def hand_over(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> asyncio.Future[None]:
        """Publish in the order of the calls, without a wait. The future ends, and both raise, as `publish` does; how
        long it is waited for is the caller's business."""
        client = self._client
        if client is None or self._loop is None or not self.connected:
            raise NotConnectedError(f"{topic}: no connection to the MQTT server {self._settings.url}")
        info = client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise NotConnectedError(f"{topic}: {paho.error_string(info.rc)}")
        # The acknowledgement is posted to this loop by paho's thread, so it cannot run before we are done here.
        future: asyncio.Future[None] = self._loop.create_future()
        if qos == 0:
            future.set_result(None)
        else:
            self._acks[info.mid] = future
        return future

    async def stop(self, last_words: Sequence[Message] = ()) -> None:
        """Publish `last_words` where there is a connection, disconnect cleanly (no will), and end."""
        if self._keeper is None:
            return
        if self.connected:
            for words in last_words:
                try:
                    await self.publish(words.topic, words.payload, retain=words.retain, timeout_s=STOP_TIMEOUT_S)
                except LinkError as error:
                    log.warning("not said before the end: %s", error)
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        self._keeper = None

    # --- keeping the connection ------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        delay_s = RECONNECT_FIRST_S
        while True:
            client = None
            try:
                client = await self._connect()
                delay_s = RECONNECT_FIRST_S
                await self._serve()
                reason = "connection lost"
            except (OSError, ValueError, LinkError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            finally:
                await self._drop(client or self._client)
            log.info("MQTT server %s: %s; again in about %.1f s", self._settings.url, reason, delay_s)
            if self._on_disconnect is not None:
                self._on_disconnect(reason)
            await asyncio.sleep(delay_s * (0.5 + random.random()))
            delay_s = min(delay_s * 2, RECONNECT_MAX_S)

    async def _serve(self) -> None:
        """Run the owner's on_connect while the connection stands; return when it is lost."""
        self._connected.set()
        hello: asyncio.Task[None] = asyncio.ensure_future(self._greet())
        lost = asyncio.create_task(self._lost.wait(), name="mqtt-lost")
        try:
            await asyncio.wait({hello, lost}, return_when=asyncio.FIRST_COMPLETED)
            if hello.done():
                hello.result()
                await lost
        finally:
            for task in (hello, lost):
                task.cancel()
            await asyncio.gather(hello, lost, return_exceptions=True)

    async def _greet(self) -> None:
        try:
            await self._on_connect()
        except LinkError as error:
            log.info("the connection went away while republishing: %s", error)

    async def _connect(self) -> paho.Client:
        """Connect to the first server that takes us; DNS is asked anew each time."""
        endpoints = await asyncio.to_thread(self._settings.endpoints, self._lookup)
        for endpoint in endpoints[:-1]:
            try:
                return await self._connect_to(endpoint)
            except (OSError, ValueError, LinkError, TimeoutError) as error:
                why = str(error) or type(error).__name__
                log.info("MQTT server %s:%d: %s; trying the next one", endpoint.host, endpoint.port, why)
            await self._drop(self._client)
        return await self._connect_to(endpoints[-1])

    async def _connect_to(self, endpoint: Endpoint) -> paho.Client:
        loop = asyncio.get_running_loop()
        self._lost.clear()
        self._opened = loop.create_future()
        self._subscribed = None
        client = await asyncio.to_thread(self._build, endpoint)
        self._client = client
        client.loop_start()
        async with asyncio.timeout(ACK_TIMEOUT_S):
            code = await self._opened
        if code.is_failure:
            if code.value in UNSUPPORTED_VERSION and self._version == MQTTProtocolVersion.MQTTv5:
                self._version = MQTTProtocolVersion.MQTTv311
                raise LinkError("the server knows no MQTT 5; using 3.1.1 from now on")
            raise LinkError(f"refused: {code}")
        asked: list[str] = []
        while missing := [topic for topic in self._subscriptions if topic not in set(asked)]:
            await self._subscribe(client, missing)  # others may be wanted meanwhile
            asked += missing
        return client

    async def _subscribe(self, client: paho.Client, topics: Sequence[str]) -> None:
        self._subscribed = asyncio.get_running_loop().create_future()
        rc, _mid = client.subscribe([(topic, 1) for topic in topics])
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkError(f"cannot subscribe: {paho.error_string(rc)}")
        async with asyncio.timeout(ACK_TIMEOUT_S):
            answers = await self._subscribed
        for topic, answer in zip(topics, answers, strict=False):
            if answer.value >= REFUSED_FROM:
                log.error("the MQTT server refuses the subscription to %s (%s): check its ACL", topic, answer)

    async def listen_to(self, topics: Sequence[str]) -> None:
        """Subscribe to these topics, and to no others, from now on: on the same connection where there is one."""
        before, self._subscriptions = set(self._subscriptions), list(topics)
        if (client := self._client) is None or not self.connected:  # the next connection begins with them
            return
        try:
            if gone := before.difference(topics):
                client.unsubscribe(sorted(gone))
            if new := [topic for topic in topics if topic not in before]:
                await self._subscribe(client, new)
        except (LinkError, TimeoutError) as error:
            log.warning("not all subscriptions are acknowledged (%s): connecting anew", error)
            self._lost.set()

    def _build(self, endpoint: Endpoint) -> paho.Client:
        settings = self._settings
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=self._version,
            clean_session=True if self._version != MQTTProtocolVersion.MQTTv5 else None,
            reconnect_on_failure=False,
        )
        client.suppress_exceptions = True
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.read_password())
        context = settings.tls_context(tls=endpoint.tls)
        if context is not None:
            client.tls_set_context(context)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=True)
        client.on_socket_open = _send_at_once
        client.on_connect = self._paho_connected
        client.on_disconnect = self._paho_disconnected
        client.on_subscribe = self._paho_subscribed
        client.on_publish = self._paho_published
        client.on_message = self._paho_message
        client.connect_timeout = ACK_TIMEOUT_S
        self._client = client
        if self._version == MQTTProtocolVersion.MQTTv5:
            client.connect(endpoint.host, endpoint.port, keepalive=settings.keepalive_s, clean_start=True)
        else:
            client.connect(endpoint.host, endpoint.port, keepalive=settings.keepalive_s)
        return client

    async def _drop(self, client: paho.Client | None) -> None:
        self._connected.clear()
        self._client = None
        for future in self._acks.values():
            if not future.done():
                future.set_exception(NotConnectedError("the connection ended before the acknowledgement"))
        self._acks.clear()
        if client is None:
            return

        def end() -> None:
            client.disconnect()
            client.loop_stop()

        await asyncio.shield(asyncio.to_thread(end))

    # --- paho's thread: only hands over ----------------------------------------------------------------------

    def _post(self, work: Callable[..., None], *args: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            # RuntimeError: the loop closed between the check and the call; nobody is left to be told.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(work, *args)

    def _paho_connected(
        self, client: paho.Client, _data: object, _flags: object, code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._post(self._opened_with, client, code)

    def _paho_disconnected(
        self, client: paho.Client, _data: object, _flags: object, code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._post(self._lost_with, client, code)

    def _paho_subscribed(
        self, client: paho.Client, _data: object, _mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._post(self._subscribed_with, client, codes)

    def _paho_published(
        self, client: paho.Client, _data: object, mid: int, code: ReasonCode, _properties: Properties | None
    ) -> None:
        self._post(self._acknowledged, client, mid, code)

    def _paho_message(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._post(self._received, client, Message(topic, bytes(message.payload), message.retain))

    # --- back in the event loop ------------------------------------------------------------------------------

    def _opened_with(self, client: paho.Client, code: ReasonCode) -> None:
        if client is self._client and self._opened is not None and not self._opened.done():
            self._opened.set_result(code)

    def _lost_with(self, client: paho.Client, code: ReasonCode) -> None:
        if client is not self._client:
            return
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(LinkError(f"the connection ended before it was accepted: {code}"))
        self._connected.clear()
        self._lost.set()

    def _subscribed_with(self, client: paho.Client, codes: list[ReasonCode]) -> None:
        if client is self._client and self._subscribed is not None and not self._subscribed.done():
            self._subscribed.set_result(codes)

    def _acknowledged(self, client: paho.Client, mid: int, code: ReasonCode) -> None:
        future = self._acks.pop(mid, None) if client is self._client else None
        if future is None or future.done():
            return
        if code.value >= REFUSED_FROM:
            future.set_exception(PublishRefusedError(f"the MQTT server refused the message: {code}; check its ACL"))
        else:
            future.set_result(None)

    def _received(self, client: paho.Client, message: Message) -> None:
        if client is not self._client:
            return
        try:
            self._on_message(message)
        except Exception:
            # Nothing received may stop an agent: the fault is ours, is shown whole, and costs this one message.
            log.exception("a message on %s was not understood by our own code", message.topic)
