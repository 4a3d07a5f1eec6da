"""How near a board is to taking work."""

from enum import IntEnum


class Standing(IntEnum):
    """How near a board is to taking work; smaller is nearer."""

    READY = 0
    COMING = 1
    ASLEEP = 2
    TAKEN = 3
    """Works, or was given away; will be free again by itself."""
    OUT = 4
    """Takes nothing until somebody does something."""
