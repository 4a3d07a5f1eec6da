"""The actions on consoles of an agent."""

import functools
from typing import TYPE_CHECKING

from agent.console import console_actions
from agent.console.console_actions import Consoles

if TYPE_CHECKING:
    from agent.daemon import Agent


def add(agent: "Agent") -> None:
    """Take `console-write`, `console-expect` and `console-run`. None of them holds the board's power: who waits for a
    word of the boot loader switches it meanwhile."""
    desk = Consoles(agent.consoles.consoles, agent.consoles.shells)
    for verb, work in (
        ("console-write", console_actions.write),
        ("console-expect", console_actions.expect),
        ("console-run", console_actions.run),
    ):
        agent.actions.add(verb, functools.partial(work, desk))
