"""The metering task of an agent, wired: power service in, telemetry out."""

from typing import TYPE_CHECKING

from agent.energy import Condition
from agent.energy_recorder import EnergyRecorder
from agent.energy_report import Nameplate
from agent.energy_store import EnergyStore
from agent.settings import AgentSettings
from daemon.store import Store
from wire.payloads import Telemetry, encode

if TYPE_CHECKING:
    from agent.daemon import Agent


def plates(settings: AgentSettings) -> dict[str, Nameplate]:
    """What the boards draw by their settings."""
    return {
        name: Nameplate(board.watts_idle, board.watts_busy, board.watts_off) for name, board in settings.boards.items()
    }


def recorder(agent: "Agent", store: Store) -> EnergyRecorder | None:
    """The recorder of this agent's boards; None where its settings want no metering."""
    settings = agent.settings

    def publish(board: str, told: Telemetry) -> None:
        # It says what is now: said later, when the server is back, it would be wrong, and push out answers.
        if agent.voice.link is not None and agent.voice.link.connected:
            agent.voice.say(agent.topics.telemetry(board), encode(told))

    def condition(board: str) -> Condition:
        if board not in agent.shelf:
            return Condition()  # it is being taken out of the settings
        unit = agent.shelf.unit(board)
        return Condition(unit.power, unit.life.phase)

    if settings.agent.meter_every_s == 0:
        return None
    return EnergyRecorder(
        EnergyStore(store),
        plates(settings),
        every_s=settings.agent.meter_every_s,
        read=agent.power.watts_of_all,
        condition=condition,
        publish=publish,
    )
