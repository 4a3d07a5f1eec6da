"""What a power driver is. One driver object stands for one physical controller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from agent.power.errors import PowerError
from wire.phases import Phase, Power


@dataclass(frozen=True, slots=True)
class Timing:
    """How a family of controllers behaves in time. All values are seconds, except `attempts`.

    Attributes:
        verify_deadline_s: a set that was accepted and does not show in the read-back after this long is a lie.
        poll_interval_s: pause after the first read-back that did not show it; later pauses grow.
        settle_s: within this time an outlet of the family normally shows the new state. A set whose answer was lost
            is watched this long before it is sent again.
        min_off_s: shortest time without power that makes a board start afresh (capacitors), unless the board says
            otherwise.
        attempts: how often a set may be sent when its answer is lost; at least 1.
        call_timeout_s: longest time one call of the driver may take; after it the call counts as unanswered.
        answer_deadline_s: a device that has answered nothing for this long, counted from the first command to an
            outlet, is reported as unreachable, however many attempts are left.
    """

    verify_deadline_s: float = 5.0
    poll_interval_s: float = 0.02
    settle_s: float = 0.5
    min_off_s: float = 2.0
    attempts: int = 3
    call_timeout_s: float = 10.0
    answer_deadline_s: float = 6.0


@dataclass(frozen=True, slots=True)
class OutletDescription:
    """One outlet as the controller describes it: `outlet` is how a feed names it, `name` what is written on it."""

    outlet: str
    name: str = ""
    power: Power = Power.UNKNOWN


class Driver(Protocol):
    """One way of switching outlets.

    Order of calls: any, at any time after construction; the driver connects when it is first needed and again when
    the device has vanished. Calls to one driver never overlap: its queue sees to that. `close` comes last, once.

    A driver never retries, verifies, sleeps or locks: the core does, once for all. It never blocks the event loop.
    Vendor values stay inside it.

    Errors, and who recovers: `UnreachableError` when the device did not answer, whatever the reason (the core reads
    back, then may call again); `ConfigurationError`, `AuthenticationError`, `RefusedError` when it did answer and
    calling again cannot help (the core gives up). Every call may be cancelled; the device is then in an unknown
    state, and the next call has to work all the same.
    """

    @property
    def timing(self) -> Timing:
        """May change once the device has said what it is."""

    @property
    def reads_back(self) -> bool:
        """Whether `get` tells what is. While False, `get` returns `Power.UNKNOWN` and nothing is ever claimed.
        May change when the device has answered, or failed to answer, a first question."""

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - the contract's own words
        """Tell the outlet to be on or off. Returns when the device accepted, not when it has switched. Setting an
        outlet to what it is already has no effect on the board."""

    async def get(self, outlet: str) -> Power:
        """The outlet's state as the device reports it now, never what was asked for. `UNKNOWN` when the device says
        that it does not know, or is in between."""

    async def read(self, outlet: str) -> float | None:
        """Watts now, or None where the device does not measure this outlet."""

    async def describe(self) -> list[OutletDescription]:
        """All outlets that the device says it has; empty where it cannot say."""

    async def close(self) -> None:
        """Let go of the device. Never raises for hardware faults."""


@runtime_checkable
class ReadsMany(Protocol):
    """A driver whose device can tell of several outlets in one question."""

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        """As `get`, for each of `outlets`. One that is wrong has its error in its place; a device that is silent
        raises `UnreachableError` for all."""

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        """As `read`, for each of `outlets`."""


@runtime_checkable
class Identifies(Protocol):
    """A driver that finds out what its device is."""

    async def identify(self) -> str:
        """What the device is, and why that is believed, as one clause for people: `apc-rpdu2: sysObjectID
        1.3.6.1.4.1.318.1.3.4.6`. Errors as for `get`."""


@runtime_checkable
class ShowsPhase(Protocol):
    """A driver whose device can show where its board is, as a power cable with LEDs."""

    async def show(self, outlet: str, phase: Phase) -> None:
        """Show `phase`. Errors as for `set`; nobody retries it."""
