"""The client's side of a console connection, and the escape of its terminal. No I/O."""

import json
from dataclasses import dataclass, field
from enum import StrEnum

from agent.console.telnet import (
    BINARY,
    DO,
    DONT,
    ECHO,
    IAC,
    MAX_SUBNEGOTIATION,
    OPTION_OWN,
    SB,
    SE,
    SGA,
    WILL,
    WONT,
    escaped,
    own,
)

ESCAPE = 0x1D
"""Ctrl-], as telnet and telnet's heirs have it."""


class ConsoleStream:
    """Bytes of the agent in, the board's bytes and the agent's messages out."""

    def __init__(self) -> None:
        self._left = b""
        self._out = bytearray([IAC, WILL, OPTION_OWN])
        self.messages: list[dict[str, object]] = []
        """What the agent said of itself; to be taken away by whoever reads it."""

    def take(self) -> bytes:
        """What is to be sent."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def typed(self, data: bytes) -> None:
        """Send `data` to the board."""
        self._out += escaped(data)

    def say(self, message: dict[str, object]) -> None:
        """Send a message to the agent."""
        self._out += own(message)

    def feed(self, data: bytes) -> bytes:
        """Take what came; returns the board's part of it."""
        data = self._left + data
        self._left = b""
        found = bytearray()
        at = 0
        while (command := data.find(b"\xff", at)) >= 0:
            found += data[at:command]
            end = self._command(data, command, found)
            if end is None:
                self._left = data[command:]
                return bytes(found)
            at = end
        return bytes(found + data[at:])

    def _command(self, data: bytes, at: int, found: bytearray) -> int | None:
        """One command at `at`; returns where it ends, None where it has not."""
        if len(data) < at + 2:
            return None
        verb = data[at + 1]
        if verb == IAC:
            found.append(IAC)
            return at + 2
        if verb == SB:
            return self._subnegotiation(data, at)
        if verb not in {DO, DONT, WILL, WONT}:
            return at + 2
        if len(data) < at + 3:
            return None
        self._negotiate(verb, data[at + 2])
        return at + 3

    def _subnegotiation(self, data: bytes, at: int) -> int | None:
        # What the agent sends is ASCII: there is no escaped 255 before the end.
        end = data.find(bytes([IAC, SE]), at)
        if end < 0:
            return None if len(data) - at <= MAX_SUBNEGOTIATION else len(data)
        self._subnegotiated(data[at + 2 : end])
        return end + 2

    def _negotiate(self, verb: int, option: int) -> None:
        if verb == WILL:
            self._out += bytes([IAC, DO if option in {ECHO, SGA, BINARY} else DONT, option])
        elif verb == DO and option != OPTION_OWN:
            self._out += bytes([IAC, WILL if option in {SGA, BINARY} else WONT, option])

    def _subnegotiated(self, body: bytes) -> None:
        if body[:1] != bytes([OPTION_OWN]):
            return
        try:
            message = json.loads(body[1:])
        except (ValueError, RecursionError):
            return
        if isinstance(message, dict):
            self.messages.append(message)


class Order(StrEnum):
    """What may be said after the escape."""

    LEAVE = "."
    CYCLE = "r"
    BREAK = "b"
    TAKE = "w"
    GIVE = "g"
    STATE = "s"
    HELP = "?"


@dataclass(slots=True)
class Keys:
    """Tells orders from what is typed."""

    escaping: bool = field(default=False)

    def feed(self, data: bytes) -> list[bytes | Order]:
        """What was typed, in order. After the escape an unknown key asks for help."""
        found: list[bytes | Order] = []
        for byte in data:
            if self.escaping:
                self.escaping = False
                if byte == ESCAPE:
                    _join(found, bytes([byte]))
                else:
                    letter = chr(byte)
                    found.append(Order(letter) if letter in set(Order) else Order.HELP)
            elif byte == ESCAPE:
                self.escaping = True
            else:
                _join(found, bytes([byte]))
        return found


def _join(found: list[bytes | Order], data: bytes) -> None:
    if found and isinstance(found[-1], bytes):
        found[-1] += data
    else:
        found.append(data)
