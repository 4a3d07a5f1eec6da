"""Virtual PDUs that feed light boards: an outlet switches a board's power, and measures what that board draws."""

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

from virtual_lab.farm_plan import OUTLETS_PER_PDU, PDU_COMMUNITY, PDU_MODEL, PDU_PORT, FarmPlan
from virtual_lab.light_power import PowerSwitch
from virtual_lab.network import BRIDGE_ADDRESS
from virtual_lab.snmp_pdu_device import PduSettings, VirtualPdu

log = logging.getLogger(__name__)


class FedBoard(Protocol):
    """What hangs on an outlet."""

    switch: PowerSwitch

    @property
    def watts(self) -> int:
        """What it draws while it has power."""


@dataclass
class LightPdu(VirtualPdu):
    """A PDU whose outlets read what their boards draw. `boards` are by outlet."""

    boards: dict[str, FedBoard] = field(default_factory=dict)

    def watts(self, outlet: str) -> int:
        board = self.boards.get(outlet)
        return board.watts if board is not None and self.on[outlet] else 0

    async def feed(self, outlet: str, on: bool) -> None:  # noqa: FBT001  # as Driver.set
        """An outlet has switched."""
        if outlet in self.boards:
            log.info("outlet %s %s", outlet, "on" if on else "off")
            self.boards[outlet].switch.feed(on)


async def serve(plan: FarmPlan, boards: Mapping[str, FedBoard], stack: AsyncExitStack) -> None:
    """Start the PDUs of `plan`, to end with `stack`.

    Raises:
        OSError: one cannot listen.
    """
    for number in range(1, plan.pdus + 1):
        settings = PduSettings(
            host=BRIDGE_ADDRESS,
            port=PDU_PORT + number - 1,
            outlets=OUTLETS_PER_PDU,
            model=PDU_MODEL,
            write_community=PDU_COMMUNITY,
            light=True,
        )
        fed = {str(light.outlet): boards[light.board] for light in plan.lights if light.pdu == number}
        pdu = LightPdu(settings, boards=fed)
        pdu.hook = pdu.feed
        await stack.enter_async_context(pdu)
