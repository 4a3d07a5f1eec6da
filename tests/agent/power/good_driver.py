"""A driver that keeps every promise, its device and its bench."""

import asyncio

from agent.power import conformance
from agent.power.driver import OutletDescription, Timing
from agent.power.errors import ConfigurationError, UnreachableError
from wire.phases import Power

SECRET = "hunter2-hunter2"
TIMING = Timing(verify_deadline_s=0.15, poll_interval_s=0.01, settle_s=0.05, min_off_s=0, call_timeout_s=0.25,
                answer_deadline_s=0.5)  # fmt: skip


class Device:
    def __init__(self):
        self.on = {"1": False, "2": False, "3": False}
        self.changes = dict.fromkeys(self.on, 0)
        self.deaf = False

    def switch(self, outlet, on):
        if self.on[outlet] != on:
            self.on[outlet] = on
            self.changes[outlet] += 1


class Good:
    """Keeps every promise; the broken ones differ in one thing each."""

    reads_back = True
    timing = TIMING

    def __init__(self, device):
        self.device = device

    async def ask(self):
        """One round trip to the device."""
        await asyncio.sleep(0.002)
        if self.device.deaf:
            await asyncio.sleep(0.05)
            raise UnreachableError("did not answer", controller="fake")

    def check(self, outlet):
        if outlet not in self.device.on:
            raise ConfigurationError("no such outlet", controller="fake", outlet=outlet)

    async def set(self, outlet, on):
        self.check(outlet)
        await self.ask()
        self.device.switch(outlet, on)

    async def get(self, outlet):
        self.check(outlet)
        await self.ask()
        return self.power(outlet)

    def power(self, outlet):
        return Power.ON if self.device.on[outlet] else Power.OFF

    async def read(self, outlet):
        self.check(outlet)
        await self.ask()
        return 5.0 if self.device.on[outlet] else 0.0

    async def describe(self):
        await self.ask()
        return [OutletDescription(outlet, power=self.power(outlet)) for outlet in self.device.on]

    async def get_many(self, outlets):
        await self.ask()
        found = {}
        for outlet in outlets:
            try:
                self.check(outlet)
                found[outlet] = self.power(outlet)
            except ConfigurationError as problem:
                found[outlet] = problem
        return found

    async def read_many(self, outlets):
        return {outlet: await self.read(outlet) for outlet in outlets}

    async def close(self):
        pass


class Bench(conformance.DriverBench):
    outlets = ("1", "2")
    secrets = (SECRET,)

    def __init__(self, kind=Good):
        self.device = Device()
        self.kind = kind

    def make(self):
        return self.kind(self.device)

    async def truth(self, outlet):
        return self.device.on[outlet]

    async def edges(self, outlet):
        return self.device.changes[outlet]

    async def press(self, outlet, on):
        self.device.switch(outlet, on)

    async def silence(self):
        self.device.deaf = True

    async def restore(self):
        self.device.deaf = False
