"""A console as a dialogue with a boot loader uses it: the adapter between exchanges and a serial port with a clock."""

import asyncio
import time
from collections.abc import Callable
from typing import Self, TypeVar

from agent.console.console import Console
from agent.console.writer_place import Writer
from firmware_tools.bootloader.exchange import AnyExchange, Exchange, Flow
from firmware_tools.bootloader.pacing import Pace, Pacer

R = TypeVar("R")
FULL_PAUSE_S = 0.05
"""While the port's queue is full, or the port away."""


class TakenError(Exception):
    """Somebody else types on this console; says who."""


class BootloaderLine:
    """One console between `__enter__`, from which on every byte is heard, and `__exit__`."""

    def __init__(
        self, console: Console, writer: Writer, pace: Pace, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._writer = writer
        self._pacer = Pacer(pace)
        self._clock = clock
        self._heard: list[bytes] = []
        self._news = asyncio.Event()

    def __enter__(self) -> Self:
        self._console.attach(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._console.detach(self)
        self._console.leave_place(self._writer)

    def said(self, data: bytes) -> None:
        self._heard.append(data)
        self._news.set()

    def changed(self) -> None:
        self._news.set()

    def take(self) -> None:
        """Take the writer's place from whoever has it.

        Raises:
            TakenError: a lease stands against it.
        """
        why = self._console.take_place(self._writer)
        if why is not None:
            raise TakenError(why)

    def forget(self) -> None:
        """What was heard until now was of the boot before."""
        self._heard.clear()

    def wake(self) -> None:
        """Something about the exchange changed from outside."""
        self._news.set()

    async def carry_out(self, exchange: Exchange[R]) -> R:
        """Have one exchange to its end.

        Raises:
            TakenError: somebody else types here now.
        """
        pacer = self._pacer
        pacer.clear()
        pacer.put(exchange.begin(self._clock()))
        while (result := exchange.result) is None:
            self._type(pacer)
            await self._until(exchange, pacer)
            now = self._clock()
            if self._heard:
                data = b"".join(self._heard)
                self._heard.clear()
                pacer.heard(data)
                pacer.put(exchange.received(data, now))
            if exchange.is_due(now):
                pacer.put(exchange.tick(now))
        return result

    async def follow(self, flow: Flow[R], told: Callable[[AnyExchange], None] = lambda _: None) -> R:
        """Have a whole flow to its end; `told` hears of each exchange before it begins.

        Raises:
            DialogueError: as the flow.
            TakenError: somebody else types here now.
        """
        try:
            exchange = next(flow)
            while True:
                told(exchange)
                exchange = flow.send(await self.carry_out(exchange))
        except StopIteration as end:
            result: R = end.value
            return result

    def _type(self, pacer: Pacer) -> None:
        port = self._console.port
        while not port.is_full and (typed := pacer.due(self._clock())):
            why = self._console.type(self._writer, typed)
            # A UART goes with its board's power: a key that is lost with it was for nobody.
            if why is not None and port.state.is_open:
                raise TakenError(why)

    async def _until(self, exchange: AnyExchange, pacer: Pacer) -> None:
        if self._heard:
            return
        times = [at for at in (exchange.wake_at, pacer.wake_at) if at is not None]
        now = self._clock()
        wait_s = max(0.0, min(times) - now) if times else None
        if self._console.port.is_full and not pacer.is_empty:
            wait_s = FULL_PAUSE_S if wait_s is None else max(wait_s, FULL_PAUSE_S)
        self._news.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        except TimeoutError:
            return
