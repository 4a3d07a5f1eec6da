"""The boot loader's desk of an agent, wired: power by its commands, a board's life, netboot's addresses."""

import functools
import time
from typing import TYPE_CHECKING

from agent.bootloader_catching import BootloaderCalls
from agent.bootloader_desk import BootloaderDesk
from agent.bootloader_settings import BootloaderTable
from agent.outbox import NewEvent
from agent.requests import RequestError
from agent.settings import AgentSettings
from agent.unit import Effects
from firmware_tools.bootloader.netboot import NetbootOrder
from wire.payloads import PowerResult
from wire.phases import ErrorKind, EventType, Power, PowerAction

if TYPE_CHECKING:
    from agent.daemon import Agent


def desk(agent: "Agent") -> BootloaderDesk:
    """The desk of `agent`; its actions are taken from now on."""
    calls = BootloaderCalls(
        console=agent.consoles.consoles.get,
        power=functools.partial(_power, agent),
        switch=functools.partial(_switch, agent),
        order=lambda board: _order(agent.settings, board),
        hold=functools.partial(_hold, agent),
        release=functools.partial(_release, agent),
        by_dialogue=functools.partial(_by_dialogue, agent),
        on_own=functools.partial(_on_own, agent),
    )
    made = BootloaderDesk(tables(agent.settings), calls)
    for verb, work in (("catch", made.catch), ("run", made.run), ("env", made.env), ("boot", made.boot)):
        agent.actions.add(f"bootloader-{verb}", work)
    return made


def tables(settings: AgentSettings) -> dict[str, BootloaderTable]:
    """Of every board with a console."""
    return {
        name: board.bootloader or BootloaderTable()
        for name, board in settings.boards.items()
        if board.console is not None
    }


def by_dialogue(settings: AgentSettings, board: str) -> bool:
    """Whether the agent has the board boot from the net at each power on: the board asks for it, or its profile."""
    table = settings.boards[board]
    if table.bootloader is not None and table.bootloader.netboot == "dialogue":
        return True
    profile = None if table.profile is None else settings.profiles.get(table.profile)
    return profile is not None and profile.netboot_by == "dialogue"


def _by_dialogue(agent: "Agent", board: str) -> bool:
    """As settings have it, but not in a mode for flashing: our keys would end the fastboot that it stands in."""
    return by_dialogue(agent.settings, board) and agent.modes.is_normal(board)


def _power(agent: "Agent", board: str) -> Power:
    return agent.power.last(board)


async def _switch(agent: "Agent", board: str, action: PowerAction, token: int | None) -> PowerResult:
    return await agent.commands.asked(board, action, token=token)


def _order(settings: AgentSettings, board: str) -> NetbootOrder:
    table, netboot = settings.boards[board], settings.netboot
    own = table.bootloader or BootloaderTable()
    commands = tuple(own.boot_commands)
    if netboot is None or table.profile is None or table.address is None:
        if not commands:
            message = (
                f"board {board}: does not boot from this agent; give it an address, a profile and the agent "
                f"[netboot], or boot_commands in [boards.{board}.bootloader]"
            )
            raise RequestError(ErrorKind.CONFIGURATION, message, "board")
        return NetbootOrder(commands=commands, within_s=own.boot_s)
    return NetbootOrder(
        address=str(table.address),
        netmask=str(netboot.address.netmask),
        server=str(netboot.address.ip),
        commands=commands,
        within_s=own.boot_s,
    )


def _hold(agent: "Agent", board: str, for_s: float) -> None:
    """It stands at its prompt on purpose: that it does not come up is nobody's fault until `for_s` have passed."""
    life = agent.shelf.unit(board).life
    if life.phase.coming_up and life.boot_timeout_s is not None:
        life.boot_deadline = time.monotonic() + for_s
        agent.submit(Effects())  # the deadlines are looked at anew


def _release(agent: "Agent", board: str) -> None:
    """It is to come up, or is cycled as any board that does not."""
    life = agent.shelf.unit(board).life
    due_s = life.deadline_from(time.monotonic())
    if life.phase.coming_up and due_s is not None and (life.boot_deadline is None or life.boot_deadline > due_s):
        life.boot_deadline = due_s
        agent.submit(Effects())  # the deadlines are looked at anew


def _on_own(agent: "Agent", board: str, stage: str, reason: str) -> None:
    details: dict[str, object] = {"action": "bootloader-boot", "by": "the agent itself", "stage": stage}
    if reason:
        details["reason" if stage == "failed" else "message"] = reason[:1000]
    agent.submit(Effects(events=[NewEvent(board, EventType.ACTION, details)]))


def power_begins(agent: "Agent", board: str, action: PowerAction) -> None:
    """The board's power is about to be switched."""
    if action is not PowerAction.OFF:
        agent.bootloaders.power_begins(board, cycles=action is PowerAction.CYCLE)


def power_found(agent: "Agent", board: str, power: Power) -> None:
    """The board's power at our start: nothing of it has come just now."""
    if power is not Power.UNKNOWN:
        agent.bootloaders.found(board, on=power is Power.ON)


def power_read(agent: "Agent", board: str, power: Power) -> None:
    """The board's power was read back, after a change."""
    if power is not Power.UNKNOWN:
        agent.bootloaders.power(board, on=power is Power.ON)
