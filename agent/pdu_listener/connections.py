"""Keeps clients that are slow, silent or many from holding the HTTP listener: aiohttp has no limit of its own on
connections, nor on the time until a request's head is whole."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

MAX_CONNECTIONS = 512
"""Every board of a large farm with a request that hangs; far below the usual 1024 open files."""
IDLE_S = 20.0
"""From connecting, or from an answer, until the next request's head is whole."""


class ConnectionGate:
    """Counts the connections of one listener and ends those that ask nothing."""

    def __init__(self, *, most: int = MAX_CONNECTIONS, idle_s: float = IDLE_S) -> None:
        self.most = most
        self.idle_s = idle_s
        self.open: dict[asyncio.BaseTransport, GuardedConnection] = {}

    def guard(self, inner: asyncio.Protocol) -> "GuardedConnection":
        """The protocol to hand to the event loop in the place of `inner`."""
        return GuardedConnection(self, inner)

    @contextmanager
    def busy(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """While a request of this connection is answered it may be silent."""
        connection = None if transport is None else self.open.get(transport)
        if connection is not None:
            connection.rest()
        try:
            yield
        finally:
            if connection is not None:
                connection.expect()


class GuardedConnection(asyncio.Protocol):
    """Hands everything through to the protocol inside, and ends the connection when it is idle too long."""

    def __init__(self, gate: ConnectionGate, inner: asyncio.Protocol) -> None:
        self._gate = gate
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self._gate.open) >= self._gate.most:
            cast("asyncio.Transport", transport).abort()
            return
        self._transport = cast("asyncio.Transport", transport)
        self._gate.open[transport] = self
        self._inner.connection_made(transport)
        self.expect()

    def expect(self) -> None:
        """From now on the client has to say something."""
        self.rest()
        if self._transport is not None:
            self._timer = asyncio.get_running_loop().call_later(self._gate.idle_s, self._transport.abort)

    def rest(self) -> None:
        """The client has said what it wants."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.rest()
        if self._transport is not None:
            self._gate.open.pop(self._transport, None)
            self._transport = None
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
