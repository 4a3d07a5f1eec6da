"""A command desk without hardware, for the tests of what stands before it."""

import asyncio
from dataclasses import dataclass, field

from agent.pdu_listener.desk import Answer
from agent.pdu_listener.service import PduListener
from agent.pdu_listener.settings import PduListenerTable
from agent.power.kinds.command import CommandSettings
from agent.power.kinds.snmp import SnmpSettings
from agent.power.settings import BoardFeed
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind, Power, PowerAction

CONTROLLERS = {
    "rack": CommandSettings(driver="command", on=["true"], off=["true"]),
    "pdu-a": SnmpSettings(driver="snmp", host="PDU05.lab.example", community_env="NONE"),
    "twin-1": SnmpSettings(driver="snmp", host="192.0.2.7", port=1161, community_env="NONE"),
    "twin-2": SnmpSettings(driver="snmp", host="192.0.2.7", port=1162, community_env="NONE"),
}
FEEDS = {
    "pi": BoardFeed(outlets=["pdu-a:3"]),
    "bone": BoardFeed(outlets=["rack:1", "pdu-a:4"]),
    "left": BoardFeed(outlets=["rack:shared"]),
    "right": BoardFeed(outlets=["rack:shared"]),
}
ALIASES = {"DUT.1": "pi", "fan": "pdu-a:7", "broken": "gone"}


@dataclass
class FakeDesk:
    """Every board and outlet is off at first. `errors` are answered by what they are asked of."""

    power: dict[str, Power] = field(default_factory=dict)
    errors: dict[str, ErrorKind] = field(default_factory=dict)
    calls: list[tuple] = field(default_factory=list)
    begun: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    defect: Exception | None = None

    def __post_init__(self):
        self.go_on.set()

    async def _switch(self, place, action, min_off_s):
        self.calls.append((place, action, min_off_s))
        self.begun += 1
        await self.go_on.wait()
        if self.defect is not None:
            raise self.defect
        if place not in self.errors:
            self.power[place] = Power.OFF if action is PowerAction.OFF else Power.ON
        return self._answer(place)

    def _answer(self, place):
        if (kind := self.errors.get(place)) is not None:
            return Answer(Power.UNKNOWN, ErrorInfo(kind=kind, message=f"{place}: is\nbroken; mend it"))
        return Answer(self.power.get(place, Power.OFF))

    async def switch_board(self, board, action, *, min_off_s):
        return await self._switch(board, action, min_off_s)

    async def switch_outlet(self, ref, action, *, min_off_s):
        return await self._switch(str(ref), action, min_off_s)

    async def read_board(self, board):
        return self._answer(board)

    async def read_outlet(self, ref):
        return self._answer(str(ref))


def make(table):
    desk = FakeDesk()
    return PduListener(PduListenerTable(aliases=ALIASES, **table), CONTROLLERS, FEEDS, desk), desk
