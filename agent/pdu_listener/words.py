"""What pdudaemon's clients say, taken apart before anything is switched. No I/O.

Source: pdudaemon 1.1.1, `pdudaemon/listener.py` and `pduclient`. Of its ways this differs where it harms: a delay that
is no number is refused first (there it leaves the board off), a key that stands twice is refused (there the first
wins), and the line may end with a newline (there one read of the socket is the line).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

MAX_DELAY_S = 600.0
"""As long as the longest minimum off time; nobody's client waits longer for an answer."""
MAX_WORD = 253
"""A DNS name is at most this long (RFC 1035, section 2.3.4, less its length octets)."""
MAX_LINE_BYTES = 1024
"""Two names, a verb and a delay stay under it."""

MIN_WORDS = 3
"""hostname, port and command."""

_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
_WORD = re.compile(r"[!-~]+")


class WordsError(ValueError):
    """What was said cannot be understood. Its text is a clause that names the part."""


class Verb(StrEnum):
    """What pdudaemon can be asked, and `state`, which it cannot."""

    ON = "on"
    OFF = "off"
    REBOOT = "reboot"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: either `hostname` and `port`, or `alias`."""

    verb: Verb
    hostname: str = ""
    port: str = ""
    alias: str = ""
    delay_s: float | None = None
    """Before on and off, and between off and on of a reboot."""

    def __str__(self) -> str:
        return f"{self.verb} of {self.alias or f'{self.hostname} {self.port}'}"


def parse_query(verb: Verb, query: Iterable[tuple[str, str]]) -> Asked:
    """The request of `/power/control/VERB?hostname=&port=[&delay=]` or `?alias=`. Other keys are passed over, as
    pdudaemon does.

    Raises:
        WordsError: a key is missing, empty, there twice, or not what it has to be.
    """
    found: dict[str, str] = {}
    for key, value in query:
        if key not in {"hostname", "port", "alias", "delay"}:
            continue
        if key in found:
            raise WordsError(f"{key} stands twice; give it once")
        found[key] = value
    delay_s = None if verb is Verb.STATE or "delay" not in found else parse_delay(found["delay"])
    if "alias" in found:
        if "hostname" in found or "port" in found:
            raise WordsError("alias together with hostname or port; give either alias, or hostname and port")
        return Asked(verb, alias=_word("alias", found["alias"]), delay_s=delay_s)
    for key in ("hostname", "port"):
        if key not in found:
            raise WordsError(f"{key} is missing; give hostname and port, or alias")
    return Asked(verb, _word("hostname", found["hostname"]), _word("port", found["port"]), delay_s=delay_s)


def parse_line(line: bytes) -> Asked:
    """The request of the line `hostname port command [delay]`; `state` is a command of ours.

    Raises:
        WordsError: it is not such a line.
    """
    try:
        words = line.decode("ascii").split()
    except UnicodeDecodeError:
        raise WordsError("the line is not ASCII text; write: hostname port on|off|reboot|state [delay]") from None
    if len(words) not in {MIN_WORDS, MIN_WORDS + 1}:
        raise WordsError(f"the line has {len(words)} words; write: hostname port on|off|reboot|state [delay]")
    hostname, port, command, *rest = words
    hostname, port = _word("hostname", hostname), _word("port", port)
    try:
        verb = Verb(command)
    except ValueError:
        raise WordsError(f"command {command[:32]!r} is not on, off, reboot or state") from None
    return Asked(verb, hostname, port, delay_s=parse_delay(rest[0]) if rest else None)


def parse_delay(text: str) -> float:
    """A delay in seconds.

    Raises:
        WordsError: it is no plain decimal number, or longer than `MAX_DELAY_S`.
    """
    if _NUMBER.fullmatch(text) is None or float(text) > MAX_DELAY_S:
        raise WordsError(f"delay {text[:32]!r} is not a number of seconds from 0 to {MAX_DELAY_S:g}")
    return float(text)


def _word(key: str, text: str) -> str:
    if not text or len(text) > MAX_WORD or _WORD.fullmatch(text) is None:
        raise WordsError(f"{key} {text[:32]!r} is no name: 1 to {MAX_WORD} printable ASCII characters, no space")
    return text


class LineAssembler:
    """Puts the pieces of one line together. pduclient sends no newline and does not close, so the adapter also calls
    `ended` when nothing more came for a while."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def may_be_whole(self) -> bool:
        """Whether the words of a request are there, if nothing else comes."""
        return len(self._data.split()) >= MIN_WORDS

    def feed(self, data: bytes) -> bytes | None:
        """Take a piece; returns the line without its end when it is whole. What comes after is passed over: one
        request per connection, as pdudaemon has it.

        Raises:
            WordsError: it is longer than `MAX_LINE_BYTES`.
        """
        self._data += data
        line, newline, _ = bytes(self._data).partition(b"\n")
        if len(line) > MAX_LINE_BYTES:
            raise WordsError(f"the line is longer than {MAX_LINE_BYTES} bytes")
        return line.strip() if newline else None

    def ended(self) -> bytes:
        """The end of input, or of patience: what came is the line."""
        return bytes(self._data.strip())
