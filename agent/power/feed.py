"""Feeds: the ordered outlets of a board, and what their states say about the board."""

from collections.abc import Iterable
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


def feed_power(states: Iterable[Power]) -> Power:
    """The board's power: on when every outlet is on, off when every outlet is off, otherwise unknown.

    A feed may be a chain (PDU, then hub) or two supplies side by side; with only some outlets on, the board of a
    chain is dark and the board of a pair runs. So nothing is claimed.
    """
    seen = set(states)
    return seen.pop() if len(seen) == 1 else Power.UNKNOWN
