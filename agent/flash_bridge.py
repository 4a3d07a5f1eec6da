"""The agent's modes and flashes: what the desks need of the agent."""

import functools
from typing import TYPE_CHECKING

from agent.flash_desk import FlashDesk
from agent.mode_desk import ALERT, ModeCalls, ModeDesk
from agent.mode_hands import BoardHands
from agent.outbox import NewEvent
from agent.unit import Effects
from firmware_tools.flash.actuators import Hands
from wire.payloads import Alert
from wire.phases import EventType, Phase

if TYPE_CHECKING:
    from agent.daemon import Agent

WHY = "in another mode than normal, or being flashed"


def desks(agent: "Agent") -> tuple[ModeDesk, FlashDesk]:
    """Both desks of `agent`, not begun yet."""
    settings = agent.settings
    calls = ModeCalls(
        hands=functools.partial(_hands, agent),
        maintain=functools.partial(_maintain, agent),
        alert=functools.partial(_alert, agent),
        ready=functools.partial(_ready, agent),
        boot=lambda board: agent.shelf.unit(board).boot_id,
        compatible=lambda board: frozenset(agent.infos[board].compatible),
    )
    modes = ModeDesk(settings.boards, calls)

    def boot_timeout_s(board: str) -> float:
        return agent.settings.boards[board].boot_timeout_s

    return modes, FlashDesk(settings.boards, settings.flash, settings.agent.state_dir, modes, boot_timeout_s)


async def start(agent: "Agent") -> None:
    """Begin: read what was stored, take requests, and put back what was cut short.

    Raises:
        sqlite3.Error: the state file cannot be read.
    """
    interrupted = await agent.flashes.start(agent.memory)
    agent.actions.add("mode", agent.modes.mode, holds_power=True)
    agent.actions.add("flash", agent.flashes.flash, holds_power=True)
    for board in interrupted:
        agent.begin(agent.flashes.recover(board), f"recover-{board}")


def _hands(agent: "Agent", board: str) -> Hands:
    return BoardHands(agent, board, agent.settings.boards[board].actuators)


def _maintain(agent: "Agent", board: str, on: bool) -> bool:  # noqa: FBT001  # a call of `ModeCalls`, by position
    is_on = agent.shelf.unit(board).life.phase is Phase.MAINTENANCE
    if is_on == on:
        return False
    agent.submit(agent.shelf.maintenance(board, on=on, moment=agent.moment(), why=WHY))
    return True


def _alert(agent: "Agent", board: str, alert: Alert | None) -> None:
    details: dict[str, object] = {"name": ALERT}
    details |= {"cleared": True} if alert is None else {"what": alert.what}
    agent.submit(Effects(alerts=[(board, ALERT, alert)], events=[NewEvent(board, EventType.ALERT, details)]))


def _ready(agent: "Agent", board: str) -> bool | None:
    phase = agent.shelf.unit(board).life.phase
    if phase is Phase.FAULT:
        return None
    return phase in {Phase.READY, Phase.BUSY, Phase.MAINTENANCE}
