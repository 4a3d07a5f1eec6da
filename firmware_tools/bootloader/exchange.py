"""One thing said to a boot loader, and answered: what all exchanges have in common, and what a flow of them is."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any, Generic, TypeAlias, TypeVar

from firmware_tools.bootloader.console_text import ConsoleText

R = TypeVar("R")

END_OF_LINE = b"\r"
INTERRUPT = b"\x03"
"""Ctrl-C: ends a command, a transfer, a half-typed line, and any countdown that any key ends."""


class Exchange(ABC, Generic[R]):
    """Begin it, give it what the board says and wake it in time, until it has a `result`. Times are monotonic seconds.

    Each call returns what is to be typed. The driver calls `tick` when `wake_at` has come.
    """

    stage: str = "dialogue"
    """For people: what goes on."""

    def __init__(self) -> None:
        self.text = ConsoleText()
        self.result: R | None = None
        self.wake_at: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether `tick` is to be called."""
        return self.result is None and self.wake_at is not None and now >= self.wake_at

    @abstractmethod
    def begin(self, now: float) -> bytes:
        """The exchange begins."""

    @abstractmethod
    def received(self, data: bytes, now: float) -> bytes:
        """The board said `data`."""

    @abstractmethod
    def tick(self, now: float) -> bytes:
        """`wake_at` has come."""


AnyExchange: TypeAlias = Exchange[Any]
Flow: TypeAlias = Generator[AnyExchange, Any, R]
"""Yields exchanges, is sent the result of each, and returns what came of all."""
