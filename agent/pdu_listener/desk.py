"""Where the listener hands its requests in: the agent's command desk."""

import uuid
from dataclasses import dataclass
from typing import Protocol

from agent.power.errors import PowerError
from agent.power.feed import OutletRef
from agent.power.service import PowerService
from wire.payloads import ErrorInfo, PowerResult
from wire.phases import Power, PowerAction


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request ended. `power` was read back, or is unknown; `error` says why it failed."""

    power: Power
    error: ErrorInfo | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


class PowerDesk(Protocol):
    """Switches and reads. Never raises for hardware, leases or names: these stand in the answer.

    `min_off_s` of a cycle: it is off for at least this long, and never shorter than its own settings say.
    """

    async def switch_board(self, board: str, action: PowerAction, *, min_off_s: float | None) -> Answer:
        """Switch a whole board: lease, journal and events as for a command on MQTT."""

    async def switch_outlet(self, ref: OutletRef, action: PowerAction, *, min_off_s: float | None) -> Answer:
        """Switch an outlet that feeds no board."""

    async def read_board(self, board: str) -> Answer:
        """A fresh read-back of the whole feed."""

    async def read_outlet(self, ref: OutletRef) -> Answer:
        """A fresh read-back of one outlet."""


class SwitchesBoards(Protocol):
    """What is needed of `agent.commands.CommandDesk`."""

    async def asked(self, board: str, action: PowerAction, *, min_off_s: float | None = None) -> PowerResult:
        """Switch a board for somebody who shows no lease's token."""


class AgentDesk:
    """The agent's own desk: boards go by the command desk, loose outlets and reading by the power service."""

    def __init__(self, commands: SwitchesBoards, power: PowerService) -> None:
        self._commands = commands
        self._power = power

    async def switch_board(self, board: str, action: PowerAction, *, min_off_s: float | None) -> Answer:
        result = await self._commands.asked(board, action, min_off_s=min_off_s)
        return Answer(result.power, result.error)

    async def switch_outlet(self, ref: OutletRef, action: PowerAction, *, min_off_s: float | None) -> Answer:
        operation = f"{ref}/pdu-{uuid.uuid4()}"
        outcome = await self._power.switch_outlet(ref, action, operation_id=operation, min_off_s=min_off_s)
        return Answer(outcome.power, outcome.error)

    async def read_board(self, board: str) -> Answer:
        power = await self._power.read(board)
        return Answer(power, self._power.problem(board) if power is Power.UNKNOWN else None)

    async def read_outlet(self, ref: OutletRef) -> Answer:
        try:
            return Answer(await self._power.read_outlet(ref))
        except PowerError as error:
            return Answer(Power.UNKNOWN, error.info())
