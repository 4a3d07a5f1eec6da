"""What boards used: the answer to `agent/<agent>/request/energy`, as its `data`.

Two kinds of watt hours stand side by side and are never added up here: measured ones, which a device counted, and
estimated ones, for the seconds in which no device measured.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from wire.names import Id
from wire.payloads import Payload

Seconds = Annotated[float, Field(ge=0)]
WattHours = Annotated[float, Field(ge=0)]


class EnergyState(StrEnum):
    """What a board does with its power. Finer phases draw alike and are taken together."""

    IDLE = "idle"
    """On and ready, without work."""
    BUSY = "busy"
    COMING_UP = "coming-up"
    """On, from power to registration."""
    ON = "on"
    """On, and neither of the above: in fault, in maintenance, unclaimed."""
    SLEEPING = "sleeping"
    """Off by policy."""
    OFF = "off"
    UNKNOWN = "unknown"
    """Its power could not be read back, or its agent was away."""

    @property
    def powered(self) -> bool:
        """Power was read back as on."""
        return self in {EnergyState.IDLE, EnergyState.BUSY, EnergyState.COMING_UP, EnergyState.ON}


class Basis(StrEnum):
    """What a figure rests on."""

    MEASURED = "measured"
    """On readings of this board alone."""
    ESTIMATED = "estimated"
    """At least one part of it is this board's average, or the watts in its settings."""
    UNKNOWN = "unknown"
    """Nothing is known to make it from; then there is no figure."""


class StateEnergy(Payload):
    """One state's share. Its seconds are `measured_s` and `unmeasured_s` together."""

    state: EnergyState
    measured_s: Seconds
    unmeasured_s: Seconds
    measured_wh: WattHours
    estimated_wh: WattHours | None = None
    """For `unmeasured_s`; absent when nothing is known to estimate from."""


class EnergyFigures(Payload):
    """A span of time in figures. `total_s` is every second that the agent accounts for, its own absence included."""

    total_s: Seconds
    on_s: Seconds
    sleeping_s: Seconds
    measured_s: Seconds
    unknown_s: Seconds
    """Neither measured nor estimated: what was used then stands nowhere."""
    measured_wh: WattHours
    estimated_wh: WattHours | None = None
    """For the seconds that are neither measured nor unknown; absent when there are none but unknown ones."""
    saved_wh: float | None = None
    """What the board would have used, idle, in its sleep, less what it used. Below 0 when sleep draws more than idling
    does; absent when it is unknown."""
    saved_basis: Basis = Basis.UNKNOWN


class EnergyPeriod(EnergyFigures):
    """An hour or a day, UTC."""

    start: AwareDatetime


class BoardEnergy(EnergyFigures):
    """One board."""

    board: Id
    metered: bool
    """A device has measured this board at least once since counting began."""
    counting_since: AwareDatetime
    power_w: float | None = None
    """The last reading, where it is not older than a gap."""
    dropped: int = Field(default=0, ge=0)
    """Readings since the agent's start that could not be true, and were not taken."""
    states: list[StateEnergy] = Field(default=[])
    periods: list[EnergyPeriod] = Field(default=[])


class EnergyReport(Payload):
    """What one agent's boards used from `since` to `until`."""

    since: AwareDatetime
    """The start of the hour (or day, further back than the hours are kept) in which the wanted time lies."""
    until: AwareDatetime
    boards: list[BoardEnergy] = Field(default=[])
    next: Id | None = None
    """The answer was full: ask again with `after` set to this board."""
