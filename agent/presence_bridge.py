"""Between the agent and presence: signs of life become events, phases and reasons of boards."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.presence.observations import BoardMarks, Observation, Sign, marks
from agent.presence.watch import PresenceWatch
from agent.settings import AgentSettings

if TYPE_CHECKING:
    from agent.daemon import Agent


def board_marks(settings: AgentSettings) -> dict[str, BoardMarks]:
    """By what each board of the settings is seen."""
    return {
        name: marks(board.macs, board.link, board.usb, netboots=board.profile is not None)
        for name, board in settings.boards.items()
    }


class PresenceDesk:
    """Presence of one agent between `start` and `stop`."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self.listeners: list[Callable[[Observation], None]] = []
        """Hear every observation, boards' or not. They run in the event loop and must not block."""
        self._watch = PresenceWatch(board_marks(agent.settings), self._signs, self._observed)

    async def start(self) -> None:
        """Look from now on."""
        await self._watch.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._watch.stop()

    def follow(self, settings: AgentSettings) -> None:
        """The settings have changed, and the shelf with them."""
        self._watch.follow(board_marks(settings))

    def seen(self, board: str) -> dict[str, bool]:
        """What is known of the board now: of `link`, `neighbour` and `usb` those that its settings name."""
        return {source.value: alive for source, alive in self._watch.book.alive(board).items()}

    def _observed(self, seen: Observation) -> None:
        for listener in self.listeners:
            listener(seen)

    def _signs(self, signs: list[Sign]) -> None:
        agent = self._agent
        for sign in signs:
            if sign.board in agent.shelf:
                agent.submit_if_any(agent.shelf.sign(sign, agent.moment()))
