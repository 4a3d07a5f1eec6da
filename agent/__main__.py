"""`python -m agent --settings FILE`: the agent in the foreground, until SIGTERM or SIGINT."""

import asyncio
import sys
from collections.abc import Sequence

from agent.daemon import Agent
from agent.settings import AgentSettings, load
from daemon.foreground import run_daemon


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; returns the exit code: 0 after a clean stop, 1 when it cannot run, 2 for bad settings."""
    return run_daemon("agent", "The daemon of a dispatcher host.", load, _serve, arguments)


async def _serve(settings: AgentSettings, stop: asyncio.Event) -> None:
    await Agent(settings).run(stop)


if __name__ == "__main__":
    sys.exit(main())
