"""What the scheduler is told and asks for about boards' trust: part of `broker.happenings`."""

from dataclasses import dataclass
from enum import StrEnum

from broker.health.trust import Record
from wire.payloads import Alert


class BoardVerb(StrEnum):
    """What a person may say about a board."""

    ACCEPT = "accept"
    RETIRE = "retire"
    CHECK = "check"
    FORGET = "forget"
    MAINTENANCE_ON = "maintenance-on"
    MAINTENANCE_OFF = "maintenance-off"


@dataclass(frozen=True, slots=True)
class BoardAsked:
    """A person's word about a board."""

    tag: str
    board: str
    verb: BoardVerb


@dataclass(frozen=True, slots=True)
class SaveHealth:
    """A board's record, or None: it is forgotten."""

    board: str
    record: Record | None


@dataclass(frozen=True, slots=True)
class TellAlert:
    """A retained alert about a board, or None: it is over."""

    board: str
    alert: Alert | None


@dataclass(frozen=True, slots=True)
class ForgetBoard:
    """Clear what is retained of the board."""

    board: str
