"""Where one outlet is in an experiment: the table of its states. What is not in the table cannot happen."""

from enum import StrEnum


class At(StrEnum):
    """A state of one outlet."""

    IDLE = "idle"
    """As it was found, or off and waiting for its turn."""
    RISING = "rising"
    LISTENING = "listening"
    """It has power, and what comes is written down."""
    FALLING = "falling"
    RETREATING = "retreating"
    """It would not switch on; it is being switched off again, for the case that it did."""
    BROKEN = "broken"
    """It does not switch; nothing can be learnt of it."""
    RESTORING = "restoring"
    RESTORED = "restored"
    LOST = "lost"
    """It would not go back to what it was found as."""


class Happening(StrEnum):
    """What moves an outlet on."""

    CHOSEN = "chosen"
    """Its turn has come."""
    CLEARED = "cleared"
    """It was found on and must be off while others are tried."""
    DONE = "done"
    """The switching under way was verified."""
    REFUSED = "refused"
    """The switching under way failed."""
    ENOUGH = "enough"
    """All that can be heard was heard."""
    RESTORE = "restore"
    """The experiment ends."""


TABLE: dict[tuple[At, Happening], At] = {
    (At.IDLE, Happening.CHOSEN): At.RISING,
    (At.IDLE, Happening.CLEARED): At.FALLING,
    (At.IDLE, Happening.RESTORE): At.RESTORING,
    (At.RISING, Happening.DONE): At.LISTENING,
    (At.RISING, Happening.REFUSED): At.RETREATING,
    (At.LISTENING, Happening.ENOUGH): At.FALLING,
    (At.LISTENING, Happening.RESTORE): At.RESTORING,
    (At.FALLING, Happening.DONE): At.IDLE,
    (At.FALLING, Happening.REFUSED): At.BROKEN,
    (At.RETREATING, Happening.DONE): At.BROKEN,
    (At.RETREATING, Happening.REFUSED): At.BROKEN,
    (At.BROKEN, Happening.RESTORE): At.RESTORING,
    (At.RESTORING, Happening.DONE): At.RESTORED,
    (At.RESTORING, Happening.REFUSED): At.LOST,
}
"""RISING, FALLING and RETREATING take no RESTORE: a switching under way is waited for, then restored."""

MOVING = frozenset({At.RISING, At.FALLING, At.RETREATING, At.RESTORING})
"""An answer of the hardware is awaited."""


def after(state: At, happening: Happening) -> At:
    """The next state.

    Raises:
        LookupError: that cannot happen there.
    """
    try:
        return TABLE[state, happening]
    except KeyError:
        raise LookupError(f"an outlet that is {state} cannot meet {happening}") from None
