"""What relay boards on serial ports say: bytes out, bytes in, no I/O and no clock.

An `Exchange` is what is sent and a reader of what comes back; readers are fed as bytes come and pass over noise, echoes
and late answers to earlier questions as far as each protocol lets these be told apart. Relays count from 1.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

States = Mapping[int, bool]
"""Relay -> whether it is on, as the board says; empty where it only said that it heard."""

MAX_NOISE_BYTES = 4096
"""A board that says more than this without an answer in it is no board of this protocol."""


class GarbledError(Exception):
    """What came is no answer of this protocol; the text says what came."""


class Reader(Protocol):
    """Takes the answer to one question, in pieces of any size."""

    def feed(self, data: bytes) -> States | None:
        """The answer, or None while more has to come.

        Raises:
            GarbledError: this will never be an answer.
        """


@dataclass(frozen=True, slots=True)
class Exchange:
    """One message. `reader` is None where the board answers nothing."""

    send: bytes
    reader: Callable[[], Reader] | None = None


@dataclass(frozen=True, slots=True)
class RelayProtocol:
    """One way of talking.

    Attributes:
        baudrate: where the settings name none.
        max_outlets: relays that can be named.
        switch: relay, on -> message.
        ask: relay -> question for its state, perhaps together with others'.
        asks_all: the question for all `n` relays at once; None where each is asked for.
        greeting: said after the port was opened, and after an answer did not come, before anything else; each until
            one is answered. Brings the board into step, and tells a wrong device before it is switched.
        may_be_mute: boards of this protocol are sold that never answer.
        label: what the board calls the relay.
    """

    baudrate: int
    max_outlets: int
    switch: Callable[[int, bool], Exchange]
    ask: Callable[[int], Exchange]
    asks_all: Callable[[], Exchange] | None = None
    greeting: tuple[Exchange, ...] = ()
    may_be_mute: bool = False
    label: Callable[[int], str] = str


@dataclass
class _Scanner:
    """Looks for a frame of fixed length at any offset: what does not fit is noise."""

    length: int
    match: Callable[[bytes], States | None]
    _buffer: bytearray = field(default_factory=bytearray)
    _seen: int = 0

    def feed(self, data: bytes) -> States | None:
        self._buffer += data
        while len(self._buffer) >= self.length:
            found = self.match(bytes(self._buffer[: self.length]))
            if found is not None:
                return found
            del self._buffer[0]
            self._seen += 1
            if self._seen > MAX_NOISE_BYTES:
                raise GarbledError(f"{self._seen} bytes without an answer in them")
        return None


# --- Numato -----------------------------------------------------------------------------------------------------
# https://numato.com/docs/16-channel-usb-relay-module/ and its sisters with 1 to 64 channels: lines end with CR, the
# board echoes them, answers with LF CR and a prompt `>`. Relays are 0 to 9 and A to V; 00 to 63 on the board with 64.

_NUMATO_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
_NUMATO_ALL_AT_ONCE = 8
"""Boards with fewer relays know no `relay readall`."""


def _numato_name(relay: int, outlets: int) -> str:
    return f"{relay - 1:02d}" if outlets > len(_NUMATO_DIGITS) else _NUMATO_DIGITS[relay - 1]


@dataclass
class _NumatoReader:
    command: str
    parse: Callable[[str], States | None]
    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> States | None:
        self._buffer += data
        while (end := self._buffer.find(b">")) >= 0:
            said = self._buffer[:end].decode("ascii", errors="replace")
            del self._buffer[: end + 1]
            # The echo tells our answer from one that comes late, and from what the line noise began.
            _, echo, rest = re.sub(r"[\r\n]+", "\n", said).rpartition(self.command + "\n")
            if not echo:
                continue
            answer = self.parse(rest.strip())
            if answer is None:
                raise GarbledError(f"{rest.strip()[:40]!r} to {self.command!r}")
            return answer
        if len(self._buffer) > MAX_NOISE_BYTES:
            raise GarbledError(f"{len(self._buffer)} bytes without a prompt")
        return None


class _PromptReader:
    """Any prompt: what it ends may be a line that somebody began before us."""

    def feed(self, data: bytes) -> States | None:
        return {} if b">" in data else None


def _numato(outlets: int) -> RelayProtocol:
    def exchange(command: str, parse: Callable[[str], States | None]) -> Exchange:
        return Exchange(f"{command}\r".encode(), lambda: _NumatoReader(command, parse))

    def switch(relay: int, on: bool) -> Exchange:  # noqa: FBT001 - as Driver.set
        word = "on" if on else "off"
        return exchange(f"relay {word} {_numato_name(relay, outlets)}", lambda said: {} if not said else None)

    def ask(relay: int) -> Exchange:
        words = {"on": True, "off": False}
        return exchange(
            f"relay read {_numato_name(relay, outlets)}",
            lambda said: {relay: words[said]} if said in words else None,
        )

    def mask(said: str) -> States | None:
        if not re.fullmatch(r"[0-9A-Fa-f]{2,16}", said) or len(said) * 4 < outlets:
            return None
        bits = int(said, 16)
        return {relay: bool(bits >> (relay - 1) & 1) for relay in range(1, outlets + 1)}

    return RelayProtocol(
        baudrate=115_200,  # a CDC-ACM device: any number will do
        max_outlets=64,
        switch=switch,
        ask=ask,
        asks_all=(lambda: exchange("relay readall", mask)) if outlets >= _NUMATO_ALL_AT_ONCE else None,
        greeting=(Exchange(b"\r", _PromptReader),),
        label=lambda relay: f"relay {_numato_name(relay, outlets)}",
    )


# --- LCUS -------------------------------------------------------------------------------------------------------
# LC Technology's boards with a CH340: A0, relay from 1, operation, sum of the three. Operations 0 and 1 are off and on
# and are not answered. One FF asks for all; of boards sold under the name some answer one byte of 0 or 1 per relay,
# some lines `CH1: ON`, some nothing. A sister (sold as SAMIROB) takes 2 and 3 for off and on with an answer, and 5 as
# question, and answers A0, relay, 0 or 1, sum.

LCUS_START = 0xA0
LCUS_ASK = b"\xff"
LCUS_OFF_ANSWERED, LCUS_ON_ANSWERED, LCUS_CHECK = 2, 3, 5


def lcus_frame(relay: int, operation: int) -> bytes:
    """Four bytes, as both LCUS protocols and the HID boards of the same maker use them."""
    return bytes((LCUS_START, relay, operation, (LCUS_START + relay + operation) & 0xFF))


_LCUS_LINE = re.compile(rb"CH\s*(\d+)\s*:?\s*(ON|OFF)", re.IGNORECASE)


@dataclass
class _LcusReader:
    outlets: int
    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> States | None:
        self._buffer += data
        said = bytes(self._buffer).lstrip(LCUS_ASK)  # some adapters echo
        if len(said) > MAX_NOISE_BYTES:
            raise GarbledError(f"{len(said)} bytes without an answer in them")
        if said[:1] in {b"\x00", b"\x01"}:
            return self._of_bytes(said)
        lines = {int(number): word.upper() == b"ON" for number, word in _LCUS_LINE.findall(said)}
        wanted = range(1, self.outlets + 1)
        if all(relay in lines for relay in wanted):
            return {relay: lines[relay] for relay in wanted}
        if said.lstrip()[:1] not in {b"C", b"c", b""}:
            raise GarbledError(f"{said[:16].hex(' ')} to a question for states")
        return None

    def _of_bytes(self, said: bytes) -> States | None:
        told = said[: self.outlets]
        if any(byte > 1 for byte in told):
            raise GarbledError(f"{told.hex(' ')} to a question for states")
        return {relay: bool(byte) for relay, byte in enumerate(told, 1)} if len(told) == self.outlets else None


def _lcus(outlets: int) -> RelayProtocol:
    def ask_all() -> Exchange:
        return Exchange(LCUS_ASK, lambda: _LcusReader(outlets))

    return RelayProtocol(
        baudrate=9600,
        max_outlets=8,
        switch=lambda relay, on: Exchange(lcus_frame(relay, int(on))),
        ask=lambda _relay: ask_all(),
        asks_all=ask_all,
        may_be_mute=True,
    )


def _lcus_feedback(_outlets: int) -> RelayProtocol:
    def exchange(relay: int, operation: int) -> Exchange:
        answers = {lcus_frame(relay, int(state)): {relay: state} for state in (False, True)}
        return Exchange(lcus_frame(relay, operation), lambda: _Scanner(4, answers.get))

    return RelayProtocol(
        baudrate=9600,
        max_outlets=8,
        switch=lambda relay, on: exchange(relay, LCUS_ON_ANSWERED if on else LCUS_OFF_ANSWERED),
        ask=lambda relay: exchange(relay, LCUS_CHECK),
    )


# --- Devantech --------------------------------------------------------------------------------------------------
# USB-RLY02, 08, 16 and their -B, -C, -L (technical documentation of each, "Commands"): one byte per command; 5A answers
# module id and version, 5B one byte with a bit per relay. Switching is not answered.

DEVANTECH_VERSION, DEVANTECH_STATES = 0x5A, 0x5B
DEVANTECH_ON, DEVANTECH_OFF = 0x64, 0x6E
"""Plus the relay from 1; 0x64 and 0x6E themselves mean all."""
DEVANTECH_MODULES = {8: "USB-RLY08", 9: "USB-RLY16", 10: "USB-RLY02", 15: "USB-RLY16L"}


class _DevantechModule:
    """Two bytes: which module, which version."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> States | None:
        self._buffer += data
        if self._buffer[:1] == bytes((DEVANTECH_VERSION,)):
            raise GarbledError("our own question: the line echoes, which no USB-RLY does")
        return {} if len(self._buffer) >= 2 else None


def _devantech(outlets: int) -> RelayProtocol:
    def states(frame: bytes) -> States:
        return {relay: bool(frame[0] >> (relay - 1) & 1) for relay in range(1, outlets + 1)}

    def ask_all() -> Exchange:
        return Exchange(bytes((DEVANTECH_STATES,)), lambda: _Scanner(1, states))

    return RelayProtocol(
        baudrate=19_200,  # CDC-ACM, or an FTDI chip that is set to this
        max_outlets=8,
        switch=lambda relay, on: Exchange(bytes(((DEVANTECH_ON if on else DEVANTECH_OFF) + relay,))),
        ask=lambda _relay: ask_all(),
        asks_all=ask_all,
        greeting=(Exchange(bytes((DEVANTECH_VERSION,)), _DevantechModule),),
    )


# --- Conrad -----------------------------------------------------------------------------------------------------
# Relay cards 197720 and 197730, up to 255 in a chain with 8 relays each: command, card from 1, data, XOR of the three.
# Answers carry 255 minus the command. Cards have no addresses before they were greeted with command 1. A card that lost
# a byte is out of step until single bytes filled its frame.

CONRAD_SETUP, CONRAD_GET, CONRAD_SET_SINGLE, CONRAD_DEL_SINGLE = 1, 2, 6, 7
CONRAD_RELAYS = 8
CONRAD_FIRST_CARD = 1


def conrad_frame(command: int, card: int, data: int) -> bytes:
    """Four bytes, as both sides send them."""
    return bytes((command, card, data, command ^ card ^ data))


def _conrad(outlets: int) -> RelayProtocol:
    def exchange(command: int, card: int, data: int, *, states: bool = True) -> Exchange:
        def match(frame: bytes) -> States | None:
            if frame != conrad_frame(255 - command, card, frame[2]):
                return None
            first = (card - CONRAD_FIRST_CARD) * CONRAD_RELAYS + 1
            return {first + bit: bool(frame[2] >> bit & 1) for bit in range(CONRAD_RELAYS)} if states else {}

        return Exchange(conrad_frame(command, card, data), lambda: _Scanner(4, match))

    def place(relay: int) -> tuple[int, int]:
        card, bit = divmod(relay - 1, CONRAD_RELAYS)
        return CONRAD_FIRST_CARD + card, 1 << bit

    hello = exchange(CONRAD_SETUP, CONRAD_FIRST_CARD, 0, states=False)
    return RelayProtocol(
        baudrate=19_200,
        max_outlets=255 * CONRAD_RELAYS,
        switch=lambda relay, on: exchange(CONRAD_SET_SINGLE if on else CONRAD_DEL_SINGLE, *place(relay)),
        ask=lambda relay: exchange(CONRAD_GET, place(relay)[0], 0),
        asks_all=(lambda: exchange(CONRAD_GET, CONRAD_FIRST_CARD, 0)) if outlets <= CONRAD_RELAYS else None,
        greeting=(hello, *[Exchange(b"\0" + hello.send, hello.reader)] * 3),
    )


PROTOCOLS: Mapping[str, Callable[[int], RelayProtocol]] = {
    "numato": _numato,
    "lcus": _lcus,
    "lcus-feedback": _lcus_feedback,
    "devantech": _devantech,
    "conrad": _conrad,
}
"""Word -> the protocol of a board with that many relays."""
