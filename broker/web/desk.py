"""What the routes of the API work with."""

from dataclasses import dataclass
from http import HTTPStatus

from broker.web.access import Door
from broker.web.asking import Asker
from broker.web.farm_mirror import Document, FarmMirror
from broker.web.guard import Guard, api_error
from broker.web.live import Live
from broker.web.metrics import Metrics
from broker.web.open_consoles import Consoles
from broker.web.strangers import Strangers
from broker.web.timeline_store import TimelineStore
from wire.phases import ErrorKind


@dataclass(frozen=True, slots=True)
class Desk:
    """One farm, as the API sees it."""

    mirror: FarmMirror
    asker: Asker
    live: Live
    door: Door
    guard: Guard
    metrics: Metrics
    timeline: TimelineStore
    consoles: Consoles
    strangers: Strangers

    def known(self, board: str) -> Document:
        """The board.

        Raises:
            ApiError: nothing was ever said of it.
        """
        found = self.mirror.board(board)
        if found is None:
            raise api_error(ErrorKind.UNKNOWN_BOARD, f"board {board}: no agent of this farm has it")
        return found

    def agent_of(self, board: str) -> str:
        """The agent that has the board, and is there.

        Raises:
            ApiError: nobody has it, or its agent is away.
        """
        self.known(board)
        agent = self.mirror.agent_of(board)
        if agent is None or not self.mirror.online(agent):
            who = f"its agent {agent}" if agent else "its agent"
            message = f"board {board}: {who} is away; nothing can be said of its power, and nothing switched"
            raise api_error(ErrorKind.UNREACHABLE, message, HTTPStatus.SERVICE_UNAVAILABLE)
        return agent

    def known_agent(self, agent: str) -> None:
        """See that there is such an agent.

        Raises:
            ApiError: there is none, or it is away.
        """
        if not self.mirror.online(agent):
            raise api_error(ErrorKind.NOT_FOUND, f"agent {agent}: is not online, or not of this farm")
