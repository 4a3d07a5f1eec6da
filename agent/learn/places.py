"""How an experiment goes, and what it keeps of each outlet."""

from dataclasses import dataclass, field

from agent.learn.outlet_table import At
from agent.learn.signs import Subject

SHORTEST_S = 1.0
"""Least time that an outlet is on: a board that loses its power at once learns nobody anything."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How an experiment goes. Times are seconds.

    Attributes:
        at_once: how many outlets may be on together.
        spacing_s: between two switch-ons of the survey, so that it is seen who answers whom.
        inrush_s: between any two switch-ons.
        rest_s: how long an outlet stays off before it is tried again, so that its board starts afresh.
        listen_s: longest time without a word after which a board counts as silent.
        quiet_s: a board that has spoken and says no more for so long is done booting, as far as can be heard.
        settle_s: how long a board that is up is left running, for its idle watts.
        drain_s: see `History`.
        baseline_s: how long everything is off in the beginning, to hear who talks anyway.
        odds: how many times likelier than chance a finding must be.
        tries: how often one outlet is switched on at most.
    """

    at_once: int = 1
    spacing_s: float = 4.0
    inrush_s: float = 0.0
    rest_s: float = 4.0
    listen_s: float = 240.0
    quiet_s: float = 45.0
    settle_s: float = 4.0
    drain_s: float = 3.0
    baseline_s: float = 5.0
    odds: float = 1000.0
    tries: int = 20


ON = frozenset({At.RISING, At.LISTENING, At.FALLING, At.RETREATING})
"""It has power, or may have."""
AFTER_DRAIN_S = 0.01
LISTENED = frozenset({At.RISING, At.LISTENING})


@dataclass(slots=True)
class Wish:
    """What one more try of an outlet is for.

    Attributes:
        wait_s: the subjects that are waited for, and how long at most.
        rivals: outlets that must be off meanwhile.
        least_s: listen so long in any case: a rival's board must be given the time to be silent.
    """

    wait_s: dict[Subject, float] = field(default_factory=dict)
    rivals: set[str] = field(default_factory=set)
    least_s: float = SHORTEST_S


@dataclass(slots=True)
class Place:
    """One outlet of the experiment."""

    outlet: str
    found_on: bool
    at: At = At.IDLE
    surveys: int = 0
    tries: int = 0
    surveying: bool = False
    on_since: float = 0.0
    off_since: float = 0.0
    deadlines: dict[Subject, float] = field(default_factory=dict)
    """What a second try waits for, and until when."""
    least_s: float = SHORTEST_S
    ended_by: Subject | None = None
    """Whose word ended its survey."""
    surveyed_s: float = 0.0
    """How long it was listened to at length."""
    watts: list[tuple[float, float]] = field(default_factory=list)
    """(time, watts) while it was surveyed."""
    listened_from: float = 0.0
    """When its last survey began."""
    problem: str | None = None
    is_off: bool = False
