"""Carries a passage out: each step to whoever switches it, read back where it can be, with deadlines."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firmware_tools.flash.errors import ModeError
from firmware_tools.flash.modes import LASTING, Actuator, Appear, Rest, Step, Switch
from firmware_tools.flash.passage import Passage

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2
"""For a device that is to appear; sysfs is read each time."""
SYSFS = Path("/sys")

Tell = Callable[[str, float], None]
"""Is told a step, and per cent of the way."""
Sleep = Callable[[float], Awaitable[None]]


class Hands(Protocol):
    """Whoever switches a board's actuators."""

    async def switch(self, actuator: str, state: str) -> None:
        """Bring the actuator into this state, verified where its device can tell.

        Raises:
            ModeError: that could not be done; names the actuator.
        """

    async def look(self, actuator: str) -> str | None:
        """In which state it is, None where its device cannot tell.

        Raises:
            ModeError: the device does not answer.
        """


@dataclass(frozen=True, slots=True)
class Walker:
    """Walks passages of one board."""

    hands: Hands
    actuators: Mapping[str, Actuator]
    sleep: Sleep = asyncio.sleep
    sysfs: Path = SYSFS

    async def walk(self, passage: Passage, tell: Tell = lambda _step, _percent: None) -> None:
        """Until the passage is over. What fails stands in it."""
        while (step := passage.next()) is not None:
            tell(str(step), passage.percent)
            try:
                await self._do(step)
            except ModeError as error:
                log.warning("%s: %s", step, error)
                passage.failed(f"{step}: {error}")
            else:
                passage.done()

    async def states(self) -> dict[str, str | None]:
        """Every actuator as its device tells it now; None where nobody knows."""
        found: dict[str, str | None] = {}
        for name in self.actuators:
            try:
                found[name] = await self.hands.look(name)
            except ModeError as error:
                log.warning("%s: %s", name, error)
                found[name] = None
        return found

    async def _do(self, step: Step) -> None:
        if isinstance(step, Rest):
            await self.sleep(step.seconds)
        elif isinstance(step, Appear):
            await self._appears(step)
        elif step.state == "press":
            await self._press(step)
        else:
            await self._into(step, step.state)

    async def _press(self, step: Switch) -> None:
        """However it ends, the button is let go: a held reset is a dead board."""
        try:
            await self.hands.switch(step.actuator, "on")
            await self.sleep(step.for_s)
        finally:
            await self.hands.switch(step.actuator, "off")
        await self.sleep(step.settle_s)

    async def _into(self, step: Switch, state: str) -> None:
        await self.hands.switch(step.actuator, state)
        if step.settle_s:
            await self.sleep(step.settle_s)
        wanted = LASTING.get(state, state)
        found = await self.hands.look(step.actuator)
        if found is not None and found != wanted:
            raise ModeError(f"{step.actuator}: was switched to {wanted}, and reads {found}; look at its wiring")

    async def _appears(self, step: Appear) -> None:
        waited = 0.0
        while not await asyncio.to_thread(is_there, step, self.sysfs):
            if waited >= step.deadline_s:
                raise ModeError(
                    f"{step.what} {step.name} did not appear within {step.deadline_s:g} s; look at the cable and at"
                    " what selects the boot mode"
                )
            await self.sleep(LOOK_EVERY_S)
            waited += LOOK_EVERY_S


def is_there(step: Appear, sysfs: Path) -> bool:
    """Whether the device is there now."""
    if step.what == "path":
        return Path(step.name).exists()
    vendor, product = step.name.split(":")
    return any(
        _word(device / "idVendor") == vendor and _word(device / "idProduct") == product
        for device in (sysfs / "bus/usb/devices").glob("*")
    )


def _word(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip().lower()
    except (OSError, UnicodeDecodeError):
        return None  # it went while we looked, or is an interface
