"""What the conformance kit needs to know of a driver and its device, and how it says what is wrong."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from agent.power.driver import Driver


class ConformanceError(AssertionError):
    """A promise of `Driver` was not kept; the text says which and how."""


class NotApplicableError(Exception):
    """The check says nothing about this driver or at this bench; the text says why."""


class DriverBench(ABC):
    """A driver and its device, on the workbench.

    Attributes:
        outlets: outlets that may be switched; with two or more it is seen that only the named one switches.
        no_such_outlet: one that the device does not have; None where any name is passed on.
        secrets: texts that must never be seen: passwords, tokens, communities.
        can_press: `press` works.
        can_silence: `silence` and `restore` work.
        answers_set: the device answers a set; False where commands are sent into the blue.
    """

    outlets: Sequence[str] = ("1",)
    no_such_outlet: str | None = "999"
    secrets: Sequence[str] = ()
    can_press: bool = True
    can_silence: bool = True
    answers_set: bool = True

    @abstractmethod
    def make(self) -> Driver:
        """A fresh driver of the device, which has not touched it yet."""

    @abstractmethod
    async def truth(self, outlet: str) -> bool:
        """Whether the outlet is really on, not asked through the driver."""

    async def press(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        """A hand at the device's own button."""
        raise NotImplementedError

    async def silence(self) -> None:
        """From now on the device answers nobody, and does nothing."""
        raise NotImplementedError

    async def restore(self) -> None:
        """The device answers again."""
        raise NotImplementedError

    async def edges(self, outlet: str) -> int | None:
        """How often the outlet really changed so far; None where nobody counts."""
        del outlet
        return None

    def make_unauthorised(self) -> Driver | None:
        """A driver with wrong credentials; None where there are none."""
        return None
