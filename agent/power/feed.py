"""Feeds: the ordered outlets of a board, and what their states say about the board."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from wire.names import is_id
from wire.phases import Power


class OutletRef(NamedTuple):
    """One outlet of the farm, written `controller:outlet`."""

    controller: str
    outlet: str

    @classmethod
    def parse(cls, text: str) -> "OutletRef":
        """Take `controller:outlet` apart.

        Raises:
            ValueError: it is not written so.
        """
        controller, colon, outlet = text.partition(":")
        if not colon or not is_id(controller) or not outlet or outlet != outlet.strip():
            raise ValueError(f"{text!r} names no outlet: write controller:outlet, as rack-pdu:3")
        return cls(controller, outlet)

    def __str__(self) -> str:
        return f"{self.controller}:{self.outlet}"


class FeedKind(StrEnum):
    """How the outlets of a feed hang together."""

    UNSAID = "unsaid"
    CHAIN = "chain"
    """Each outlet hangs on the one before, as a hub on a PDU: one that is off leaves the board dark."""
    PARALLEL = "parallel"
    """Each feeds the board by itself, as two supplies: one that is on keeps it running."""


def feed_power(states: Iterable[Power], kind: FeedKind = FeedKind.UNSAID) -> Power:
    """The board's power. Of a chain and of supplies side by side it can be told when only some outlets are on, or are
    silent because what is before them is off; where nobody said which it is, nothing is claimed but what all agree on.
    """
    seen = set(states)
    for decides, by in ((Power.OFF, FeedKind.CHAIN), (Power.ON, FeedKind.PARALLEL)):
        if kind is by and decides in seen:
            return decides
    return seen.pop() if len(seen) == 1 else Power.UNKNOWN
