"""From amounts to what a person is told: estimates for what no device measured, and what sleep saved.

An estimate never enters a measured figure. It comes, in this order, from the board's own measured average in the same
state, from the watts in its settings, and for a board that was read back as off from that: outlets that are off pass
nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.energy import JOULES_PER_WH, Amount, Amounts
from wire.energy import Basis, BoardEnergy, EnergyFigures, EnergyPeriod, EnergyState, StateEnergy
from wire.payloads import Telemetry

ENOUGH_S = 60.0
"""Measured time below which an average is a moment and no average."""
ENOUGH_HERE_S = 600.0
"""Measured time from which the average of the asked time goes before that of all time: boards change over the years."""


@dataclass(frozen=True, slots=True)
class Nameplate:
    """Watts of a board from its settings, for where no device measures it."""

    idle_w: float | None = None
    busy_w: float | None = None
    off_w: float | None = None

    def watts(self, state: EnergyState) -> float | None:
        """What the settings let expect. Without watts for work, those for idling: at least that is drawn. For an
        unknown state there are none."""
        match state:
            case EnergyState.OFF | EnergyState.SLEEPING:
                return 0.0 if self.off_w is None else self.off_w
            case EnergyState.BUSY | EnergyState.COMING_UP:
                return self.idle_w if self.busy_w is None else self.busy_w
            case EnergyState.IDLE | EnergyState.ON:
                return self.idle_w
            case EnergyState.UNKNOWN:
                return None


@dataclass(frozen=True, slots=True)
class Guess:
    """What a state draws on average."""

    watts: float
    measured: bool
    """The board's own average; otherwise from its settings."""


def guesses(here: Amounts, ever: Amounts, plate: Nameplate) -> dict[EnergyState, Guess]:
    """What the states of a board draw; a state of which nothing is known is missing. `here` is the time that is asked
    about, `ever` all time."""
    found = {}
    for state in EnergyState:
        average = _average(here.get(state), ENOUGH_HERE_S)
        if average is None:
            average = _average(ever.get(state), ENOUGH_S)
        if average is not None:
            found[state] = Guess(average, measured=True)
        elif (nominal := plate.watts(state)) is not None:
            found[state] = Guess(nominal, measured=False)
    return found


def _average(amount: Amount | None, enough_s: float) -> float | None:
    if amount is None or amount.measured_s < enough_s:
        return None
    return amount.wh * JOULES_PER_WH / amount.measured_s


def states_of(amounts: Amounts, drawn: Mapping[EnergyState, Guess]) -> list[StateEnergy]:
    """Each state that was seen, in the order of `EnergyState`."""
    return [
        StateEnergy(
            state=state,
            measured_s=amount.measured_s,
            unmeasured_s=amount.unmeasured_s,
            measured_wh=amount.wh,
            estimated_wh=_estimate(amount, drawn.get(state)),
        )
        for state in EnergyState
        if (amount := amounts.get(state)) is not None and amount.total_s > 0
    ]


def _estimate(amount: Amount, guess: Guess | None) -> float | None:
    if amount.unmeasured_s == 0:
        return 0.0
    return None if guess is None else amount.unmeasured_s * guess.watts / JOULES_PER_WH


def figures(amounts: Amounts, drawn: Mapping[EnergyState, Guess]) -> EnergyFigures:
    """The span of time that `amounts` are of, in figures."""
    shares = states_of(amounts, drawn)
    unmeasured_s = sum(share.unmeasured_s for share in shares)
    unknown_s = sum(share.unmeasured_s for share in shares if share.estimated_wh is None)
    known_wh = [share.estimated_wh for share in shares if share.estimated_wh is not None and share.unmeasured_s > 0]
    saved_wh, basis = saved(amounts, drawn)
    return EnergyFigures(
        total_s=sum(share.measured_s + share.unmeasured_s for share in shares),
        on_s=sum(share.measured_s + share.unmeasured_s for share in shares if share.state.powered),
        sleeping_s=amounts.get(EnergyState.SLEEPING, Amount()).total_s,
        measured_s=sum(share.measured_s for share in shares),
        unknown_s=unknown_s,
        measured_wh=sum(share.measured_wh for share in shares),
        estimated_wh=sum(known_wh) if known_wh or not unmeasured_s else None,
        saved_wh=saved_wh,
        saved_basis=basis,
    )


def saved(amounts: Amounts, drawn: Mapping[EnergyState, Guess]) -> tuple[float | None, Basis]:
    """What sleep saved: its seconds at the watts of idling, less what was used in them. Measured when both the idle
    average and every second of the sleep are; unknown, and no figure, when nothing tells what idling draws."""
    sleep = amounts.get(EnergyState.SLEEPING, Amount())
    if sleep.total_s == 0:
        return 0.0, Basis.MEASURED
    idle, asleep = drawn.get(EnergyState.IDLE), drawn.get(EnergyState.SLEEPING)
    used_wh = _estimate(sleep, asleep)
    if idle is None or used_wh is None:
        return None, Basis.UNKNOWN
    measured = idle.measured and sleep.unmeasured_s == 0
    saved_wh = idle.watts * sleep.total_s / JOULES_PER_WH - sleep.wh - used_wh
    return saved_wh, Basis.MEASURED if measured else Basis.ESTIMATED


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """What the report needs of a board besides its periods."""

    since: datetime
    ever: Amounts
    plate: Nameplate
    power_w: float | None
    dropped: int


def board_energy(board: str, facts: BoardFacts, periods: Mapping[datetime, Amounts], *, listed: bool) -> BoardEnergy:
    """One board's line of the report; `listed`: with its periods one by one."""
    amounts = summed(periods.values())
    drawn = guesses(amounts, facts.ever, facts.plate)
    lines = []
    if listed:
        lines = [EnergyPeriod(start=start, **dict(figures(period, drawn))) for start, period in sorted(periods.items())]
    return BoardEnergy(
        board=board,
        metered=any(amount.measured_s > 0 for amount in facts.ever.values()),
        counting_since=facts.since,
        power_w=facts.power_w,
        dropped=facts.dropped,
        states=states_of(amounts, drawn),
        periods=lines,
        **dict(figures(amounts, drawn)),
    )


def telemetry(facts: BoardFacts, temperature_c: float | None) -> Telemetry:
    """A board's present power, and its energy since counting began."""
    total = figures(facts.ever, guesses({}, facts.ever, facts.plate))
    return Telemetry(
        power_w=facts.power_w,
        energy_wh=total.measured_wh if total.measured_s > 0 else None,
        estimated_wh=total.estimated_wh if total.measured_s < total.total_s else None,
        energy_since=facts.since,
        temperature_c=temperature_c,
    )


def summed(parts: Iterable[Amounts]) -> dict[EnergyState, Amount]:
    """All parts together."""
    whole: dict[EnergyState, Amount] = {}
    for part in parts:
        for state, amount in part.items():
            whole.setdefault(state, Amount()).add(amount)
    return whole
