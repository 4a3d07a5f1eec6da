"""What the scheduler is told of people's leases, and asks for. Part of `broker.happenings`."""

from dataclasses import dataclass

from broker.leases.lease import PersonLease
from broker.matching.waiting import Needs
from wire.payloads import LeaseNotice

# --- told ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reserve:
    """A person wants a board for so long. With `wait` he queues when none is free; with `wake` one that sleeps is
    switched on for him; `off`: switch it off at the end, None: as the farm does it."""

    tag: str
    holder: str
    needs: Needs
    for_s: float
    comment: str = ""
    wait: bool = False
    wake: bool = False
    off: bool | None = None


@dataclass(frozen=True, slots=True)
class ExtendLease:
    """Hold it for so long from now on. `lease` is its id or its board; with `holder`, it must be his: so below."""

    tag: str
    lease: str
    for_s: float
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Give the board back, or leave the queue."""

    tag: str
    lease: str
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class HandOver:
    """The rest of its time is somebody else's."""

    tag: str
    lease: str
    to: str
    holder: str | None = None


LeaseOrder = Reserve | ExtendLease | Release | HandOver


# --- asked for -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaveLease:
    """A person's lease as it now is."""

    lease: PersonLease


@dataclass(frozen=True, slots=True)
class TellLease:
    """Of a person; a job's lease is told with the job."""

    notice: LeaseNotice
