"""Keeps clients that are slow, silent or many from holding the HTTP server: aiohttp has no limit of its own on
connections, nor on the time until a request's head is whole."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

OVER_RATE_S = 0.1
"""An answer to a client over its rate waits so long; its connections are few, so it gets some hundred more a second."""


class RequestRate:
    """Which requests have to wait, so that one client that asks without end leaves the event loop to others."""

    def __init__(self, most_per_s: int) -> None:
        self._most_per_s = most_per_s
        self._second = 0
        self._asked: Counter[str] = Counter()

    def delay_s(self, client: str, now: float) -> float:
        """Count a request of this client; returns how long its answer has to wait."""
        if int(now) != self._second:
            self._second = int(now)
            self._asked.clear()
        self._asked[client] += 1
        return OVER_RATE_S if self._asked[client] > self._most_per_s else 0.0


class ConnectionGate:
    """Counts the connections of one listener, in all and by client, and ends those that ask nothing.

    Args:
        most: connections at once.
        most_per_client: of one address.
        most_strangers: of all addresses together that are not `is_known`; an IPv6 host has as many as it likes.
        idle_s: from connecting, or from an answer, until the next request's head is whole.
        on_refusal: called with the address of a client that has too many, and why.
    """

    def __init__(
        self,
        *,
        most: int,
        most_per_client: int,
        most_strangers: int,
        idle_s: float,
        is_known: Callable[[str], bool],
        on_refusal: Callable[[str, str], None],
    ) -> None:
        self.most = most
        self.most_per_client = most_per_client
        self.most_strangers = most_strangers
        self.is_known = is_known
        self.idle_s = idle_s
        self.on_refusal = on_refusal
        self.open: dict[asyncio.BaseTransport, GuardedConnection] = {}
        self.by_client: Counter[str] = Counter()
        self.strangers = 0

    def guard(self, inner: asyncio.Protocol) -> "GuardedConnection":
        """The protocol to hand to the event loop in the place of `inner`."""
        return GuardedConnection(self, inner)

    def objection(self, client: str, *, known: bool) -> str | None:
        """Why one more connection of this client is too many."""
        if len(self.open) >= self.most:
            return f"more than {self.most} connections"
        if self.by_client[client] >= self.most_per_client:
            return f"more than {self.most_per_client} connections of one client"
        if not known and self.strangers >= self.most_strangers:
            return f"more than {self.most_strangers} connections of unknown clients"
        return None

    def enter(self, connection: "GuardedConnection") -> None:
        """A connection was let in."""
        self.open[connection.transport] = connection
        self.by_client[connection.client] += 1
        self.strangers += not connection.known

    def leave(self, connection: "GuardedConnection") -> None:
        """A connection that was let in has ended."""
        del self.open[connection.transport]
        self.by_client[connection.client] -= 1
        self.strangers -= not connection.known
        if not self.by_client[connection.client]:
            del self.by_client[connection.client]

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

    transport: asyncio.Transport
    client: str
    known: bool

    def __init__(self, gate: ConnectionGate, inner: asyncio.Protocol) -> None:
        self._gate = gate
        self._inner = inner
        self._let_in = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or end the connection at once."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if peer else ""  # it may be gone already
        self.known = self._gate.is_known(self.client)
        objection = self._gate.objection(self.client, known=self.known)
        if objection is not None:
            self.transport.abort()
            self._gate.on_refusal(self.client, objection)
            return
        # A drain then means that all is in the kernel; files are sent past the transport after that.
        self.transport.set_write_buffer_limits(high=0)
        self._let_in = True
        self._gate.enter(self)
        self._inner.connection_made(transport)
        self.expect()

    def expect(self) -> None:
        """From now on the client has to say something."""
        self.rest()
        if self._let_in:
            self._timer = asyncio.get_running_loop().call_later(self._gate.idle_s, self.transport.abort)

    def rest(self) -> None:
        """The client has said what it wants."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.rest()
        if self._let_in:
            self._let_in = False
            self._gate.leave(self)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand through."""
        if self._let_in:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand through."""
        return self._inner.eof_received() if self._let_in else None

    def pause_writing(self) -> None:
        """Hand through."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand through."""
        self._inner.resume_writing()
