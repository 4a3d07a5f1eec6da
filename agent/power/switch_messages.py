"""What goes between the switching core and whoever drives it: events in, commands out."""

from dataclasses import dataclass

from agent.power.errors import PowerError
from agent.power.feed import OutletRef
from wire.phases import Power

# --- events in ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetAccepted:
    """The driver's `set` returned."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """The driver's `get` returned."""

    power: Power


@dataclass(frozen=True, slots=True)
class CannotReadBack:
    """The driver has no read-back."""


@dataclass(frozen=True, slots=True)
class CallFailed:
    """The driver's `set` or `get` raised."""

    error: PowerError


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The wait is over."""


Event = SetAccepted | ReadBack | CannotReadBack | CallFailed | TimePassed

# --- commands out ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Set:
    ref: OutletRef
    on: bool


@dataclass(frozen=True, slots=True)
class Read:
    ref: OutletRef


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The operation is over. `error` is None when every leg was verified, or could not be read back at all."""

    error: PowerError | None


Command = Set | Read | Wait | Finish
