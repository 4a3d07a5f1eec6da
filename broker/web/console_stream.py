"""A console's bytes between its agent and a browser: a telnet filter, and a bounded queue. No I/O.

The agent's side is docs/consoles.md: telnet (RFC 854) with an option of boardhand's own that carries JSON. A browser
gets the board's bytes as binary messages and everything else as JSON in text messages.
"""

import json
from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BINARY, ECHO, SGA = 0, 1, 3
OPTION_OWN = 176
"""As in the agent: IANA has given out none from 141 to 254."""
MAX_COMMAND_BYTES = 4096
"""Of a subnegotiation; the rest of a longer one is taken for the board's bytes."""

MOST_WAITING_BYTES = 1 << 20
"""For one browser. What does not fit is dropped whole: half a screen of a flood helps nobody."""
MOST_NOTES = 100
"""Waiting for one browser; an agent that remarks without end does not fill the broker's memory."""
MOST_AHEAD_BYTES = 512 * 1024
"""Beyond what the browser says it has shown. TCP does not tell: browsers take in more than they can draw."""
PIECE_BYTES = 32 * 1024
Message = dict[str, object]


class NoConsoleError(Exception):
    """There is no way to the console; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an agent serves a console: a UNIX socket of this host, or a host and port."""

    path: str | None = None
    host: str = ""
    port: int = 0


def address_of(board: str, told: str | None) -> Address:
    """The address in a board's info.

    Raises:
        NoConsoleError: the board has no console, or none that can be reached from here.
    """
    if not told:
        raise NoConsoleError(f"board {board} has no console: set one in [boards.{board}.console] of its agent")
    if told.startswith("unix:/"):
        path = told.removeprefix("unix:")
        # An agent's word is no reason to speak to any other socket of this host.
        if not path.endswith(f"/consoles/{board}.sock") or "/../" in path:
            raise NoConsoleError(f"board {board}: {told} is no console of an agent")
        return Address(path=path)
    try:
        url = urlsplit(told)
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if not told.startswith("telnet://") or not host or not port:
        raise NoConsoleError(f"board {board}: its console is not served; {advice(board)}")
    return Address(host=host, port=port)


def advice(board: str) -> str:
    """What makes a console reachable from another host."""
    return f"set telnet_port in [boards.{board}.console] and listen in [consoles] of its agent's settings"


class AgentStream:
    """Our side of a console's connection: its bytes in, the board's bytes and the agent's messages out."""

    def __init__(self) -> None:
        self._left = b""
        self._out = bytearray([IAC, WILL, OPTION_OWN])

    def take(self) -> bytes:
        """What is to be sent."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def typed(self, data: bytes) -> None:
        """Send `data` to the board."""
        self._out += data.replace(b"\xff", b"\xff\xff")

    def say(self, message: Message) -> None:
        """Send a message to the agent."""
        self._out += bytes([IAC, SB, OPTION_OWN]) + json.dumps(message).encode() + bytes([IAC, SE])

    def feed(self, data: bytes) -> list[bytes | Message]:
        """Take what came; returns what the board and the agent said, in order."""
        data = self._left + data
        self._left = b""
        found: list[bytes | Message] = []
        said = bytearray()
        at = 0
        while (command := data.find(b"\xff", at)) >= 0:
            said += data[at:command]
            end, message = self._command(data, command, said)
            if end is None:
                self._left = data[command:]
                at = len(data)
                break
            if message is not None:
                if said:
                    found.append(bytes(said))
                    said = bytearray()
                found.append(message)
            at = end
        said += data[at:]
        if said:
            found.append(bytes(said))
        return found

    def _command(self, data: bytes, at: int, said: bytearray) -> tuple[int | None, Message | None]:
        """One command at `at`: where it ends, None where it has not yet, and the agent's message in it."""
        verb = data[at + 1] if len(data) > at + 1 else None
        if verb == IAC:
            said.append(IAC)
        if verb == SB:
            return _subnegotiation(data, at)
        if verb in {DO, DONT, WILL, WONT}:
            if len(data) < at + 3:
                return None, None
            self._negotiate(verb, data[at + 2])
            return at + 3, None
        return (None if verb is None else at + 2), None

    def _negotiate(self, verb: int, option: int) -> None:
        if verb == WILL:
            self._out += bytes([IAC, DO if option in {ECHO, SGA, BINARY} else DONT, option])
        elif verb == DO and option != OPTION_OWN:
            self._out += bytes([IAC, WILL if option in {SGA, BINARY} else WONT, option])


def _subnegotiation(data: bytes, at: int) -> tuple[int | None, Message | None]:
    # What the agent sends is ASCII: there is no escaped 255 before the end.
    end = data.find(bytes([IAC, SE]), at + 2)
    if end >= 0:
        return end + 2, _message(data[at + 2 : end])
    return (None if len(data) - at <= MAX_COMMAND_BYTES else at + 2), None


def _message(body: bytes) -> Message | None:
    if body[:1] != bytes([OPTION_OWN]):
        return None
    try:
        message = json.loads(body[1:])
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def text_of(message: Message) -> str:
    """A message as a browser gets it."""
    return json.dumps(message, separators=(",", ":"))


class Outgoing:
    """What waits for one browser. Of states only the last is kept; of the board's bytes what fits."""

    def __init__(self) -> None:
        self._state: Message | None = None
        self._waiting: deque[bytes | Message] = deque()
        self._waiting_bytes = 0
        self._notes = 0
        self._missed_bytes = 0
        self._sent_bytes = 0
        self._seen_bytes: int | None = None
        self.held = True
        """The board's bytes wait: something from before them is still to come, with `begin`."""

    def board_said(self, data: bytes) -> None:
        """The board said `data`."""
        if self._waiting_bytes + len(data) > MOST_WAITING_BYTES:
            self._missed_bytes += self._waiting_bytes + len(data)
            self._waiting = deque(item for item in self._waiting if not isinstance(item, bytes))
            self._waiting_bytes = 0
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)

    def begin(self, recorded: bytes, note: str) -> None:
        """Show what was recorded, and go on with what the board has said since; `note` stands between."""
        if recorded:
            self._waiting.extendleft([{"note": note}, recorded])
            self._notes += 1
            self._waiting_bytes += len(recorded)
        self.held = False

    def note(self, text: str) -> None:
        """Tell a person something, in its place among the board's words."""
        if self._notes < MOST_NOTES:
            self._notes += 1
            self._waiting.append({"note": text})

    def refuse(self, text: str) -> None:
        """Tell why something that was asked for is not done."""
        if self._notes < MOST_NOTES:
            self._notes += 1
            self._waiting.append({"refused": text})

    def state(self, state: Message) -> None:
        """How things are now; what was said of it before and is not sent is forgotten."""
        self._state = {"state": state}

    def seen(self, count: int) -> None:
        """The browser has shown so many bytes in all. From the first such word on, no more than `MOST_AHEAD_BYTES` are
        sent beyond it."""
        if 0 <= count <= self._sent_bytes:
            self._seen_bytes = max(count, self._seen_bytes or 0)

    def next(self) -> bytes | str | None:
        """What is to be sent now: bytes of the board, or JSON; None where nothing may be."""
        if self._state is not None:
            state, self._state = self._state, None
            return text_of(state)
        if self.held:
            return None
        if self._missed_bytes and self._room():
            missed, self._missed_bytes = self._missed_bytes, 0
            return text_of({"note": f"{missed} bytes are not shown: the board says more than this browser can show"})
        if not self._waiting:
            return None
        first = self._waiting[0]
        if not isinstance(first, bytes):
            self._waiting.popleft()
            self._notes -= 1
            return text_of(first)
        room = min(self._room(), PIECE_BYTES)
        return self._piece(room) if room else None

    def _room(self) -> int:
        ahead = 0 if self._seen_bytes is None else self._sent_bytes - self._seen_bytes
        return max(0, MOST_AHEAD_BYTES - ahead)

    def _piece(self, most: int) -> bytes:
        piece = bytearray()
        while self._waiting and len(piece) < most:
            first = self._waiting[0]
            if not isinstance(first, bytes):
                break
            part = first[: most - len(piece)]
            piece += part
            if len(part) == len(first):
                self._waiting.popleft()
            else:
                self._waiting[0] = first[len(part) :]
        self._waiting_bytes -= len(piece)
        self._sent_bytes += len(piece)
        return bytes(piece)
