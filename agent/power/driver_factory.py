"""From the settings of a controller to its driver."""

from typing import Protocol

from agent.power.driver import Driver
from agent.power.driver_kind import DriverContext, find_kind
from agent.power.settings import ControllerBase


class MakesDrivers(Protocol):
    """What `PowerService` needs: one driver per controller."""

    def __call__(self, name: str, settings: ControllerBase) -> Driver:
        """A driver that has not touched its device yet."""

    async def close(self) -> None:
        """Let go of what the drivers shared; called after all of them were closed."""


class DriverFactory:
    """Makes drivers of every kind that is known. What they share, as SNMP engines, lives as long as the factory."""

    def __init__(self, context: DriverContext | None = None) -> None:
        self._context = context or DriverContext()

    def __call__(self, name: str, settings: ControllerBase) -> Driver:
        return find_kind(settings.driver).driver(name, settings, self._context)

    async def close(self) -> None:
        await self._context.close()
