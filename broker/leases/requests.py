"""The requests of people who want a board for themselves: `reserve`, `extend`, `release`, `hand-over`, `leases`."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, field_validator

from broker.jobs.labels import Want
from broker.leases.happenings import ExtendLease, HandOver, LeaseOrder, Release, Reserve
from broker.leases.person_leases import PersonLeases
from broker.matching.waiting import Needs
from wire.names import Id
from wire.payloads import Payload, ShortText
from wire.phases import LeaseKind

VERBS = ("reserve", "extend", "release", "hand-over")
MOST_LABELS = 50
# A job's lease is held by `<broker>/<job>`: no person may look like one, nor like two words.
Holder = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[^\s/\x00-\x1f\x7f]+$")]
ForS = Annotated[float, Field(gt=0, le=366 * 86400)]
Comment = Annotated[str, Field(max_length=256)]


class _Reserve(Payload):
    holder: Holder
    board: Id | None = None
    labels: dict[ShortText, Any] = Field(default={}, max_length=MOST_LABELS)
    for_s: ForS = 7200.0
    comment: Comment = ""
    wait: bool = False
    wake: bool = False
    off: bool | None = None

    @field_validator("labels")
    @classmethod
    def _labels_can_be_asked_for(cls, labels: dict[str, Any]) -> dict[str, Any]:
        for label, written in labels.items():
            try:
                Want.parse(label, written)
            except ValueError as error:
                raise ValueError(f"{label}: {error}") from None
        return labels


class _Extend(Payload):
    lease: Id
    for_s: ForS
    holder: Holder | None = None


class _Release(Payload):
    lease: Id
    holder: Holder | None = None


class _HandOver(Payload):
    lease: Id
    to: Holder
    holder: Holder | None = None


class AskedForLeases(Payload):
    """The data of `leases`."""

    start: int = Field(default=0, ge=0, le=2**31)
    lease: Id | None = None


@dataclass(frozen=True, slots=True)
class AskLeases:
    """Who holds what, and who waits, from line `start` on; or this one lease of a person."""

    tag: str
    start: int
    lease: str | None = None


class LeaseLine(Payload):
    """One line in the answer to `leases`. With `waits`, nothing is held yet."""

    lease: Id
    board: Id | None = None
    holder: ShortText
    kind: LeaseKind
    since: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    asked: AwareDatetime | None = None
    """Since when it waits, or waited."""
    comment: ShortText | None = None
    waits: str | None = None
    reason: str | None = None
    """What is wrong: the board could not be switched on."""


Models = type[_Reserve] | type[_Extend] | type[_Release] | type[_HandOver]
MODELS: dict[str, Models] = {"reserve": _Reserve, "extend": _Extend, "release": _Release, "hand-over": _HandOver}
"""What stands in the data of each verb."""


def lease_order(tag: str, data: Payload) -> LeaseOrder:
    """The order that checked data of one of `MODELS` gives."""
    match data:
        case _Reserve():
            wants = tuple(Want.parse(label, data.labels[label]) for label in sorted(data.labels))
            needs = Needs(data.board, wants, still=not data.wake)
            return Reserve(
                tag, data.holder, needs, data.for_s, data.comment, wait=data.wait, wake=data.wake, off=data.off
            )
        case _Extend():
            return ExtendLease(tag, data.lease, data.for_s, data.holder)
        case _Release():
            return Release(tag, data.lease, data.holder)
        case _HandOver():
            return HandOver(tag, data.lease, data.to, data.holder)
        case _:
            raise TypeError(f"{type(data).__name__} is no order for leases")


def lease_lines(people: PersonLeases, only: str | None = None) -> list[LeaseLine]:
    """Every lease: people's and jobs' by board, then who waits, the longest first; or `only` that one."""
    lines = [
        LeaseLine(
            lease=lease.id,
            board=lease.board,
            holder=lease.holder,
            kind=LeaseKind.PERSON,
            since=lease.since,
            expires=lease.expires,
            asked=lease.asked,
            comment=lease.comment or None,
            waits=waits,
            reason=lease.reason,
        )
        for lease, waits in (people.lines() if only is None else people.line(only))
    ]
    if only is not None:
        return lines
    held = [line for line in lines if line.board is not None]
    for board, one in people.ledger.held.items():
        holder = f"{people.ledger.policy.name}/{one.job.id}"
        held.append(
            LeaseLine(
                lease=one.job.id,
                board=board,
                holder=holder,
                kind=LeaseKind.JOB,
                since=one.began,
                expires=one.job.expires,
                asked=one.job.submitted,
                comment=one.job.spec.name[:256] or None,
            )
        )
    held.sort(key=lambda line: line.board or "")
    return held + [line for line in lines if line.board is None]
