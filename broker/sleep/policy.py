"""Which boards that nobody needs stay awake, go to sleep or are woken ahead of need. Pure: no I/O, no clock.

The first rule whose labels or names fit a board holds for it; a board that none fits follows the farm's `idle_s`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from math import ceil
from zoneinfo import ZoneInfo

from broker.farm_view import MAX_BOARDS, BoardPicture
from broker.jobs.labels import Want
from broker.sleep.wake_forecast import WakeForecast


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `begin` to `end` by the clock on the wall of `zone`, over midnight where `end` is not later."""

    begin: time
    end: time
    zone: ZoneInfo

    def hold(self, wall: datetime) -> bool:
        """Whether they hold at this moment."""
        here = wall.astimezone(self.zone).time()
        if self.begin < self.end:
            return self.begin <= here < self.end
        return here >= self.begin or here < self.end


@dataclass(frozen=True, slots=True)
class SleepRule:
    """What holds for some boards. Seconds where a name ends in `_s`."""

    wants: tuple[Want, ...] = ()
    boards: frozenset[str] = frozenset()
    """These boards; where it is empty, all that meet `wants`."""
    idle_s: float = 300.0
    """So long idle, then asleep; 0: never."""
    never: bool = False
    """Never put to sleep."""
    warm: int = 0
    """So many of them are kept awake and free for the next job."""
    quiet: tuple[QuietHours, ...] = ()
    """In these hours nothing is kept warm."""
    quiet_idle_s: float | None = None
    """Instead of `idle_s` in quiet hours."""
    min_on_s: float = 120.0
    min_off_s: float = 0.0

    def fits(self, picture: BoardPicture) -> bool:
        """Whether the rule holds for the board."""
        if self.boards and picture.name not in self.boards:
            return False
        return all(want.met_by(picture.labels) for want in self.wants)

    def is_quiet(self, wall: datetime) -> bool:
        return any(hours.hold(wall) for hours in self.quiet)

    def idle_limit_s(self, wall: datetime) -> float | None:
        """How long a board may idle at this moment; None: for ever."""
        if self.never or self.idle_s <= 0:
            return None
        return self.quiet_idle_s if self.quiet_idle_s is not None and self.is_quiet(wall) else self.idle_s


@dataclass(frozen=True, slots=True)
class Idle:
    """A board that is ready and has no lease."""

    picture: BoardPicture
    idle_s: float
    on_s: float


@dataclass(slots=True)
class Group:
    """The boards of one rule, as they are now."""

    rule: SleepRule
    idle: list[Idle] = field(default_factory=list)
    coming: list[str] = field(default_factory=list)
    """Boards that come up with no lease waiting for them."""
    asleep: list[BoardPicture] = field(default_factory=list)
    """Boards that could be woken: in service, rested, not just refused."""

    def kept_warm(self, wall: datetime, forecast: WakeForecast, booting_cap: int) -> int:
        """How many boards are to be awake and free now: the warm minimum, ahead of the end of quiet hours by the time
        that waking as many takes."""
        rule = self.rule
        if not rule.warm or not rule.is_quiet(wall):
            return rule.warm
        # Of all that may be kept, awake or not: what was just woken for the morning must not be sent back to sleep.
        names = [one.picture.name for one in self.idle] + self.coming + [picture.name for picture in self.asleep]
        lead_s = max((forecast.lead_s(name) for name in names), default=0.0)
        lead_s *= ceil(min(rule.warm, len(names)) / max(1, booting_cap))
        return 0 if rule.is_quiet(wall + timedelta(seconds=lead_s)) else rule.warm

    def to_sleep(self, wall: datetime, kept: int) -> list[str]:
        """Boards that have been idle, and on, for long enough, and are not kept warm: the longest idle first."""
        limit_s = self.rule.idle_limit_s(wall)
        spare = len(self.idle) + len(self.coming) - kept
        if limit_s is None or spare <= 0:
            return []
        due = [
            one
            for one in self.idle
            if one.idle_s >= limit_s and one.on_s >= self.rule.min_on_s and one.picture.labels.get("sleep") is not False
        ]
        due.sort(key=lambda one: (-one.idle_s, one.picture.name))
        return [one.picture.name for one in due[:spare]]

    def to_wake(self, kept: int, forecast: WakeForecast) -> list[BoardPicture]:
        """Boards to wake for the warm minimum, those that boot quickest first."""
        missing = kept - len(self.idle) - len(self.coming)
        if missing <= 0:
            return []
        ordered = sorted(self.asleep, key=lambda picture: (forecast.typical_s(picture.name) or 0.0, picture.name))
        return ordered[:missing]


@dataclass(slots=True)
class SleepRules:
    """All rules of a farm, the farm's own last."""

    rules: tuple[SleepRule, ...]
    _of: dict[str, tuple[object, SleepRule]] = field(default_factory=dict)

    def of(self, picture: BoardPicture) -> SleepRule:
        """The rule that holds for a board."""
        known = self._of.get(picture.name)
        if known is not None and known[0] is picture.labels:
            return known[1]
        rule = next((rule for rule in self.rules[:-1] if rule.fits(picture)), self.rules[-1])
        if len(self._of) >= MAX_BOARDS:
            self._of.clear()
        self._of[picture.name] = (picture.labels, rule)
        return rule

    @property
    def labels(self) -> set[str]:
        """Labels that the rules ask for."""
        return {want.label for rule in self.rules for want in rule.wants}


def with_farm_rule(rules: Iterable[SleepRule], idle_s: float, min_on_s: float, min_off_s: float) -> SleepRules:
    """The rules of the settings and, for every other board, the farm's own times."""
    return SleepRules((*rules, SleepRule(idle_s=idle_s, min_on_s=min_on_s, min_off_s=min_off_s)))
