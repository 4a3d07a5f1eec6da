"""The way out of the lab for MQTT: connections to a socket inside the namespace, carried to the server outside.

The listening socket was made inside (10.77.0.1:1883) and handed over with SCM_RIGHTS; accepting on it works from
any namespace. Inside it is always plain MQTT; outside it may be TLS. Bytes are carried as they are.

A server that is away costs each client a closed connection, never the gateway: clients retry by themselves.
"""

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

from daemon.mqtt_discovery import Endpoint
from daemon.mqtt_settings import MqttSettings

log = logging.getLogger(__name__)

# 200 light boards, an agent and some tools; more is a loop somewhere.
MAX_CONNECTIONS = 512
# A server on the local network answers in milliseconds; boards retry after 5 s.
CONNECT_TIMEOUT_S = 5.0
# One direction ended: the other may still drain for so long before the connection is cut.
HALF_CLOSE_TIMEOUT_S = 30.0
# A peer that takes nothing for so long is gone; MQTT keep-alives are far shorter.
WRITE_TIMEOUT_S = 60.0
_CHUNK_BYTES = 64 * 1024


class Gateway:
    """Relays TCP connections from `listener` to the MQTT server of `settings`."""

    def __init__(
        self,
        settings: MqttSettings,
        listener: socket.socket,
        *,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._max_connections = max_connections
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._tls: ssl.SSLContext | None = None
        self._complained = False

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._tasks)

    async def start(self) -> None:
        """Accept from now on. The listener belongs to the gateway from here.

        Raises:
            OSError: a certificate file of the settings cannot be used.
        """
        self._tls = await asyncio.to_thread(self._settings.tls_context, tls=self._settings.tls or self._settings.by_srv)
        self._listener.setblocking(False)
        self._server = await asyncio.start_server(self._accepted, sock=self._listener)

    async def stop(self) -> None:
        """Close the listener and cut every connection."""
        if self._server is not None:
            self._server.close()
        # One accepted just now may begin only now; and from Python 3.12 on `gather` does not wait a round for those
        # that have ended, and so not for their callback.
        while self._tasks:
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._max_connections:
            log.warning("the lab has %d connections to the MQTT server open; one more is refused", len(self._tasks))
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._relay(reader, writer), name="gateway connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connect()
        if upstream is None:
            writer.transport.abort()
            return
        server_reader, server_writer = upstream
        try:
            await _both_ways((reader, writer), (server_reader, server_writer))
        finally:
            for end in (writer, server_writer):
                end.close()
            for end in (writer, server_writer):
                # Whatever goes wrong while closing, the connection is gone afterwards.
                with suppress(OSError, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await end.wait_closed()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        settings = self._settings
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                pair = await self._first_open(await asyncio.to_thread(settings.endpoints))
        except (OSError, TimeoutError) as error:
            # Said once per outage: two hundred boards retry every few seconds.
            if not self._complained:
                shown = urlsplit(settings.url).netloc
                log.warning("the MQTT server %s cannot be reached from the lab: %s", shown, str(error) or "no answer")
            self._complained = True
            return None
        self._complained = False
        return pair

    async def _first_open(self, endpoints: list[Endpoint]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for endpoint in endpoints:
            tls, name = (self._tls, endpoint.host) if endpoint.tls else (None, None)
            try:
                return await asyncio.open_connection(endpoint.host, endpoint.port, ssl=tls, server_hostname=name)
            except OSError as error:
                refused = error
        raise refused


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _both_ways(inside: _End, outside: _End) -> None:
    """Carry bytes until both directions ended, or one failed, or one drained too long after the other's end."""
    tasks = {
        asyncio.create_task(_carry(inside[0], outside[1]), name="gateway out"),
        asyncio.create_task(_carry(outside[0], inside[1]), name="gateway in"),
    }
    try:
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # A direction that ended whole (True) leaves the other one time to finish; one that broke takes it along.
        if pending and all(task.result() for task in done):
            await asyncio.wait(pending, timeout=HALF_CLOSE_TIMEOUT_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> bool:
    """Carry one direction to its end. True when the end could be passed on alone (half-close)."""
    try:
        while chunk := await source.read(_CHUNK_BYTES):
            target.write(chunk)
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await target.drain()
        if not target.can_write_eof():  # TLS knows no half-close here
            return False
        target.write_eof()
    except (OSError, TimeoutError):  # a reset of either side: nothing more can be carried
        return False
    return True
