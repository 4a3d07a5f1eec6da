"""A board for a person, for a time: the table of a lease's states, and the record that the broker keeps of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from broker.matching.waiting import Needs
from wire.payloads import LeaseNotice
from wire.phases import LeaseStage


class LeaseEvent(StrEnum):
    """What can happen to a person's lease."""

    GIVE = "give"
    """A board was found."""
    WARN = "warn"
    """Its end is near."""
    EXTEND = "extend"
    END = "end"


_TABLE: dict[LeaseStage, dict[LeaseEvent, LeaseStage]] = {
    LeaseStage.WAITING: {LeaseEvent.GIVE: LeaseStage.HELD, LeaseEvent.END: LeaseStage.ENDED},
    LeaseStage.HELD: {
        LeaseEvent.WARN: LeaseStage.ENDING,
        LeaseEvent.EXTEND: LeaseStage.HELD,
        LeaseEvent.END: LeaseStage.ENDED,
    },
    LeaseStage.ENDING: {LeaseEvent.EXTEND: LeaseStage.HELD, LeaseEvent.END: LeaseStage.ENDED},
    LeaseStage.ENDED: {},
}
TABLE: Mapping[LeaseStage, Mapping[LeaseEvent, LeaseStage]] = MappingProxyType(_TABLE)


class LeaseStageError(Exception):
    """The broker asked for a change that the table does not have: a defect of ours, never of a message."""


@dataclass(frozen=True, slots=True)
class LeaseRules:
    """What a farm allows people. Seconds; `broker.leases.settings` explains each."""

    longest_s: float = 30 * 86400.0
    warn_s: float = 600.0
    off_when_done: bool = False
    most_waiting: int = 10_000


@dataclass(slots=True)
class PersonLease:
    """One lease of a person. `number` is from the count of the jobs, so that age compares over both."""

    number: int
    holder: str
    needs: Needs
    lasts_s: float
    """Of its time, as it was asked for last."""
    asked: datetime
    comment: str = ""
    wake: bool = False
    """A sleeping board is switched on for it."""
    off: bool = False
    """The board is switched off at the end."""
    stage: LeaseStage = LeaseStage.WAITING
    board: str | None = None
    token: int | None = None
    since: datetime | None = None
    expires: datetime | None = None
    ended: datetime | None = None
    reason: str | None = None
    """What is wrong with it, or why it ended."""
    woken: bool = False
    """The board was seen on its way up, or failed to: it is not switched on once more by us."""
    closing: bool = False
    """It has ended, and its board is still to be switched off."""
    ends: float = 0.0
    """`expires` in monotonic seconds. What counts; the wall's clock may jump."""
    tries: int = 0
    """Commands to switch the board on or off."""
    again: float = 0.0
    """When to look after the last of them, in monotonic seconds."""

    @property
    def id(self) -> str:
        return f"lease-{self.number}"

    @property
    def held(self) -> bool:
        return self.stage in {LeaseStage.HELD, LeaseStage.ENDING}

    @property
    def open(self) -> bool:
        """Whether something is still to be done about it."""
        return self.stage is not LeaseStage.ENDED or self.closing

    def step(self, event: LeaseEvent) -> None:
        """Change the stage by the table.

        Raises:
            LeaseStageError: the table has no such change.
        """
        after = TABLE[self.stage].get(event)
        if after is None:
            raise LeaseStageError(f"{self.id} is {self.stage.value} and cannot {event.value}")
        self.stage = after

    def notice(self) -> LeaseNotice:
        """The lease as MQTT hears of it."""
        return LeaseNotice(
            lease=self.id,
            stage=self.stage,
            holder=self.holder,
            board=self.board,
            since=self.since,
            expires=self.expires,
            comment=self.comment or None,
            reason=self.reason,
        )


def lease_number(text: str) -> int | None:
    """The number in `lease-12`, or None if it is no id of a lease of ours."""
    head, _, digits = text.partition("-")
    ours = head == "lease" and digits.isascii() and digits.isdigit() and len(digits) <= 15 and digits[0] != "0"
    return int(digits) if ours else None
