"""boardhand's own power cable. What it says stands in `power_cable_lines`; its port is a `serial_port.SerialPort`."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import serial

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.power_cable_lines import (
    MODEL,
    PROTOCOL,
    AnswerError,
    AnswerReader,
    GarbledError,
    Identity,
    identity,
    led_word,
    request,
    states,
    tag,
    watts,
)
from agent.power.drivers.serial_port import SerialPort
from agent.power.errors import ConfigurationError, PowerError, RefusedError, UnreachableError
from agent.power.kinds.power_cable import PowerCableSettings
from wire.phases import Phase, Power

T = TypeVar("T")

CALL_MARGIN_S = 3.0
"""For opening the port, and for a port that takes our bytes slowly."""
TIMING = Timing(verify_deadline_s=2.0, poll_interval_s=0.02, settle_s=0.2, min_off_s=2.0, attempts=3)
DIFFERS = {"settings", "outlet"}
"""Kinds of errors that a person mends, here or in the cable's own file."""


class PowerCableDriver:
    """One cable. An outlet is its number from 1."""

    def __init__(self, name: str, settings: PowerCableSettings) -> None:
        self._name = name
        self._settings = settings
        self._port = SerialPort(name, settings.device, settings.baudrate, opened=self._opened)
        self._cable: Identity | None = None
        self._wanted = settings.id
        self._number = random.randrange(1 << 16)
        # Opening asks who is there, then comes the question itself.
        self._timing = replace(TIMING, call_timeout_s=2 * settings.reply_timeout_s + CALL_MARGIN_S)

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return True

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        await self._call("set", outlet, "on" if on else "off", outlet=outlet)

    async def get(self, outlet: str) -> Power:
        found = (await self.get_many([outlet]))[outlet]
        if isinstance(found, PowerError):
            raise found
        return found

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        """One question for all."""
        found = self._understood(states, await self._call("get"))
        return {
            outlet: (Power.ON if found[outlet] else Power.OFF) if outlet in found else self._no_such(outlet, len(found))
            for outlet in outlets
        }

    async def read(self, outlet: str) -> float | None:
        return (await self.read_many([outlet]))[outlet]

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        """One question for all; the first that the cable has not is an error."""
        found = self._understood(watts, await self._call("watts"))
        for outlet in outlets:
            if outlet not in found:
                raise self._no_such(outlet, len(found))
        return {outlet: found[outlet] for outlet in outlets}

    async def describe(self) -> list[OutletDescription]:
        found = self._understood(states, await self._call("get"))
        return [OutletDescription(outlet, power=Power.ON if on else Power.OFF) for outlet, on in found.items()]

    async def identify(self) -> str:
        cable = self._understood(identity, await self._call("id"))
        read = {"sense": "each outlet", "pin": "its pins"}.get(cable.read, "some outlets, and pins of the others")
        measured = f", measures {cable.meters}" if cable.meters else ""
        return (
            f"{cable.model} {cable.unique}: firmware {cable.firmware}, {cable.outlets} outlets, reads {read}{measured}"
        )

    async def show(self, outlet: str, phase: Phase) -> None:
        await self._call("led", outlet, led_word(phase), outlet=outlet)

    async def close(self) -> None:
        await self._port.close()

    async def _call(self, *words: str, outlet: str | None = None) -> str:
        if outlet is not None and not (outlet.isascii() and outlet.isdigit()):
            raise self._no_such(outlet, self._cable.outlets if self._cable else None)
        return await self._port.run(lambda port: self._ask(port, *words, outlet=outlet), outlet=outlet)

    def _no_such(self, outlet: str, count: int | None) -> ConfigurationError:
        has = "outlets are numbers from 1" if count is None else f"the cable has 1 to {count}"
        do = "correct the feed, or the outlets in the cable's own file"
        return ConfigurationError(f"there is no such outlet: {has}", controller=self._name, outlet=outlet, do=do)

    # --- on the port's thread ------------------------------------------------------------------------------------

    def _opened(self, port: serial.Serial) -> None:
        """See who is there, before anything is switched by a cable that is another board's."""
        cable = self._understood(identity, self._ask(port, "id"))
        if cable.model != MODEL or cable.protocol != PROTOCOL:
            raise ConfigurationError(
                f"{cable.model} with protocol {cable.protocol} is at {self._settings.device}, "
                f"and not {MODEL} with protocol {PROTOCOL}",
                controller=self._name,
                do="flash the firmware that comes with this boardhand: docs/power-cable.md",
            )
        if self._wanted is not None and cable.unique != self._wanted:
            raise ConfigurationError(
                f"another cable is at {self._settings.device}: {cable.unique}, not {self._wanted}",
                controller=self._name,
                do=f'put the right one there, or write id = "{cable.unique}" and restart the agent',
            )
        self._wanted = cable.unique
        self._cable = cable

    def _understood(self, read: Callable[[str], T], words: str) -> T:
        try:
            return read(words)
        except GarbledError as error:
            raise self._unreachable(str(error)) from error

    def _ask(self, port: serial.Serial, *words: str, outlet: str | None = None) -> str:
        self._number += 1
        mine = tag(self._number)
        reader = AnswerReader(mine)
        port.reset_input_buffer()
        port.write(request(mine, *words))
        until = time.monotonic() + self._settings.reply_timeout_s
        try:
            while (left_s := until - time.monotonic()) > 0:
                port.timeout = left_s
                said = reader.feed(port.read(max(1, port.in_waiting)))
                if said is not None:
                    return said
        except AnswerError as error:
            raise self._refused(error, outlet) from error
        except GarbledError as error:
            raise self._unreachable(str(error), outlet) from error
        raise self._unreachable(f"did not answer within {self._settings.reply_timeout_s:g} s", outlet)

    def _refused(self, error: AnswerError, outlet: str | None) -> PowerError:
        said = f"the cable says: {error.text}"
        if error.kind in DIFFERS:
            do = "correct the feed, or power_cable.json on the cable: docs/power-cable.md"
            return ConfigurationError(said, controller=self._name, outlet=outlet, do=do)
        return RefusedError(
            said, controller=self._name, outlet=outlet, do="see whether its firmware is older than this"
        )

    def _unreachable(self, problem: str, outlet: str | None = None) -> UnreachableError:
        do = f"check that a cable with boardhand's firmware is at {self._settings.device}, and replug it"
        return UnreachableError(problem, controller=self._name, outlet=outlet, do=do)


def make(name: str, settings: PowerCableSettings, _context: DriverContext) -> PowerCableDriver:
    """The driver of one controller."""
    return PowerCableDriver(name, settings)
