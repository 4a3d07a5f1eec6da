"""Words of metering: what a device reads, what a board does with its power, and amounts of energy."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from wire.energy import EnergyState
from wire.phases import Phase, Power

HOUR_S = 3600
DAY_S = 86400
JOULES_PER_WH = 3600.0


@dataclass(frozen=True, slots=True)
class MeterReading:
    """What a device says of one board at one moment; None for what it does not measure."""

    power_w: float | None = None
    energy_wh: float | None = None
    """The device's own counter. It may start anew at any time; only differences are used."""
    temperature_c: float | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """A board as the agent sees it: power read back, and phase."""

    power: Power = Power.UNKNOWN
    phase: Phase = Phase.OFF

    @property
    def state(self) -> EnergyState:
        """Where its seconds and watt hours are counted. Power that was read back goes before phase."""
        if self.power is Power.UNKNOWN:
            return EnergyState.UNKNOWN
        if self.power is Power.OFF:
            return EnergyState.SLEEPING if self.phase is Phase.SLEEPING else EnergyState.OFF
        if self.phase.coming_up:
            return EnergyState.COMING_UP
        return {Phase.READY: EnergyState.IDLE, Phase.BUSY: EnergyState.BUSY}.get(self.phase, EnergyState.ON)


@dataclass(slots=True)
class Amount:
    """Seconds and measured energy. Energy is there for the measured seconds only."""

    measured_s: float = 0.0
    unmeasured_s: float = 0.0
    wh: float = 0.0

    @property
    def total_s(self) -> float:
        return self.measured_s + self.unmeasured_s

    def add(self, other: "Amount") -> None:
        self.measured_s += other.measured_s
        self.unmeasured_s += other.unmeasured_s
        self.wh += other.wh


Amounts = Mapping[EnergyState, Amount]


class BucketKey(NamedTuple):
    """Where an amount is kept: one state of one board in one hour or day, UTC."""

    board: str
    length_s: int
    """`HOUR_S` or `DAY_S`."""
    start_s: int
    """Seconds since the epoch, a multiple of `length_s`."""
    state: EnergyState


@dataclass(frozen=True, slots=True)
class BoardRecord:
    """What is stored of one board besides its buckets: enough to go on counting after a restart."""

    since: datetime
    """Counting began."""
    until: datetime
    """Everything before is accounted for."""
    counter_wh: float | None
    """The device's counter at `until`."""
    totals: dict[EnergyState, Amount]
    """Since counting began."""
