"""Drivers that break one promise each: what the conformance kit has to find. They differ from `Good` in one thing."""

import asyncio
import contextlib
import logging
import sys
import threading
import time
from dataclasses import replace

from agent.power.driver import OutletDescription
from agent.power.errors import ConfigurationError, InternalError, UnreachableError
from wire.phases import Power

_good = sys.modules["good_driver"]  # this folder is no package: the test loads that module first
Good, SECRET, TIMING = _good.Good, _good.SECRET, _good.TIMING


class DoesNotSwitch(Good):
    async def set(self, outlet, on):
        self.check(outlet)
        await self.ask()


class RepeatsWhatWasAsked(Good):
    """Never looks: the classic."""

    def __init__(self, device):
        super().__init__(device)
        self.asked = dict(device.on)

    async def set(self, outlet, on):
        await super().set(outlet, on)
        self.asked[outlet] = on

    def power(self, outlet):
        return Power.ON if self.asked[outlet] else Power.OFF


class RemembersWhenDeaf(RepeatsWhatWasAsked):
    """Looks, and when nobody answers says what it saw last."""

    async def get(self, outlet):
        try:
            self.asked[outlet] = self.device.on[outlet]
            return await super().get(outlet)
        except UnreachableError:
            return self.power(outlet)


class ClaimsWithoutReadBack(Good):
    reads_back = False


class PowerCyclesOnSet(Good):
    async def set(self, outlet, on):
        await super().set(outlet, on)
        self.device.switch(outlet, not on)
        self.device.switch(outlet, on)


class Toggles(Good):
    async def set(self, outlet, on):
        self.check(outlet)
        await self.ask()
        self.device.switch(outlet, not self.device.on[outlet])


class SwitchesTheNeighbour(Good):
    async def set(self, outlet, on):
        await super().set(outlet, on)
        for other in self.device.on:
            self.device.switch(other, on)


class RaisesKeyError(Good):
    def check(self, outlet):
        self.device.on[outlet]


class TakesAnyOutlet(Good):
    async def set(self, outlet, on):
        await super().set(outlet if outlet in self.device.on else "2", on)


class CallsItUnreachable(Good):
    def check(self, outlet):
        if outlet not in self.device.on:
            raise UnreachableError("no such outlet", controller="fake", outlet=outlet)


class DoesNotNameTheOutlet(Good):
    def check(self, outlet):
        if outlet not in self.device.on:
            raise ConfigurationError("no such outlet", controller="fake")


class SwallowsErrors(Good):
    async def set(self, outlet, on):
        with contextlib.suppress(UnreachableError):
            await super().set(outlet, on)


class WaitsForEver(Good):
    async def ask(self):
        while self.device.deaf:  # noqa: ASYNC110
            await asyncio.sleep(1)
        await asyncio.sleep(0.002)


class RaisesOsErrorWhenDeaf(Good):
    async def ask(self):
        await asyncio.sleep(0.002)
        if self.device.deaf:
            raise OSError("connection reset")


class CallsSilenceConfiguration(Good):
    async def ask(self):
        await asyncio.sleep(0.002)
        if self.device.deaf:
            raise ConfigurationError("wrong address", controller="fake")


class CallsSilenceADefect(Good):
    async def ask(self):
        await asyncio.sleep(0.002)
        if self.device.deaf:
            raise InternalError("it broke", controller="fake")


class NeverConnectsAgain(Good):
    broken = False

    async def ask(self):
        if self.broken:
            raise UnreachableError("the connection is lost", controller="fake")
        try:
            await super().ask()
        except UnreachableError:
            self.broken = True
            raise


class LocksWhenCancelledWhileDeaf(Good):
    """A lock that is only given back when the answer comes."""

    locked = False

    async def ask(self):
        if self.locked:
            raise UnreachableError("busy", controller="fake")
        if self.device.deaf:
            self.locked = True
        try:
            await super().ask()
        except UnreachableError:
            self.locked = False
            raise
        self.locked = False


class LosesStepWhenCancelled(Good):
    """Answers are matched to questions by counting, and a cancelled question leaves its answer in the pipe."""

    def __init__(self, device):
        super().__init__(device)
        self.pipe = []

    async def get(self, outlet):
        self.check(outlet)
        if not self.device.deaf:
            self.pipe.append(self.power(outlet))
        await self.ask()
        return self.pipe.pop(0)


class CarriesOnWhenCancelled(Good):
    def __init__(self, device):
        super().__init__(device)
        self.tasks = set()

    async def set(self, outlet, on):
        task = asyncio.ensure_future(self.later(outlet, on))
        self.tasks.add(task)
        await asyncio.shield(task)

    async def later(self, outlet, on):
        await asyncio.sleep(0.02 if on else 0)
        await super().set(outlet, on)


class CannotBeCancelled(Good):
    async def ask(self):
        try:
            await super().ask()
        except asyncio.CancelledError:
            await asyncio.sleep(2)
            raise


class CachesForAnyOutlet(Good):
    """Asks not more than 100 times a second, and forgot that there are several outlets."""

    seen = (0.0, Power.UNKNOWN)

    async def get(self, outlet):
        self.check(outlet)
        if time.monotonic() - self.seen[0] > 0.01:
            await self.ask()
            self.seen = (time.monotonic(), self.power(outlet))
        return self.seen[1]


class LeavesAThread(Good):
    def __init__(self, device):
        super().__init__(device)
        threading.Thread(target=time.sleep, args=(6,), name="left behind", daemon=True).start()


class LeavesATask(Good):
    def __init__(self, device):
        super().__init__(device)
        self.task = asyncio.ensure_future(asyncio.sleep(6))


class LeavesAFile(Good):
    kept = []  # noqa: RUF012 - what makes it a leak

    async def get(self, outlet):
        self.kept.append(open("/dev/null"))  # noqa: SIM115, PTH123, ASYNC230
        return await super().get(outlet)


class ClosesOnce(Good):
    closed = False

    async def close(self):
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class CannotCloseWhenDeaf(Good):
    async def close(self):
        await self.ask()


class Blocks(Good):
    async def ask(self):
        time.sleep(0.15)
        await super().ask()


class DescribesTheWish(RepeatsWhatWasAsked):
    async def get(self, outlet):
        return Power.ON if self.device.on[outlet] and not await self.ask() else Power.OFF

    async def describe(self):
        return [OutletDescription(outlet, power=Power.ON) for outlet in self.device.on]


class DescribesTwice(Good):
    async def describe(self):
        return 2 * await super().describe()


class ForgetsAnOutlet(Good):
    async def describe(self):
        return (await super().describe())[1:]


class ManyLies(Good):
    async def get_many(self, outlets):
        return {outlet: Power.ON if isinstance(power, Power) else power
                for outlet, power in (await super().get_many(outlets)).items()}  # fmt: skip


class ManyLeavesOut(Good):
    async def get_many(self, outlets):
        return {outlet: power for outlet, power in (await super().get_many(outlets)).items()
                if isinstance(power, Power)}  # fmt: skip


class ManyGuesses(Good):
    async def get_many(self, outlets):
        await self.ask()
        return {outlet: self.power(outlet) if outlet in self.device.on else Power.UNKNOWN for outlet in outlets}


class ManyWattsOfOne(Good):
    async def read_many(self, outlets):
        return {outlets[0]: 1.0}


class NegativeWatts(Good):
    async def read(self, outlet):
        return -1.0


class WattsAsText(Good):
    async def read(self, outlet):
        return "5 W"


class TouchesInTheConstructor(Good):
    def __init__(self, device):
        super().__init__(device)
        if device.deaf:
            raise OSError("no route to host")


class NoTime(Good):
    timing = replace(TIMING, verify_deadline_s=0)


class SecretInError(Good):
    async def ask(self):
        try:
            await super().ask()
        except UnreachableError:
            raise UnreachableError("did not answer", controller="fake") from OSError(f"http://admin:{SECRET}@host")


class SecretInLog(Good):
    async def ask(self):
        logging.getLogger("acme").debug("logging in with %s", SECRET)
        await super().ask()


class SecretInRepr(Good):
    def __repr__(self):
        return f"Good(password={SECRET!r})"


BROKEN = {
    DoesNotSwitch: {"switches"},
    RepeatsWhatWasAsked: {"hand"},
    RemembersWhenDeaf: {"no_guess", "silence"},
    ClaimsWithoutReadBack: {"switches"},
    PowerCyclesOnSet: {"again"},
    Toggles: {"again"},
    SwitchesTheNeighbour: {"only_the_named"},
    RaisesKeyError: {"unknown_outlet", "many"},
    TakesAnyOutlet: {"unknown_outlet"},
    CallsItUnreachable: {"unknown_outlet"},
    DoesNotNameTheOutlet: {"unknown_outlet"},
    SwallowsErrors: {"silence"},
    WaitsForEver: {"silence"},
    RaisesOsErrorWhenDeaf: {"silence"},
    CallsSilenceConfiguration: {"silence"},
    CallsSilenceADefect: {"silence"},
    NeverConnectsAgain: {"recovery"},
    LocksWhenCancelledWhileDeaf: {"recovery"},
    LosesStepWhenCancelled: {"cancellation"},
    CarriesOnWhenCancelled: {"cancellation"},
    CannotBeCancelled: {"cancellation"},
    CachesForAnyOutlet: {"queue"},
    LeavesAThread: {"close"},
    LeavesATask: {"close"},
    LeavesAFile: {"close"},
    ClosesOnce: {"close"},
    CannotCloseWhenDeaf: {"close"},
    Blocks: {"event_loop"},
    DescribesTheWish: {"describe"},
    DescribesTwice: {"describe"},
    ForgetsAnOutlet: {"describe"},
    ManyLies: {"many"},
    ManyLeavesOut: {"many"},
    ManyGuesses: {"many"},
    ManyWattsOfOne: {"many"},
    NegativeWatts: {"watts"},
    WattsAsText: {"watts"},
    TouchesInTheConstructor: {"untouched"},
    NoTime: {"untouched"},
    SecretInError: {"secrets"},
    SecretInLog: {"secrets"},
    SecretInRepr: {"secrets"},
}
"""Which checks must find it."""
