"""Devices of every temper in simulated time, and what drives one operation on them to its end."""

from dataclasses import dataclass, field

import pytest

from agent.power.driver import Timing
from agent.power.errors import AuthenticationError, ConfigurationError, PowerError, RefusedError, UnreachableError
from agent.power.feed import OutletRef
from agent.power.switch_messages import (
    CallFailed,
    CannotReadBack,
    Finish,
    Read,
    ReadBack,
    Set,
    SetAccepted,
    TimePassed,
    Wait,
)
from agent.power.switching import FeedSwitch
from wire.phases import Power

REF = OutletRef("pdu", "1")
OTHER_REF = OutletRef("hub", "2")
TIMING = Timing(
    verify_deadline_s=5.0, poll_interval_s=0.02, settle_s=0.5, min_off_s=2.0, attempts=3, call_timeout_s=1.0
)


def unreachable(ref=REF):
    return UnreachableError("silent", controller=ref.controller, outlet=ref.outlet)


@dataclass
class Device:
    """An outlet with a temper. Each call takes its next mood from the script."""

    on: bool = False
    lies: bool = False
    follows_after_s: float = 0.0
    set_moods: list[str] = field(default_factory=list)
    get_moods: list[str] = field(default_factory=list)
    blind: bool = False
    on_edges: int = 0
    sets: list[tuple[float, bool]] = field(default_factory=list)
    edges: list[tuple[float, bool]] = field(default_factory=list)
    last_read: Power | None = None
    _pending: tuple[float, bool] | None = None

    def step(self, now):
        if self._pending is not None and now >= self._pending[0]:
            when, on = self._pending
            self._pending = None
            if on != self.on:
                self.on = on
                self.edges.append((when, on))
                self.on_edges += on

    def set(self, now, on):
        self.step(now)
        self.sets.append((now, on))
        self.last_read = None
        mood = self.set_moods.pop(0) if self.set_moods else "ok"
        if mood in {"ok", "done-but-silent"} and not self.lies:
            self._pending = (now + self.follows_after_s, on)
            self.step(now)
        if mood in {"silent", "done-but-silent"}:
            raise unreachable()
        for word, error in (("refused", RefusedError), ("auth", AuthenticationError), ("conf", ConfigurationError)):
            if mood == word:
                raise error("no", controller="pdu", outlet="1")

    def get(self, now):
        self.step(now)
        mood = self.get_moods.pop(0) if self.get_moods else "ok"
        if mood == "silent":
            raise unreachable()
        if mood == "auth":
            raise AuthenticationError("no", controller="pdu", outlet="1")
        self.last_read = Power.UNKNOWN if mood == "unknown" else Power.ON if self.on else Power.OFF
        return self.last_read


def drive(action, devices, *, off_since=None, timing=TIMING, now=100.0, limit=2000, **more):
    """Run one operation to its end; returns (machine, error, when it ended, waits)."""
    timings = dict.fromkeys(devices, timing)
    machine = FeedSwitch(action, tuple(devices), timings, off_since=dict(off_since or {}), **more)
    waits = []
    command = machine.start(now)
    for _ in range(limit):
        match command:
            case Finish(error):
                return machine, error, now, waits
            case Wait(seconds):
                assert seconds >= 0
                waits.append(seconds)
                now += seconds
                event = TimePassed()
            case Set(ref, on):
                now += 0.001
                try:
                    devices[ref].set(now, on)
                    event = SetAccepted()
                except UnreachableError as error:
                    now += 1.0
                    event = CallFailed(error)
                except PowerError as error:
                    event = CallFailed(error)
            case Read(ref):
                now += 0.001
                if devices[ref].blind:
                    event = CannotReadBack()
                else:
                    try:
                        event = ReadBack(devices[ref].get(now))
                    except UnreachableError as error:
                        now += 1.0
                        event = CallFailed(error)
                    except PowerError as error:
                        event = CallFailed(error)
        command = machine.handle(now, event)
    pytest.fail("the operation never ended")
