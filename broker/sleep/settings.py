"""`[[broker.sleep]]` and `[[broker.shelves]]`: who sleeps when, and how many boards may start at once."""

import re
from datetime import time
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from broker.jobs.labels import Want
from broker.sleep.policy import QuietHours, SleepRule
from broker.sleep.wake_room import Shelf
from wire.names import Id
from wire.payloads import ShortText

DAY_S = 86400
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone that this machine knows: write for example Europe/Berlin") from None


def _hours(text: str, zone: ZoneInfo) -> QuietHours:
    match = _HOURS.fullmatch(text)
    if match is None or (match[3] == "24" and match[4] != "00"):
        raise ValueError(f"{text!r} are no hours: write for example 22:00-06:30")
    begin, end = time(int(match[1]), int(match[2])), time(int(match[3]) % 24, int(match[4]))
    if begin == end:
        raise ValueError(f"{text!r} begin when they end")
    return QuietHours(begin, end, zone)


class SleepTable(_Table):
    """`[[broker.sleep]]`. The first that fits a board holds for it; what it leaves out is the farm's."""

    labels: dict[ShortText, Any] = {}
    """What the boards have, as a job writes it; empty: every board."""
    boards: Annotated[list[Id], Field(max_length=10_000)] = []
    """Of those only these."""
    idle_s: float | None = Field(default=None, ge=0, le=30 * DAY_S)
    never: bool = False
    """Never put them to sleep."""
    warm: int = Field(default=0, ge=0, le=10_000)
    """So many of them are kept awake and free for the next job."""
    quiet_hours: list[str] = []
    """`["22:00-06:00"]`: then nothing is kept warm. Boards for the time after are woken ahead of it."""
    quiet_idle_s: float | None = Field(default=None, ge=1, le=30 * DAY_S)
    """Instead of `idle_s` in quiet hours."""
    timezone: str = "UTC"
    """Of `quiet_hours`, as in the tz database."""
    min_on_s: float | None = Field(default=None, ge=0, le=DAY_S)
    min_off_s: float | None = Field(default=None, ge=0, le=DAY_S)

    @field_validator("labels")
    @classmethod
    def _labels_can_be_asked_for(cls, labels: dict[str, Any]) -> dict[str, Any]:
        for label, written in labels.items():
            try:
                Want.parse(label, written)
            except ValueError as error:
                raise ValueError(f"{label}: {error}") from None
        return labels

    @model_validator(mode="after")
    def _hours_can_be_read(self) -> Self:
        zone = _zone(self.timezone)
        for text in self.quiet_hours:
            _hours(text, zone)
        if self.quiet_idle_s is not None and not self.quiet_hours:
            raise ValueError("quiet_idle_s without quiet_hours: give both or neither")
        return self

    def rule(self, idle_s: float, min_on_s: float, min_off_s: float) -> SleepRule:
        """The rule, with the farm's times for what is left out."""
        zone = _zone(self.timezone)
        return SleepRule(
            wants=tuple(Want.parse(label, self.labels[label]) for label in sorted(self.labels)),
            boards=frozenset(self.boards),
            idle_s=idle_s if self.idle_s is None else self.idle_s,
            never=self.never,
            warm=self.warm,
            quiet=tuple(_hours(text, zone) for text in self.quiet_hours),
            quiet_idle_s=self.quiet_idle_s,
            min_on_s=min_on_s if self.min_on_s is None else self.min_on_s,
            min_off_s=min_off_s if self.min_off_s is None else self.min_off_s,
        )


class ShelfTable(_Table):
    """`[[broker.shelves]]`: boards that carry the same value of a label share a fuse."""

    label: ShortText = "shelf"
    value: ShortText | None = None
    """For this value only; without it for each value by itself."""
    booting_cap: int | None = Field(default=None, ge=1, le=10_000)
    wake_spacing_s: float = Field(default=0, ge=0, le=3600)
    """Least time between two wakes on the shelf."""

    def shelf(self) -> Shelf:
        return Shelf(self.label, self.value, self.booting_cap, self.wake_spacing_s)
