"""What discovery found, in the form in which it can be written into the settings."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

TomlValue: TypeAlias = str | int | float | bool | Sequence["TomlValue"] | Mapping[str, "TomlValue"]
MAX_NAME_CHARACTERS = 40
"""Of a proposed id; ids may have 63, and a person has to type them."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be looked at. `where` names it, `do` says what mends it."""

    where: str
    what: str
    do: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.do}" if self.do else "")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that can be a `[controllers.NAME]`.

    Attributes:
        stem: what its name begins with; a number is added where another has it.
        keys: the table, `driver` first. Empty where no settings can be written: then `unwritten` says why.
        about: what it is, for people. Parts of it were written by strangers.
        outlets: its outlets, as feeds name them; empty where they are not known.
        hints: what a person has to know or do, one line each.
        identities: what the same device in a settings file would be known by, see `agent.discovery.known`.
        unwritten: why a person has to write it; empty where `keys` say it all.
    """

    stem: str
    keys: Mapping[str, TomlValue]
    about: str
    outlets: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    identities: frozenset[str] = field(default_factory=frozenset)
    unwritten: str = ""


@dataclass(frozen=True, slots=True)
class SerialLine:
    """A serial port that may be a board's console. `device` is the path that lasts."""

    device: str
    about: str
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MqttServer:
    """An MQTT server that somebody announces, or that answered. `url` is what `[mqtt]` takes; `by` says who says so;
    `login` is what else `[mqtt]` needs, where that is known."""

    url: str
    by: str
    answered: bool = False
    login: Mapping[str, TomlValue] = field(default_factory=dict)


def stem_of(text: str, otherwise: str) -> str:
    """An id made of what a device calls itself, `otherwise` where nothing of that can stand in one."""
    found = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:MAX_NAME_CHARACTERS].strip("-")
    return found or otherwise


def outlets_text(outlets: tuple[str, ...]) -> str:
    """`8 outlets: 1, 2, … 8`, short however many there are; empty for none."""
    if not outlets:
        return ""
    shown = outlets if len(outlets) <= 4 else (*outlets[:2], "…", outlets[-1])  # enough to see how
    return f"{len(outlets)} outlet{'s' if len(outlets) > 1 else ''}: {', '.join(shown)}"
