"""Switches a board's actuators: its power as a command would, straps and buttons as loose outlets, SD muxes."""

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent.flash_settings import ActuatorTable
from agent.power.errors import PowerError
from agent.power.feed import OutletRef
from firmware_tools.flash.errors import ModeError
from firmware_tools.flash.modes import POWER
from wire.phases import Power, PowerAction, Purpose

if TYPE_CHECKING:
    from agent.daemon import Agent


class BoardHands:
    """The hands of one board; see `firmware_tools.flash.actuators.Hands`."""

    def __init__(self, agent: "Agent", board: str, actuators: Mapping[str, ActuatorTable]) -> None:
        self._agent = agent
        self._board = board
        self._actuators = actuators
        self._muxes = {name: mux for name, table in actuators.items() if (mux := table.mux_named(name)) is not None}

    async def switch(self, actuator: str, state: str) -> None:
        if actuator in self._muxes:
            await self._muxes[actuator].switch(state)
            return
        action = PowerAction(state)
        if actuator == POWER:
            result = await self._agent.commands.switch(self._board, action, Purpose.OPERATOR)
            error = result.error
        else:
            ref = self._ref(actuator)
            operation = f"{self._board}/mode-{uuid.uuid4()}"
            error = (await self._agent.power.switch_outlet(ref, action, operation_id=operation)).error
        if error is not None:
            raise ModeError(error.message)

    async def look(self, actuator: str) -> str | None:
        if actuator in self._muxes:
            return await self._muxes[actuator].look()
        if actuator == POWER:
            return _told(await self._agent.power.read(self._board))
        try:
            return _told(await self._agent.power.read_outlet(self._ref(actuator)))
        except PowerError as error:
            raise ModeError(str(error)) from error

    def _ref(self, actuator: str) -> OutletRef:
        outlet = self._actuators[actuator].outlet
        if outlet is None:
            raise ModeError(f"{actuator}: is no outlet; mend the board's actuators")
        return OutletRef.parse(outlet)


def _told(power: Power) -> str | None:
    return None if power is Power.UNKNOWN else power.value
