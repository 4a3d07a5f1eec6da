"""The line protocol of boardhand's own power cable, as the host speaks it, without I/O: docs/power-cable.md.

A request is `@TAG VERB WORDS*CRC`, its answer `@TAG ok WORDS*CRC` or `@TAG error KIND TEXT*CRC`, each with a line feed.
Every request has another tag, so an answer that comes late is nobody's.
"""

import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from wire.phases import Phase

TAGS = 36**3
"""Three characters of 0-9 a-z."""
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
MAX_LINE_BYTES = 512
"""An answer for eight outlets has about 110."""

MODEL = "boardhand-cable"
PROTOCOL = 1


class AnswerError(Exception):
    """The cable answered `error`. `kind` is its word for programs."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


class GarbledError(Exception):
    """An answer has the right tag, and makes no sense."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a cable says that it is.

    Attributes:
        model: `boardhand-cable`.
        firmware: its version.
        unique: the microcontroller's own number, hexadecimal.
        outlets: how many.
        read: where power is read back: `sense` (at the outlet), `pin` (at the controller's pad), or `mixed`.
        meters: how many outlets are measured.
        protocol: rises when a host that knew the last one would be wrong.
    """

    model: str
    firmware: str
    unique: str
    outlets: int
    read: str
    meters: int
    protocol: int


def tag(number: int) -> str:
    """The tag of the `number`th request; after 46,656 they begin again."""
    number %= TAGS
    return DIGITS[number // 1296] + DIGITS[number // 36 % 36] + DIGITS[number % 36]


def checksum(content: bytes) -> bytes:
    """CRC-16/CCITT-FALSE as four hexadecimal digits."""
    return b"%04x" % binascii.crc_hqx(content, 0xFFFF)


def request(tag: str, *words: str) -> bytes:
    """The bytes of a request. The line feed before it ends what somebody else left half said."""
    content = " ".join((tag, *words)).encode()
    return b"\n@" + content + b"*" + checksum(content) + b"\n"


class AnswerReader:
    """Finds the answer to the request `tag` in what arrives."""

    def __init__(self, tag: str) -> None:
        self._tag = tag.encode()
        self._waiting = b""

    def feed(self, data: bytes) -> str | None:
        """The words behind `ok`, once they are whole; None while they are not. Other lines, those whose checksum is
        wrong, and noise are passed over.

        Raises:
            AnswerError: the cable answered that it will not.
            GarbledError: the answer is whole, and no answer.
        """
        *lines, self._waiting = (self._waiting + data).split(b"\n")
        self._waiting = self._waiting[-MAX_LINE_BYTES:]
        for line in lines:
            content = self._content(line)
            if content is not None:
                return self._words(content)
        return None

    def _content(self, line: bytes) -> bytes | None:
        """What stands behind the tag of a line that is meant for us."""
        content, star, crc = line.rstrip(b"\r")[line.rfind(b"@") + 1 :].rpartition(b"*")
        own, _, rest = content.partition(b" ")
        return rest if star and own == self._tag and crc == checksum(content) else None

    def _words(self, content: bytes) -> str:
        word, _, rest = content.decode("ascii", "replace").partition(" ")
        if word == "ok":
            return rest
        if word == "error":
            kind, _, text = rest.partition(" ")
            raise AnswerError(kind, text)
        raise GarbledError(f"answered {content[:40]!r}")


def pairs(words: str) -> dict[str, str]:
    """`1=on 2=off` as a mapping.

    Raises:
        GarbledError: a word is no pair.
    """
    found = dict(word.partition("=")[::2] for word in words.split())
    if not all(found) or "" in found.values():
        raise GarbledError(f"answered {words[:60]!r}")
    return found


def states(words: str) -> dict[str, bool]:
    """The answer to `get`: outlet -> whether it is on.

    Raises:
        GarbledError: it is none.
    """
    found = pairs(words)
    if not found or not set(found.values()) <= {"on", "off"}:
        raise GarbledError(f"answered {words[:60]!r} to get")
    return {outlet: state == "on" for outlet, state in found.items()}


def watts(words: str) -> dict[str, float | None]:
    """The answer to `watts`: outlet -> watts, or None where it is not measured or its meter does not answer.

    Raises:
        GarbledError: it is none.
    """
    found: dict[str, float | None] = {}
    for outlet, value in pairs(words).items():
        try:
            found[outlet] = None if value == "-" else float(value)
        except ValueError as error:
            raise GarbledError(f"answered {words[:60]!r} to watts") from error
    return found


def identity(words: str) -> Identity:
    """The answer to `id`.

    Raises:
        GarbledError: it is none.
    """
    found: Mapping[str, str] = pairs(words)
    try:
        return Identity(
            model=found["model"],
            firmware=found["firmware"],
            unique=found["id"],
            outlets=int(found["outlets"]),
            read=found["read"],
            meters=int(found["meters"]),
            protocol=int(found["protocol"]),
        )
    except (KeyError, ValueError) as error:
        raise GarbledError(f"answered {words[:60]!r} to id") from error


def led_word(phase: Phase) -> str:
    """How the cable's LEDs are told of `phase`."""
    if phase.coming_up:
        return "coming"
    return {Phase.READY: "ready", Phase.BUSY: "ready", Phase.FAULT: "fault"}.get(phase, "dark")
