"""The decisions of one switch operation on one feed, without I/O and without a clock.

Two rules. First: power is claimed only from a read-back that came after the last set. Second: a set whose answer was
lost is read back before it is sent again, and only the same value is ever sent again; so an operation can make at
most one ON edge per outlet, and a retry never reboots a board twice.

`FeedSwitch.start` and `FeedSwitch.handle` return the next command; whoever drives the machine carries it out and hands
the event back. `TRANSITIONS` is the whole machine; a pair that does not stand there raises `TransitionError`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, NamedTuple

from agent.power.driver import Timing
from agent.power.errors import NotVerifiedError, PowerError, UnreachableError
from agent.power.feed import OutletRef
from agent.power.switch_messages import (
    CallFailed,
    CannotReadBack,
    Command,
    Event,
    Finish,
    Read,
    ReadBack,
    Set,
    SetAccepted,
    TimePassed,
    Wait,
)
from wire.phases import Power, PowerAction

POLL_GROWTH = 1.6
"""Each pause between two read-backs is this much longer than the one before: quick outlets are seen at once, slow
ones are not asked to death."""
POLL_MAX_S = 0.5
"""No pause grows beyond this, so a slow outlet is reported at most this late."""
BACK_OFF_FIRST_S = 0.25
BACK_OFF_MAX_S = 4.0
"""Rest before a lost set is sent again; doubles from the first to this."""


class State(StrEnum):
    """Where the operation is, on its current leg (one outlet, one direction)."""

    HELD = "held"
    """Waits for the minimum off time."""
    CHECKING = "checking"
    """Asks whether an outlet with a known off time is still off, so that the time counts."""
    SETTING = "setting"
    READING = "reading"
    PAUSED = "paused"
    """Waits before the next read-back."""
    RESTING = "resting"
    """Waits before a lost set is sent again."""
    SETTLING = "settling"
    """Waits before the next outlet of the feed is touched."""
    REPORTING = "reporting"
    """The operation failed; one last read-back tells what is."""
    DONE = "done"


class Symbol(StrEnum):
    """What an event means to the machine."""

    ACCEPTED = "accepted"
    MATCH = "match"
    """Read back as wanted."""
    OTHER = "other"
    """Read back otherwise, or not answered, and there is still time."""
    LATE = "late"
    """The same when the time is up."""
    BLIND = "blind"
    """The device cannot be read back at all."""
    LOST = "lost"
    """The set was not answered: it may or may not have been carried out."""
    FINAL = "final"
    """An error that asking again cannot mend."""
    TIMER = "timer"


_PLAIN: Mapping[type, Symbol] = {
    SetAccepted: Symbol.ACCEPTED,
    TimePassed: Symbol.TIMER,
    CannotReadBack: Symbol.BLIND,
}
"""Events that mean the same in every state."""


class Leg(NamedTuple):
    ref: OutletRef
    on: bool


class TransitionError(RuntimeError):
    """An event that cannot come in this state: whoever drives the machine is at fault."""


def legs_of(action: PowerAction, feed: Iterable[OutletRef], off_feed: Iterable[OutletRef] | None = None) -> list[Leg]:
    """The legs of an action: on in order, off in reverse order, cycle is the one after the other.

    `off_feed`, where given, are the outlets to switch off in place of the whole feed; on always means all.
    """
    order = list(feed)
    off = [Leg(ref, on=False) for ref in reversed(order if off_feed is None else list(off_feed))]
    on = [Leg(ref, on=True) for ref in order]
    return {PowerAction.ON: on, PowerAction.OFF: off, PowerAction.CYCLE: off + on}[action]


@dataclass
class FeedSwitch:
    """One operation: `action` on `feed`.

    Attributes:
        off_since: outlet -> when it was first read back as off and not seen or set otherwise since, on the caller's
            clock. Handed in from the journal, kept up to date.
        readings: outlet -> last read-back after the last set. An outlet that is missing is unknown.
        touched: the outlets that were read or switched so far.
        settle_after_s: outlet -> rest after it has switched, before the next outlet of the feed is touched.
        off_feed: as in `legs_of`.
    """

    action: PowerAction
    feed: tuple[OutletRef, ...]
    timings: Mapping[OutletRef, Timing]
    off_since: dict[OutletRef, float] = field(default_factory=dict)
    readings: dict[OutletRef, Power] = field(default_factory=dict)
    touched: set[OutletRef] = field(default_factory=set)
    settle_after_s: Mapping[OutletRef, float] = field(default_factory=dict)
    off_feed: tuple[OutletRef, ...] | None = None
    state: State = field(default=State.HELD, init=False)
    _legs: list[Leg] = field(init=False)
    _at: int = field(default=0, init=False)
    _assumed_off: dict[OutletRef, float] = field(default_factory=dict, init=False)
    _sent: int = field(default=0, init=False)
    _doubt: UnreachableError | None = field(default=None, init=False)
    _problem: PowerError | None = field(default=None, init=False)
    _silence: PowerError | None = field(default=None, init=False)
    _deadline: float = field(default=0.0, init=False)
    _silence_deadline: float = field(default=0.0, init=False)
    _pause_s: float = field(default=0.0, init=False)
    _unheard_since: float = field(default=0.0, init=False)
    """Since when the device of this leg has answered nothing."""

    def __post_init__(self) -> None:
        self._legs = legs_of(self.action, self.feed, self.off_feed)

    @property
    def leg(self) -> Leg:
        return self._legs[min(self._at, len(self._legs) - 1)]

    @property
    def _timing(self) -> Timing:
        return self.timings[self.leg.ref]

    def start(self, now: float) -> Command:
        """The first command."""
        return self._begin_leg(now)

    def handle(self, now: float, event: Event) -> Command:
        """The next command after `event`, which came at `now`.

        Raises:
            TransitionError: `event` does not answer the last command.
        """
        symbol = self._symbol(now, event)
        step = self.TRANSITIONS.get((self.state, symbol))
        if step is None:
            raise TransitionError(f"{self.action} of {self.leg.ref}: {symbol} cannot come while {self.state}")
        self._remember(now, event)
        return step(self, now)

    # --- what an event means -------------------------------------------------------------------------------------

    def _symbol(self, now: float, event: Event) -> Symbol:
        match event:
            case SetAccepted() | TimePassed() | CannotReadBack():
                return _PLAIN[type(event)]
            case ReadBack(power):
                if power is (Power.ON if self.leg.on else Power.OFF):
                    return Symbol.MATCH
            case CallFailed(error):
                if not isinstance(error, UnreachableError):
                    return Symbol.FINAL
                if self.state is State.SETTING:
                    return Symbol.LOST
        deadline = min(self._silence_deadline, self._given_up_at) if isinstance(event, CallFailed) else self._deadline
        return Symbol.LATE if self.state is State.READING and now >= deadline else Symbol.OTHER

    @property
    def _given_up_at(self) -> float:
        return self._unheard_since + self._timing.answer_deadline_s

    def _remember(self, now: float, event: Event) -> None:
        ref = self.leg.ref
        if not (isinstance(event, TimePassed) or (isinstance(event, CallFailed) and _is_silence(event.error))):
            self._unheard_since = now
        if isinstance(event, ReadBack):
            self.readings[ref] = event.power
            self._silence = None
            if event.power is Power.OFF:
                self.off_since.setdefault(ref, now)
            else:
                self.off_since.pop(ref, None)
        elif isinstance(event, CallFailed):
            self.readings.pop(ref, None)
            if self.state is State.CHECKING:
                self.off_since.pop(ref, None)
            if self.state is State.SETTING and isinstance(event.error, UnreachableError):
                self._doubt = event.error
            elif self._problem is None:
                self._silence = event.error
        elif isinstance(event, SetAccepted):
            self._doubt = None

    # --- steps of the table --------------------------------------------------------------------------------------

    def _begin_leg(self, now: float) -> Command:
        self._sent, self._doubt, self._silence, self._unheard_since = 0, None, None, now
        ref, on = self.leg
        self.touched.add(ref)
        if on:
            since = self.off_since.get(ref, self._assumed_off.get(ref))
            remaining_s = 0.0 if since is None else since + self._timing.min_off_s - now
            if remaining_s > 0:
                self.state = State.HELD
                return Wait(remaining_s)
        elif ref in self.off_since:
            self.state = State.CHECKING
            return Read(ref)
        return self._send(now)

    def _send(self, now: float) -> Command:
        ref, on = self.leg
        if self.state is State.HELD:
            self._unheard_since = now  # it was not asked before
        self.state = State.SETTING
        self._sent += 1
        self.readings.pop(ref, None)
        if on:
            self.off_since.pop(ref, None)
        return Set(ref, on)

    def _verify(self, now: float) -> Command:
        timing = self._timing
        if self._doubt is not None and now >= self._given_up_at:
            return self._fail(self._doubt)
        # A lost set is watched only as long as an outlet normally takes, then sent again; the last one gets all the
        # time there is.
        again = self._doubt is not None and self._sent < timing.attempts
        allowed_s = min(timing.settle_s, timing.verify_deadline_s) if again else timing.verify_deadline_s
        self._deadline = now + allowed_s
        # A device that answers neither the set nor the read-back is away: no use in asking it for the whole time.
        settle_s = min(timing.settle_s, allowed_s)
        self._silence_deadline = now + (allowed_s if self._doubt is None else settle_s)
        self._pause_s = timing.poll_interval_s
        return self._look(now)

    def _look(self, now: float) -> Command:
        del now
        self.state = State.READING
        return Read(self.leg.ref)

    def _pause(self, now: float) -> Command:
        self.state = State.PAUSED
        end = min(self._deadline, self._given_up_at) if self._silence is not None else self._deadline
        pause_s = max(0.0, min(self._pause_s, end - now))
        self._pause_s = min(self._pause_s * POLL_GROWTH, POLL_MAX_S)
        return Wait(pause_s)

    def _next_leg(self, now: float) -> Command:
        ref, at = self.leg.ref, self._at + 1
        rest_s = self.settle_after_s.get(ref, 0.0)
        # Between the off and the on of one outlet the minimum off time is the rest.
        if rest_s > 0 and self.state is not State.SETTLING and at < len(self._legs) and self._legs[at].ref != ref:
            self.state = State.SETTLING
            return Wait(rest_s)
        self._at = at
        return self._begin_leg(now) if self._at < len(self._legs) else self._finish(now)

    def _blind(self, now: float) -> Command:
        if self._doubt is not None:
            # Nobody can tell whether it was carried out, so it is not sent again.
            return self._fail(self._doubt)
        if not self.leg.on:
            self._assumed_off[self.leg.ref] = now
        return self._next_leg(now)

    def _late(self, now: float) -> Command:
        ref, on = self.leg
        if self._doubt is not None and self._sent < self._timing.attempts and now < self._given_up_at:
            self.state = State.RESTING
            return Wait(min(BACK_OFF_FIRST_S * 2 ** (self._sent - 1), BACK_OFF_MAX_S, self._given_up_at - now))
        if self._doubt is not None:
            return self._fail(self._doubt)
        if self._silence is not None:
            return self._fail(self._silence)
        wanted = Power.ON if on else Power.OFF
        return self._fail(
            NotVerifiedError(
                f"accepted {wanted}, and {self._timing.verify_deadline_s:g} s later still reads back "
                f"{self.readings.get(ref, Power.UNKNOWN)}",
                controller=ref.controller,
                outlet=ref.outlet,
                do="look at the outlet: a relay that sticks, a hub without power switching, a locked or pending outlet",
            )
        )

    def _fail_on_read(self, now: float) -> Command:
        del now
        return self._fail(self._silence or _undescribed(self.leg))

    def _report(self, now: float) -> Command:
        del now
        self._problem = self._silence
        if self._problem is not None:
            self._problem.attempts = self._sent
        self.state = State.REPORTING
        return Read(self.leg.ref)

    def _finish(self, now: float) -> Command:
        del now
        self.state = State.DONE
        return Finish(self._problem)

    def _fail(self, error: PowerError) -> Command:
        error.attempts = self._sent
        self._problem = error
        self.state = State.DONE
        return Finish(error)

    TRANSITIONS: ClassVar[Mapping[tuple[State, Symbol], Callable[["FeedSwitch", float], Command]]] = {
        (State.HELD, Symbol.TIMER): _send,
        (State.CHECKING, Symbol.MATCH): _send,
        (State.CHECKING, Symbol.OTHER): _send,
        (State.CHECKING, Symbol.BLIND): _send,
        (State.CHECKING, Symbol.FINAL): _fail_on_read,
        (State.SETTING, Symbol.ACCEPTED): _verify,
        (State.SETTING, Symbol.LOST): _verify,
        (State.SETTING, Symbol.FINAL): _report,
        (State.READING, Symbol.MATCH): _next_leg,
        (State.READING, Symbol.OTHER): _pause,
        (State.READING, Symbol.LATE): _late,
        (State.READING, Symbol.BLIND): _blind,
        (State.READING, Symbol.FINAL): _fail_on_read,
        (State.PAUSED, Symbol.TIMER): _look,
        (State.RESTING, Symbol.TIMER): _send,
        (State.SETTLING, Symbol.TIMER): _next_leg,
        (State.REPORTING, Symbol.MATCH): _finish,
        (State.REPORTING, Symbol.OTHER): _finish,
        (State.REPORTING, Symbol.BLIND): _finish,
        (State.REPORTING, Symbol.FINAL): _finish,
    }


TRANSITIONS = FeedSwitch.TRANSITIONS
"""(state, symbol) -> step. The diagram in docs/ is made from it."""


def _undescribed(leg: Leg) -> PowerError:
    return UnreachableError("failed without a reason", controller=leg.ref.controller, outlet=leg.ref.outlet)


def _is_silence(error: PowerError) -> bool:
    return isinstance(error, UnreachableError)
