"""The agent's consoles: what they show becomes a board's life, and what they need of the agent."""

import functools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.console.console import Sight
from agent.console.desk import ConsoleCalls, ConsoleDesk
from agent.console.milestones import Kind
from agent.console.port import PortState
from agent.console.writer_place import Binding
from agent.life import LifeEvent

if TYPE_CHECKING:
    from agent.daemon import Agent

LIFE: dict[Kind, LifeEvent] = {Kind.BOOTLOADER: LifeEvent.BOOTLOADER_SEEN, Kind.KERNEL: LifeEvent.KERNEL_SEEN}
"""What moves a phase. The others are evidence: a login prompt proves nothing of who registers, and a kernel often
lives on after an oops."""


def desk(agent: "Agent") -> ConsoleDesk:
    """The consoles of `agent`, not begun yet."""
    settings = agent.settings
    calls = ConsoleCalls(
        on_sight=functools.partial(_sight, agent),
        on_state=_state,
        on_trouble=_trouble,
        lease=functools.partial(_lease, agent),
    )
    tables = {name: board.console for name, board in settings.boards.items()}
    return ConsoleDesk(tables, settings.consoles, settings.agent.state_dir, calls)


def _sight(agent: "Agent", sight: Sight) -> None:
    kind, line = sight.kind, sight.milestone.line
    details: dict[str, object] = {"kind": kind.value, "line": line}
    if sight.lines:
        details["lines"] = list(sight.lines)
    fault = f"on its console: {line}" if kind is Kind.PANIC else None
    event = LifeEvent.RESTART_SEEN if kind is Kind.KERNEL and sight.restarted else LIFE.get(kind)
    agent.submit(agent.shelf.on_console(sight.board, event, details, agent.moment(), fault))
    if kind is Kind.BOOTLOADER and sight.restarted:
        agent.bootloaders.restarted(sight.board)


def _state(_board: str, _state: PortState) -> None:
    """The desk has logged it, and the recording has it; a UART without power is no event."""


def _trouble(_why: str | None) -> None:
    """The recorder has logged it."""


def _lease(agent: "Agent", board: str) -> Binding | None:
    lease = agent.commands.leases.held(board, datetime.now(UTC))
    return None if lease is None else Binding(lease.holder, lease.token)
