"""What is said between us and a Tasmota device over MQTT; no network in here.

Sources: tasmota.github.io/docs/MQTT, /Commands; `CmndPower` and `CmndStatus` in support_command.ino. A command is
published to `cmnd/TOPIC/COMMAND`; `POWERn` with `ON` or `OFF` switches, with nothing asks, and both are answered on
`stat/TOPIC/POWERn` (on `POWER` by a device with one relay, unless its SetOption26 is 1). A relay that it has not is
passed over in silence. `STATUS` with 11 is answered on `STATUS11` with every relay, with 10 on `STATUS10` with what it
measures, with 2 on `STATUS2` with its firmware. Its will, retained on `tele/TOPIC/LWT`, says `Online` or `Offline`.

Tasmota numbers no question, so these rules say what is an answer:

1. A retained message answers nothing. (With PowerRetain the server would repeat an old state for ever.)
2. A message that came before the question answers nothing; one that came after it does. As the device publishes each
   change at once and MQTT keeps the order of one sender on one topic (MQTT 5, section 4.6), the first message after
   the question is at most one way through the network older than the question, and newer than all before it.
3. `Offline` ends every question, those of now and those to come, until `Online` or any other fresh word.
4. A lost connection to the server ends every question, and what was known of the device is known no more.
"""

import json
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from wire.phases import Power

RELAY = re.compile(r"POWER([1-9][0-9]?)?")
"""A relay's word; without a number it is the first."""
POWER = {"ON": Power.ON, "OFF": Power.OFF, "1": Power.ON, "0": Power.OFF}
"""What a relay says; the words can be changed by StateText, and then nothing is known."""
MAX_PAYLOAD_BYTES = 1 << 16
"""Tasmota's own limit is 2 KiB or less; more is not from it."""


class Subject(Enum):
    """What may be asked besides a relay: command, its payload, and the word that answers."""

    RELAYS = ("STATUS", b"11", "STATUS11")
    SENSORS = ("STATUS", b"10", "STATUS10")
    FIRMWARE = ("STATUS", b"2", "STATUS2")


class End(Enum):
    """How a question ended."""

    ANSWERED = "answered"
    OFFLINE = "offline"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one device."""

    topic: str
    full_topic: str

    def base(self, prefix: str) -> str:
        """Of `cmnd`, `stat` or `tele`, with a slash at its end, as Tasmota itself sees to."""
        return self.full_topic.replace("%prefix%", prefix).replace("%topic%", self.topic).rstrip("/") + "/"

    @property
    def lwt(self) -> str:
        return self.base("tele") + "LWT"

    @property
    def subscriptions(self) -> list[str]:
        return [self.base("stat") + "+", self.lwt]


@dataclass(eq=False, slots=True)
class Question:
    """One question that waits: the words that may answer it, and how it ended."""

    words: frozenset[str]
    end: End | None = None
    payload: bytes = b""


@dataclass
class Conversation:
    """All questions to one device, and whether it is there.

    Attributes:
        online: by its own will and words; None while nothing was heard since the connection was made.
        relays: outlets it said it has; None while it was not asked since it came online.
    """

    topics: Topics
    online: bool | None = None
    relays: tuple[str, ...] | None = None
    _open: list[Question] = field(default_factory=list)

    def ask(self, *words: str) -> Question:
        """Begin to wait for a word. Call it before the command is published, so that no answer is missed."""
        question = Question(frozenset(words), End.OFFLINE if self.online is False else None)
        if question.end is None:
            self._open.append(question)
        return question

    def forget(self, question: Question) -> None:
        """Wait no more. May be called at any time."""
        if question in self._open:
            self._open.remove(question)

    def heard(self, topic: str, payload: bytes, *, retained: bool) -> list[Question]:
        """A message came. Returns the questions that it ended."""
        if topic == self.topics.lwt:
            return self._will(payload)
        base = self.topics.base("stat")
        if retained or not topic.startswith(base) or len(payload) > MAX_PAYLOAD_BYTES:
            return []
        self.online = True
        word = topic.removeprefix(base)
        ended = [question for question in self._open if word in question.words]
        for question in ended:
            question.end, question.payload = End.ANSWERED, payload
            self._open.remove(question)
        return ended

    def disconnected(self) -> list[Question]:
        """The connection to the MQTT server is gone. Returns the questions that this ended."""
        self.online = self.relays = None
        return self._end_all(End.DISCONNECTED)

    def _will(self, payload: bytes) -> list[Question]:
        word = payload.strip().lower()
        if word == b"online":
            if self.online is not True:
                self.relays = None  # it may have been set up anew
            self.online = True
        elif word == b"offline":
            self.online, self.relays = False, None
            return self._end_all(End.OFFLINE)
        return []

    def _end_all(self, end: End) -> list[Question]:
        ended, self._open = self._open, []
        for question in ended:
            question.end = end
        return ended


def relay_words(outlet: str) -> tuple[str, ...]:
    """The words on which relay `outlet` answers."""
    return ("POWER1", "POWER") if outlet == "1" else (f"POWER{outlet}",)


def relay_power(payload: bytes) -> Power | None:
    """The state in an answer on `POWERn`; None for a word that is not Tasmota's own."""
    return POWER.get(payload.decode("utf-8", errors="replace").strip().upper())


def relays_in(payload: bytes) -> dict[str, Power]:
    """Every relay in an answer on STATUS11: `{"StatusSTS": {…, "POWER1": "ON", …}}`.

    Raises:
        ValueError: it is something else.
    """
    found = {}
    for key, value in _object(payload, "StatusSTS").items():
        match = RELAY.fullmatch(key)
        if match:
            found[match[1] or "1"] = POWER.get(str(value).upper(), Power.UNKNOWN)
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def watts_in(payload: bytes, outlet: str, relays: int) -> float | None:
    """The watts of one relay in an answer on STATUS10: `{"StatusSNS": {"ENERGY": {"Power": 12, …}}}`.

    A device that measures each relay gives a list; one number for several relays is the sum, and no relay's own.

    Raises:
        ValueError: it is something else.
    """
    energy = _object(payload, "StatusSNS").get("ENERGY")
    power = energy.get("Power") if isinstance(energy, dict) else None
    if isinstance(power, list):
        power = power[int(outlet) - 1] if int(outlet) <= len(power) else None
    elif relays != 1:
        power = None
    if power is None:
        return None
    if isinstance(power, bool) or not isinstance(power, int | float):
        raise ValueError(f"ENERGY.Power is {power!r}")  # noqa: TRY004 - what a device sent, not a type of ours
    return float(power)


def firmware_in(payload: bytes) -> str:
    """Firmware and chip in an answer on STATUS2.

    Raises:
        ValueError: it is something else.
    """
    firmware = _object(payload, "StatusFWR")
    return f"{firmware.get('Version', '?')} on {firmware.get('Hardware', '?')}"


def _object(payload: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    inner = document.get(name) if isinstance(document, dict) else None
    if not isinstance(inner, dict):
        raise ValueError(f"it has no {name}")  # noqa: TRY004 - what a device sent, not a type of ours
    return inner
