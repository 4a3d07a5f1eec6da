"""A driver without hardware, for the tests of what stands above drivers."""

import asyncio
from dataclasses import dataclass, field, replace

from agent.power.driver import OutletDescription, Timing
from agent.power.errors import UnreachableError
from agent.power.kinds.command import CommandSettings
from wire.phases import Power

__all__ = ["replace"]

QUICK = Timing(
    verify_deadline_s=0.3, poll_interval_s=0.005, settle_s=0.05, min_off_s=0.1, attempts=2, call_timeout_s=0.2
)


def any_settings(**more):
    """Settings that a fake factory does not look at."""
    return CommandSettings(driver="command", on=["true"], off=["true"], **more)


@dataclass
class FakeDriver:
    name: str = "rack"
    timing: Timing = QUICK
    reads_back: bool = True
    on: dict[str, bool] = field(default_factory=dict)
    lies: bool = False
    hangs: bool = False
    stubborn: bool = False
    error: Exception | None = None
    calls: list[tuple] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    shown: list = field(default_factory=list)
    closed: bool = False

    async def _enter(self, *call):
        self.calls.append(call)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)
            while self.hangs:
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    if not self.stubborn:
                        raise
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1

    async def set(self, outlet, on):
        await self._enter("set", outlet, on)
        if not self.lies:
            self.on[outlet] = on

    async def get(self, outlet):
        await self._enter("get", outlet)
        if not self.reads_back:
            return Power.UNKNOWN
        return Power.ON if self.on.get(outlet, False) else Power.OFF

    async def read(self, outlet):
        await self._enter("read", outlet)
        return 3.5 if self.on.get(outlet) else None

    async def describe(self):
        await self._enter("describe")
        return [OutletDescription(outlet, f"Outlet {outlet}", await self.get(outlet)) for outlet in sorted(self.on)]

    async def show(self, outlet, phase):
        await self._enter("show", outlet, phase)
        self.shown.append((outlet, phase))

    async def close(self):
        self.closed = True


class Factory:
    """Hands out drivers that were made before."""

    def __init__(self, make):
        self.make = make
        self.closed = False

    def __call__(self, name, settings):
        return self.make(name)

    async def close(self):
        self.closed = True


def silent(name="rack", outlet=None):
    return UnreachableError("silent", controller=name, outlet=outlet)
