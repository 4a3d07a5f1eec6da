"""How fast a boot loader can be typed to: a UART of 16 bytes that is polled now and then loses what comes faster."""

from collections import deque
from dataclasses import dataclass

ECHO_PATIENCE_S = 0.2
"""For the echo of one character, where echoes are waited for; one that does not come is given up."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How one board is typed to.

    Attributes:
        char_s: between two characters, in seconds.
        line_s: after the end of a line, beside that.
        echo: wait for the echo of each character before the next.
    """

    char_s: float = 0.0
    line_s: float = 0.0
    echo: bool = False

    @property
    def is_immediate(self) -> bool:
        """Whether everything may go at once."""
        return not (self.char_s or self.line_s or self.echo)

    def takes_s(self, text: bytes) -> float:
        """How long typing `text` takes at most."""
        each_s = max(self.char_s, ECHO_PATIENCE_S) if self.echo else self.char_s
        return each_s * len(text) + self.line_s * text.count(b"\r")


class Pacer:
    """Lets out what is to be typed, character by character."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waiting: deque[int] = deque()
        self._next_s = float("-inf")
        self._echo: int | None = None

    def put(self, text: bytes) -> None:
        """Have `text` typed after what waits."""
        self._waiting.extend(text)

    def clear(self) -> None:
        """What waits is not to be typed any more; the pause after what was typed holds."""
        self._waiting.clear()

    def heard(self, data: bytes) -> None:
        """The board said `data`; the echo that is waited for may be in it."""
        if self._echo is not None and self._echo in data:
            self._echo = None
            self._next_s = float("-inf") if not self._pace.char_s else self._next_s - ECHO_PATIENCE_S

    def due(self, now: float) -> bytes:
        """What is to be sent at `now`, seconds, monotonic."""
        if self._pace.is_immediate:
            text = bytes(self._waiting)
            self._waiting.clear()
            return text
        if not self._waiting or now < self._next_s:
            return b""
        letter = self._waiting.popleft()
        is_end = letter == 0x0D
        pause_s = self._pace.char_s + (self._pace.line_s if is_end else 0.0)
        self._echo = None
        if self._pace.echo and 0x20 <= letter < 0x7F:
            self._echo = letter
            pause_s += ECHO_PATIENCE_S
        self._next_s = now + pause_s
        return bytes([letter])

    @property
    def wake_at(self) -> float | None:
        """When `due` has something; None while nothing waits."""
        return self._next_s if self._waiting else None

    @property
    def is_empty(self) -> bool:
        return not self._waiting
