"""What boards have said of themselves, kept over restarts of the agent.

A job asks for memory or a model. A board that sleeps can be woken for it only if what it said when it was last up is
still known, also when the agent was restarted since, or when it said so before it had a name (`joining`, `learn`).
"""

import logging
import sqlite3
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent import board_info
from wire.payloads import BoardInfo, Registration, encode

if TYPE_CHECKING:
    from agent.daemon import Agent
    from agent.settings import AgentSettings

log = logging.getLogger(__name__)

FACT = "said/"
"""With the board's name: one stored value for each board."""
# What lasts. The proof is of one boot, and kernel and client say nothing that anybody asks for.
_KEPT = {"mac", "macs", "boot_id", "serial", "uuid", "compatible", "arch", "memory_mb", "address", "inventory"}


class BoardWords:
    """The last registration of each board of `agent`."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._said: dict[str, Registration] = {}

    async def recall(self) -> None:
        """Take up what is stored. To be called before anything is told."""
        for name, value in (await self._agent.memory.facts(FACT)).items():
            board = name.removeprefix(FACT)
            try:
                self._said[board] = Registration.model_validate(value)
            except ValidationError as error:
                log.warning("what board %s said of itself is stored in a way we cannot read: %s", board, error)
        for board, info in self._agent.infos.items():
            self._agent.infos[board] = self.known(board, info, self._agent.settings)

    def known(self, board: str, info: BoardInfo, settings: "AgentSettings") -> BoardInfo:
        """`info`, which the settings give, with what this board said; also if it said it before it was a board."""
        macs = settings.boards[board].macs
        said = self._said.get(board)
        if said is None or (macs and not {said.mac, *said.macs} & set(macs)):  # other hardware has the name now
            said = self._agent.joining.said(macs)
        if said is None:
            return info
        if said is not self._said.get(board):
            self._keep(board, said)
        return board_info.learned(info, said, info.labels)

    def heard(self, board: str, request: Registration) -> None:
        """A board has registered: keep it, and tell it."""
        agent = self._agent
        agent.infos[board] = board_info.learned(
            agent.infos[board], request, board_info.of(agent.settings, board).labels
        )
        agent.voice.retain(agent.topics.board_info(board), encode(agent.infos[board]))
        self._keep(board, request)

    def forget(self, board: str) -> None:
        """There is no such board any more."""
        if self._said.pop(board, None) is not None:
            self._agent.begin(self._store(board, None), f"forget {board}")

    def _keep(self, board: str, said: Registration) -> None:
        kept = Registration.model_validate(said.model_dump(include=_KEPT))
        before, self._said[board] = self._said.get(board), kept
        if before is None or before.model_dump(exclude={"boot_id"}) != kept.model_dump(exclude={"boot_id"}):
            self._agent.begin(self._store(board, kept.model_dump(mode="json", exclude_none=True)), f"words of {board}")

    async def _store(self, board: str, value: dict[str, Any] | None) -> None:
        try:
            await self._agent.memory.remember(FACT + board, value)
        except sqlite3.Error as error:
            log.warning("what board %s says of itself is not stored, and lost at the next restart: %s", board, error)
