"""The board client of a light board: `board.client`'s decisions (`Session`) and MQTT codec on an asyncio connection.

So a light board is, seen from the MQTT server, the same client as a real one. Its steps are not: it has no
operating system, and steps given over MQTT must not run as processes of the host. `light_steps` plays them.
"""

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from board import client
from virtual_lab import light_steps

log = logging.getLogger(__name__)

KEEPALIVE_S = 15
# As board.client's: no answer in so long means that nobody is there.
_ANSWER_TIMEOUT_S = 10.0
_RECEIVE_BYTES = 65536
_NO_ORDER = ""


class LightIdentity(client.Identity):
    """What a light board says of itself; nothing is read from this host."""

    def __init__(self, mac: str, serial: str, boot_id: str) -> None:
        # Not the parent's, on purpose: that one reads files.
        self._booted = time.monotonic()
        self.boot_id = boot_id
        self.mac, self.macs = mac, [mac]
        self.kernel, self.arch = "light", "aarch64"
        self.serial, self.uuid = serial, ""
        self.compatible = ["boardhand,light"]
        self.memory_mb, self.inventory = 1, {}
        self.os = "boardhand light board"

    def uptime_s(self) -> float:
        return round(time.monotonic() - self._booted, 1)


class _Reconnect(Exception):  # noqa: N818  # no error: the session asks for a new connection
    pass


class LightClient:
    """Runs one boot's session. `open_socket` makes a non-blocking TCP socket in the board's network."""

    def __init__(
        self, settings: client.Settings, identity: LightIdentity, open_socket: Callable[[], socket.socket]
    ) -> None:
        self._settings = settings
        self._session = client.Session(settings, identity)
        self._open_socket = open_socket
        self._step: asyncio.Task[None] | None = None
        self._step_job = ""
        self._wake = asyncio.Event()
        self._last_id = 0

    @property
    def busy(self) -> bool:
        """A step runs."""
        return self._step is not None and not self._step.done()

    async def run(self) -> str:
        """Register, work and report until an order to leave. Returns it: `reboot` or `poweroff`."""
        attempt = 0
        try:
            while True:
                began = time.monotonic()
                try:
                    return await self._one_connection()
                except _Reconnect:
                    continue
                except (OSError, EOFError, TimeoutError, client.MqttError) as error:
                    log.debug("%s: connection lost: %s", self._session.board, error)
                self._session.disconnected(time.monotonic())
                attempt = 0 if time.monotonic() - began > client.STABLE_S else attempt + 1
                await asyncio.sleep(client.back_off(attempt, os.urandom(1)[0] / 255))
        finally:
            if self._step is not None:
                self._step.cancel()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["_Wire"]:
        opened = self._open_socket()
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            target = (self._settings.host, self._settings.port)
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(opened, target)
            reader, writer = await asyncio.open_connection(sock=opened)
        except BaseException:
            opened.close()
            raise
        wire = _Wire(reader, writer)
        try:
            yield wire
        except BaseException:
            # Cancelled by power loss, or broken: no FIN may come from a board that is off.
            with suppress(OSError):
                opened = writer.get_extra_info("socket")
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            raise
        else:
            writer.close()
        finally:
            wire.end()

    async def _one_connection(self) -> str:
        session = self._session
        async with self._connection() as wire:
            wire.send(client.encode_connect(session.client_id(), keepalive_s=KEEPALIVE_S, will=session.will()))
            answer = await wire.wait_for(client.CONNACK, 0)
            if answer.codes[1]:
                raise client.MqttError(f"refused: {client.CONNECT_REFUSALS.get(answer.codes[1], answer.codes[1])}")
            number = self._new_id()
            wire.send(client.encode_subscribe(session.subscriptions(), number))
            if max((await wire.wait_for(client.SUBACK, number)).codes) > 1:
                raise client.MqttError("a subscription was refused")
            session.connected(wire.local_address(), time.monotonic())
            order, again = await self._serve(wire)
            wire.send(client.DISCONNECT_BYTES)
        if again:
            raise _Reconnect
        return order

    async def _serve(self, wire: "_Wire") -> tuple[str, bool]:
        """The life of a connection: until an order (returned first), or until a new connection is wanted."""
        order, awaited = _NO_ORDER, 0
        while True:
            for packet in wire.packets():
                if packet.kind == client.PUBACK and packet.packet_id == awaited:
                    self._session.sent()
                    awaited = 0
                elif packet.kind == client.PUBLISH:
                    if packet.qos:
                        wire.send(client.encode_puback(packet.packet_id))
                    received = client.Received(packet.topic, packet.payload, packet.retain)
                    self._session.message(received, time.monotonic())
            self._session.tick(time.monotonic())
            for action in self._session.take_actions():
                if action.kind == "reconnect":
                    return _NO_ORDER, True
                if action.kind == "order":
                    order = action.detail
                self._do(action)
            if not awaited:
                awaited = self._send_next(wire)
            if order and not awaited:
                return order, False
            await wire.wait(self._session.deadline(), self._wake, answer_awaited=bool(awaited))

    def _send_next(self, wire: "_Wire") -> int:
        """Publish what waits first; returns the packet id whose acknowledgement is awaited, 0 for nothing."""
        message = self._session.outgoing()
        if message is None:
            return 0
        number = self._new_id()
        payload = client._json(message.payload)  # noqa: SLF001  # the one place where it is encoded
        wire.send(client.encode_publish(message.topic, payload, qos=1, retain=message.retain, packet_id=number))
        return number

    def _new_id(self) -> int:
        self._last_id = self._last_id % 65535 + 1
        return self._last_id

    def _do(self, action: client.Action) -> None:
        if action.kind == "start":
            self._step = asyncio.create_task(self._run_step(action.step), name="light step")
        elif action.kind == "collect":
            self._collect(action.step)
        elif action.kind == "kill" and self._step is not None:
            self._step.cancel()
        elif action.kind == "say":
            log.debug("%s: %s", self._session.board, action.detail)

    def _collect(self, wish: dict[str, object]) -> None:
        """A light board has no files; it says so of each pattern."""
        paths = wish.get("paths")
        for n, path in enumerate(paths if isinstance(paths, list) else []):
            said = {"n": n, "name": str(path), "offset": 0, "data": "", "problem": "a light board has no files"}
            self._session.artifact(said, time.monotonic())
        self._session.artifact(None, time.monotonic())
        self._wake.set()

    async def _run_step(self, step: dict[str, object]) -> None:
        began = time.monotonic()
        timeout_s = float(str(step.get("timeout_s", 600)))
        code: int | None = None
        problem = ""
        try:
            async with asyncio.timeout(timeout_s):
                code = await light_steps.play(str(step["run"]), self._output)
        except TimeoutError:
            problem = f"timed out after {timeout_s:g} s"
        except asyncio.CancelledError:
            problem = "killed"
        now = time.monotonic()
        self._session.step_ended(code, problem, now - began, now)
        self._wake.set()

    def _output(self, text: str) -> None:
        self._session.output(text.encode(), time.monotonic())
        self._wake.set()


class _Wire:
    """One MQTT connection: packets in, bytes out, and the keep-alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = client.PacketReader()
        self._sent_at = self._heard_at = time.monotonic()
        self._asked_at: float | None = None
        self._reading: asyncio.Task[bytes] | None = None

    def end(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()

    def local_address(self) -> str:
        return str(self._writer.get_extra_info("sockname")[0])

    def send(self, data: bytes) -> None:
        # What is sent is small and each message waits for its acknowledgement, so the buffer stays small.
        self._writer.write(data)
        self._sent_at = time.monotonic()

    def packets(self) -> list[client.Packet]:
        """The packets that have arrived whole.

        Raises:
            MqttError: nonsense arrived.
        """
        found = []
        while (packet := self._parser.next()) is not None:
            found.append(packet)
        return found

    async def wait_for(self, kind: int, number: int) -> client.Packet:
        """The answer to what was just sent. Nothing else can arrive before it but what is not ours to lose: a
        message that comes between SUBSCRIBE and SUBACK is sent again by QoS 1 as it was not acknowledged.

        Raises:
            TimeoutError, EOFError, OSError, MqttError: no such answer.
        """
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            while True:
                packet = self._parser.next()
                if packet is not None and (packet.kind, packet.packet_id) == (kind, number):
                    return packet
                if packet is None:
                    await self._read()

    async def _read(self) -> None:
        data = await self._reader.read(_RECEIVE_BYTES)
        if not data:
            raise EOFError("the MQTT server closed the connection")
        self._take(data)

    def _take(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        self._asked_at = None
        self._parser.feed(data)

    async def wait(self, deadline: float | None, wake: asyncio.Event, *, answer_awaited: bool) -> None:
        """Wait until bytes arrived, `wake` is set, or `deadline` (monotonic seconds) has come.

        Raises:
            TimeoutError: an awaited answer did not come. EOFError, OSError: the server is gone.
        """
        now = time.monotonic()
        if self._asked_at is None and now - self._sent_at >= KEEPALIVE_S / 2:
            self.send(client.PINGREQ_BYTES)
            self._asked_at = now
        waits = [self._sent_at + KEEPALIVE_S / 2]
        if self._asked_at is not None:
            waits = [self._asked_at + _ANSWER_TIMEOUT_S]
        if answer_awaited:
            waits.append(max(self._sent_at, self._heard_at) + _ANSWER_TIMEOUT_S)
        if now >= waits[-1] and (answer_awaited or self._asked_at is not None):
            raise TimeoutError("the MQTT server does not answer")
        if deadline is not None:
            waits.append(deadline)
        if self._reading is None:
            self._reading = asyncio.create_task(self._reader.read(_RECEIVE_BYTES), name="light receive")
        woken = asyncio.create_task(wake.wait(), name="light wake")
        try:
            await asyncio.wait(
                {self._reading, woken}, timeout=max(0.0, min(waits) - now), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            woken.cancel()
        wake.clear()
        if self._reading.done():
            data = self._reading.result()
            self._reading = None
            if not data:
                raise EOFError("the MQTT server closed the connection")
            self._take(data)
