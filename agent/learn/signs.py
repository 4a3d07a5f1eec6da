"""What an experiment is told and what it asks for. All times are seconds of one monotonic clock."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias


class Kind(StrEnum):
    """What was heard: by which sense a thing shows that it lives."""

    MAC = "mac"
    """DHCP, TFTP, a neighbour that appeared, a registration: all by the address they came from."""
    CONSOLE = "console"
    """Bytes on a serial port."""
    USB = "usb"
    """A USB device; its name is where it is plugged in."""
    LINK = "link"
    """A network interface of this host that has carrier."""


class Subject(NamedTuple):
    """One thing that can be heard, and that hangs on one board."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Sign:
    """`subject` was heard. `ready`: it says that its board is up (a registration, a login prompt). `words` are what it
    said, for people."""

    subject: Subject
    ready: bool = False
    words: str = ""


@dataclass(frozen=True, slots=True)
class Present:
    """Something that is there or not, as a USB device, came or went. Until it goes it counts as heard all the time."""

    subject: Subject
    here: bool
    words: str = ""


@dataclass(frozen=True, slots=True)
class Linked:
    """Two subjects belong to one board: a registration names two MACs, a console prints its board's MAC."""

    one: Subject
    other: Subject


@dataclass(frozen=True, slots=True)
class Drawn:
    """An outlet's meter reads `watts`."""

    outlet: str
    watts: float


@dataclass(frozen=True, slots=True)
class Switched:
    """The end of a `Switch`: verified by reading back, or `problem` says why not."""

    outlet: str
    on: bool
    problem: str | None = None


Event: TypeAlias = Sign | Present | Linked | Drawn | Switched


@dataclass(frozen=True, slots=True)
class Switch:
    """Switch the outlet, and answer with `Switched`. What it was found as must be on disk before."""

    outlet: str
    on: bool


@dataclass(frozen=True, slots=True)
class Tell:
    """Something that a person who watches wants to know."""

    stage: str
    percent: float
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Everything is as it was found, and the findings are final. `unrestored` are outlets that would not go back."""

    unrestored: tuple[str, ...] = ()


Action: TypeAlias = Switch | Tell | Ended
