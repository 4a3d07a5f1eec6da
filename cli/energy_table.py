"""What boards used, as a table: measured and estimated side by side, the estimated marked, the unknown said."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cli.boards import lines
from wire.energy import Basis, BoardEnergy, EnergyFigures, EnergyPeriod

ABOUT = "≈"
HEADS = ("BOARD", "ON", "ASLEEP", "USED", "ESTIMATED", "SAVED BY SLEEP", "COVERAGE")
PRICE_HEADS = ("COST", "SAVED")
NEGLIGIBLE = 0.01
"""A share of the time below which what is not known of it is not worth a word: an agent's restart is seconds."""
LEGEND = (
    f"{ABOUT} estimated, for the time that no device measured: from the board's own average or its settings",
    "? time of which nothing is known is not in it",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One board of one agent."""

    agent: str
    board: BoardEnergy


def duration(seconds: float) -> str:
    """As a person says it: `40 s`, `12 min`, `7.5 h`, `6.2 d`; `-` for none."""
    if seconds <= 0:
        return "-"
    for unit, length_s, upto_s in (("s", 1, 120), ("min", 60, 7200)):
        if seconds < upto_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 86400:.1f} d"


def energy(wh: float) -> str:
    """`0 Wh`, `0.042 Wh`, `45.2 Wh`, `1.234 kWh`."""
    size = abs(wh)
    if size >= 1000:
        return f"{wh / 1000:.3f} kWh"
    if size >= 1:
        return f"{wh:.1f} Wh"
    return f"{wh:.3f} Wh" if size >= 0.0005 else "0 Wh"


def used(figures: EnergyFigures) -> str:
    """What devices measured; `-` where none did."""
    return energy(figures.measured_wh) if figures.measured_s > 0 else "-"


def estimated(figures: EnergyFigures) -> str:
    """What is estimated besides; `unknown` where nothing is known, `-` where next to nothing is missing."""
    unknown = figures.unknown_s > NEGLIGIBLE * figures.total_s
    if figures.estimated_wh is None:
        return "unknown" if unknown else "-"
    if unknown:
        return f"{ABOUT} {energy(figures.estimated_wh)} + ?"
    gap_s = figures.total_s - figures.measured_s
    if gap_s <= NEGLIGIBLE * figures.total_s and figures.estimated_wh <= NEGLIGIBLE * figures.measured_wh:
        return "-"
    return f"{ABOUT} {energy(figures.estimated_wh)}"


def saved(figures: EnergyFigures) -> str:
    """What sleep saved; `-` for a board that did not sleep."""
    if figures.sleeping_s == 0:
        return "-"
    if figures.saved_wh is None:
        return "unknown"
    mark = f"{ABOUT} " if figures.saved_basis is not Basis.MEASURED else ""
    rest = " + ?" if figures.saved_basis is Basis.UNKNOWN else ""
    return f"{mark}{energy(figures.saved_wh)}{rest}"


def coverage(figures: EnergyFigures) -> str:
    """The share of the time that was measured, rounded down: 100 % is all of it."""
    return f"{100 * figures.measured_s / figures.total_s // 1:.0f} %" if figures.total_s > 0 else "-"


def costs(figures: EnergyFigures, price: float) -> tuple[str, str]:
    """What was used and what was saved, at `price` for 1 kWh."""
    whole_wh = figures.measured_wh + (figures.estimated_wh or 0.0)
    known = figures.measured_s > 0 or figures.estimated_wh is not None
    mark = f"{ABOUT} " if figures.estimated_wh else ""
    cost = f"{mark}{whole_wh / 1000 * price:.2f}" if known else "unknown"
    if figures.sleeping_s == 0 or figures.saved_wh is None:
        return cost, "-" if figures.sleeping_s == 0 else "unknown"
    about = "" if figures.saved_basis is Basis.MEASURED else f"{ABOUT} "
    return cost, f"{about}{figures.saved_wh / 1000 * price:.2f}"


def note(board: BoardEnergy) -> str:
    """What a person should know about the board's line."""
    words = []
    if not board.metered:
        words.append("no meter")
        if board.estimated_wh is None and board.unknown_s > NEGLIGIBLE * board.total_s:
            words.append("give it watts_idle in the agent's settings for an estimate")
    if board.dropped:
        words.append(f"{board.dropped} readings dropped")
    return "; ".join(words)


def total(boards: Iterable[EnergyFigures]) -> EnergyFigures:
    """All of them together. `saved_basis` is unknown when one board's saving is, and then `saved_wh` leaves it out."""
    several = list(boards)
    estimates = [figures.estimated_wh for figures in several if figures.estimated_wh is not None]
    slept = [figures for figures in several if figures.sleeping_s > 0]
    savings = [figures.saved_wh for figures in slept if figures.saved_wh is not None]
    bases = {figures.saved_basis for figures in slept}
    basis = next((basis for basis in (Basis.UNKNOWN, Basis.ESTIMATED) if basis in bases), Basis.MEASURED)
    return EnergyFigures(
        total_s=sum(figures.total_s for figures in several),
        on_s=sum(figures.on_s for figures in several),
        sleeping_s=sum(figures.sleeping_s for figures in several),
        measured_s=sum(figures.measured_s for figures in several),
        unknown_s=sum(figures.unknown_s for figures in several),
        measured_wh=sum(figures.measured_wh for figures in several),
        estimated_wh=sum(estimates) if estimates or not several else None,
        saved_wh=sum(savings) if savings or not slept else None,
        saved_basis=basis,
    )


def table(rows: Sequence[Line], price: float | None) -> list[str]:
    """The lines to print: boards, their periods below each, the total when there are several, and what marks mean."""
    heads = (*HEADS, *(PRICE_HEADS if price is not None else ()), "NOTE")
    cells: list[tuple[str, ...]] = []
    for row in rows:
        cells.append((*_cells(row.board.board, row.board, price), note(row.board)))
        cells += [(*_cells(f"  {_when(period)}", period, price), "") for period in row.board.periods]
    if len(rows) > 1:
        cells.append((*_cells("TOTAL", total(row.board for row in rows), price), ""))
    text = [line.rstrip() for line in lines(cells, heads)]
    body = "\n".join(text)
    return text + [entry for entry, mark in zip(LEGEND, (ABOUT, "+ ?"), strict=True) if mark in body]


def _cells(name: str, figures: EnergyFigures, price: float | None) -> tuple[str, ...]:
    return (
        name,
        duration(figures.on_s),
        duration(figures.sleeping_s),
        used(figures),
        estimated(figures),
        saved(figures),
        coverage(figures),
        *(costs(figures, price) if price is not None else ()),
    )


def _when(period: EnergyPeriod) -> str:
    """Days and hours are UTC: they are cut there."""
    start = period.start
    return f"{start:%Y-%m-%d}" if (start.hour, start.minute) == (0, 0) else f"{start:%Y-%m-%d %H:%M}"
