"""The server's side of one telnet connection with RFC 2217: bytes in, events out, answers to take. No I/O.

RFC 854 (telnet), 855 (options), 856 (binary), 857 (echo), 858 (suppress go-ahead), 1143 (answer changes only, so that
two sides cannot loop), 2217 (COM-PORT-OPTION). `OPTION_OWN` carries JSON between `boardhand console` and the agent; it
is never offered, so other clients never see it.
"""

import json
import struct
from dataclasses import dataclass
from enum import Enum, StrEnum

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BRK = 243
BINARY, ECHO, SGA, COM_PORT = 0, 1, 3, 44
OPTION_OWN = 176
"""IANA has given out none from 141 to 254."""

MAX_SUBNEGOTIATION = 1024
"""Longer ones are dropped: a port that is sent noise keeps no memory of it."""
SERVER_ANSWER = 100
"""RFC 2217 section 3: the answer to command n is n + 100."""
SIGNATURE = b"boardhand"
MODEM_STATE = 0xB0
"""Carrier, data set ready and clear to send (RFC 2217 section 3, NOTIFY-MODEMSTATE): there is always somebody to
write to, also while the board's power is off."""
_BINARY = bytes([BINARY])


class _State(Enum):
    DATA = "data"
    IAC = "iac"
    OPTION = "option"
    SUB = "sub"
    SUB_IAC = "sub-iac"


class Setting(StrEnum):
    """What a client may want of the line."""

    SPEED = "speed"
    BREAK = "break"
    """1 begins a break, 0 ends it."""
    DTR = "dtr"
    RTS = "rts"


@dataclass(frozen=True, slots=True)
class Typed:
    """Bytes for the board."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """A setting of the line is wanted; it is acknowledged already, whether it is done or not."""

    setting: Setting
    value: int


@dataclass(frozen=True, slots=True)
class Pulse:
    """A break of the usual length is wanted (telnet's BRK)."""


@dataclass(frozen=True, slots=True)
class Own:
    """A message of `boardhand console`."""

    message: dict[str, object]


Event = Typed | Wanted | Pulse | Own

_OURS = frozenset({ECHO, SGA, BINARY, COM_PORT})
"""What we are ready to do. ECHO: the board echoes, so the client need not; with SGA that is character mode."""
_THEIRS = frozenset({SGA, BINARY, COM_PORT, OPTION_OWN})
_CONTROLS = {4: None, 5: (Setting.BREAK, 1), 6: (Setting.BREAK, 0), 8: (Setting.DTR, 1), 9: (Setting.DTR, 0),
             11: (Setting.RTS, 1), 12: (Setting.RTS, 0)}  # fmt: skip
"""RFC 2217 section 3, SET-CONTROL."""
_QUESTIONS = {0: 1, 4: 6, 7: 8, 10: 11, 13: 14}
"""SET-CONTROL's questions with our answers: no flow control, no break, DTR and RTS on, none inbound."""


def escaped(data: bytes) -> bytes:
    """`data` as it is sent within telnet."""
    return data.replace(b"\xff", b"\xff\xff") if b"\xff" in data else data


def own(message: dict[str, object]) -> bytes:
    """A message of our own option, as either side sends it."""
    return bytes([IAC, SB, OPTION_OWN]) + escaped(json.dumps(message).encode()) + bytes([IAC, SE])


class TelnetServer:
    """One connection. `feed` what comes; send what `take` returns before anything else."""

    def __init__(self, speed: int) -> None:
        """`speed` is told to who asks for it, in baud."""
        self._speed = speed
        self._sizes = {2: 8, 3: 1, 4: 1}  # data bits, parity none, stop bits, as RFC 2217 numbers them
        self._state = _State.DATA
        self._verb = 0
        self._sub = bytearray()
        self._after_cr = False
        self.ours = {ECHO, SGA, BINARY}
        self.theirs: set[int] = set()
        self._asked = {SGA, BINARY}
        """Options that we have asked the client for and that it has not answered."""
        self._out = bytearray()
        for option in (ECHO, SGA, BINARY):
            self._out += bytes([IAC, WILL, option])
        for option in (SGA, BINARY):
            self._out += bytes([IAC, DO, option])

    @property
    def is_remote_port(self) -> bool:
        """Whether the client speaks RFC 2217: a program, to which a line of text would be data."""
        return COM_PORT in self.ours or COM_PORT in self.theirs

    @property
    def is_ours(self) -> bool:
        """Whether the client is `boardhand console`."""
        return OPTION_OWN in self.theirs

    def take(self) -> bytes:
        """What is to be sent now."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def feed(self, data: bytes) -> list[Event]:
        """Take what came."""
        events: list[Event] = []
        typed = bytearray()
        at = 0
        while at < len(data):
            if self._state is _State.DATA:
                end = data.find(b"\xff", at)
                end = len(data) if end < 0 else end
                typed += self._typed(data[at:end])
                at = end + 1
                if end < len(data):
                    self._state = _State.IAC
            else:
                event = self._step(data[at], typed)
                if event is not None:
                    if typed:
                        events.append(Typed(bytes(typed)))
                        typed = bytearray()
                    events.append(event)
                at += 1
        if typed:
            events.append(Typed(bytes(typed)))
        return events

    def _typed(self, data: bytes) -> bytes:
        """What was typed, without what RFC 854 puts behind a CR where the client does not send binary."""
        if BINARY in self.theirs:
            self._after_cr = False
            return data
        if self._after_cr and data[:1] in {b"\0", b"\n"}:
            data, self._after_cr = data[1:], False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\r").replace(b"\r\0", b"\r")

    def _step(self, byte: int, typed: bytearray) -> Event | None:
        """One byte of a command."""
        if self._state is _State.IAC:
            return self._command(byte, typed)
        if self._state is _State.OPTION:
            self._state = _State.DATA
            self._negotiate(self._verb, byte)
        elif self._state is _State.SUB:
            if byte == IAC:
                self._state = _State.SUB_IAC
            elif len(self._sub) <= MAX_SUBNEGOTIATION:
                self._sub.append(byte)
        elif byte == SE:
            self._state = _State.DATA
            return self._subnegotiated()
        else:
            # IAC IAC is a 255; anything else is an error of the client's, and its byte counts.
            self._state = _State.SUB
            self._sub.append(byte)
        return None

    def _command(self, byte: int, typed: bytearray) -> Event | None:
        self._state = _State.DATA
        if byte == IAC:
            typed.append(IAC)
            self._after_cr = False
        elif byte in {DO, DONT, WILL, WONT}:
            self._state, self._verb = _State.OPTION, byte
        elif byte == SB:
            self._state, self._sub = _State.SUB, bytearray()
        elif byte == BRK:
            return Pulse()
        return None

    def _negotiate(self, verb: int, option: int) -> None:
        if verb in {DO, DONT}:
            wanted, have, can, yes, no = verb == DO, self.ours, option in _OURS, WILL, WONT
            answered = False
        else:
            wanted, have, can, yes, no = verb == WILL, self.theirs, option in _THEIRS, DO, DONT
            answered = option in self._asked
            self._asked.discard(option)
        if wanted and can:
            if option not in have:
                have.add(option)
                if not answered:
                    self._out += bytes([IAC, yes, option])
                if option == COM_PORT and verb == WILL:
                    # RFC 2217 section 3: told at first without being asked; pyserial waits for it.
                    self._answer(7, bytes([MODEM_STATE]))
        elif wanted:
            self._out += bytes([IAC, no, option])
        elif option in have:
            have.discard(option)
            self._out += bytes([IAC, no, option])

    # --- subnegotiations -----------------------------------------------------------------------------------------

    def _subnegotiated(self) -> Event | None:
        sub = bytes(self._sub)
        self._sub = bytearray()
        if len(sub) > MAX_SUBNEGOTIATION or len(sub) < 2:
            return None
        if sub[0] == OPTION_OWN:
            return _own_message(sub[1:])
        if sub[0] == COM_PORT:
            return self._com_port(sub[1], sub[2:])
        return None

    def _answer(self, command: int, value: bytes) -> None:
        body = escaped(bytes([command + SERVER_ANSWER]) + value)
        self._out += bytes([IAC, SB, COM_PORT]) + body + bytes([IAC, SE])

    def _com_port(self, command: int, value: bytes) -> Event | None:
        """RFC 2217 section 3. What is asked is acknowledged as asked: clients give up on any other answer, and a
        console's line is its board's."""
        if command == 0:
            if not value:
                self._answer(0, SIGNATURE)
            return None
        if command == 1 and len(value) == 4:
            (speed,) = struct.unpack("!I", value)
            if speed:
                self._speed = speed
            self._answer(1, struct.pack("!I", self._speed))
            return Wanted(Setting.SPEED, speed) if speed else None
        if command in self._sizes and len(value) == 1:
            self._sizes[command] = value[0] or self._sizes[command]
            self._answer(command, bytes([self._sizes[command]]))
        elif command == 5 and len(value) == 1:
            return self._control(value[0])
        elif command in {6, 10} and len(value) <= 1:
            self._answer(command, value or b"\0")
        elif command == 7:
            self._answer(7, bytes([MODEM_STATE]))
        elif command == 11 and len(value) == 1:
            self._answer(11, value)
            self._answer(7, bytes([MODEM_STATE & value[0]]))
        elif command == 12 and len(value) == 1:
            self._answer(12, value)
        return None

    def _control(self, value: int) -> Event | None:
        self._answer(5, bytes([_QUESTIONS.get(value, value)]))
        wanted = _CONTROLS.get(value)
        return None if wanted is None else Wanted(*wanted)


def _own_message(data: bytes) -> Own | None:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return Own(message) if isinstance(message, dict) else None
