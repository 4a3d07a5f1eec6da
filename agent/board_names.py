"""The boards' names in DNS, for an agent whose settings have `[dns]`: which board has which address."""

import asyncio
import ipaddress
from typing import TYPE_CHECKING

from agent.errors import AgentError

if TYPE_CHECKING:
    from agent.daemon import Agent
    from netboot.dns_records import Address
    from netboot.dns_updates import DnsUpdates

NAMES_FACT = "dns_names"


class BoardNames:
    """Keeps the names while it runs. A clean stop leaves them: the boards are still there."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._updates: DnsUpdates | None = None

    async def run(self) -> None:
        """Until cancelled. Without `[dns]` nothing is done.

        Raises:
            AgentError: the key cannot be read, or what was stored cannot.
        """
        table = self._agent.settings.dns
        if table is None:
            await asyncio.Event().wait()
            return
        from netboot.dns_updates import DnsUpdates  # noqa: PLC0415  # few need it, and dnspython is large

        memory = self._agent.memory

        async def save(state: dict[str, object]) -> None:
            await memory.remember(NAMES_FACT, state)

        try:
            state = await memory.fact(NAMES_FACT)
            zones = table.zones(self._agent.name)
            updates = DnsUpdates(zones, table.dns_server(), state=state, save=save)
            await updates.start()
        except ValueError as error:
            raise AgentError(f"[dns]: {error}") from error
        self._updates = updates
        try:
            self.changed()
            await asyncio.Event().wait()
        finally:
            await updates.stop()

    def changed(self) -> None:
        """Boards or addresses may have changed."""
        if self._updates is not None:
            self._updates.want({board: self._addresses(board) for board in self._agent.settings.boards})

    def _addresses(self, board: str) -> "list[Address]":
        """The address from the settings, else the one that the board said of itself, if it can be its own."""
        boards = self._agent.settings.boards
        known = boards[board].address
        if known is not None:
            return [known]
        try:
            said = ipaddress.ip_address(self._agent.infos[board].address or "")
        except ValueError:
            return []  # it has not said any
        theirs = {other.address for other in boards.values()}
        if said in theirs or said.is_loopback or said.is_link_local or said.is_multicast or said.is_unspecified:
            return []
        return [said]
