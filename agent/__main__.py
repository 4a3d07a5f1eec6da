"""`python -m agent --settings FILE`: the agent in the foreground, until SIGTERM or SIGINT."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.daemon import Agent
from agent.settings import AgentSettings, load
from daemon.foreground import run_daemon


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; returns the exit code: 0 after a clean stop, 1 when it cannot run, 2 for bad settings."""
    agent = _FromFile()
    return run_daemon("agent", "The daemon of a dispatcher host.", agent.read, agent.serve, arguments)


class _FromFile:
    """An agent whose settings file is read again at SIGHUP."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def read(self, path: Path) -> AgentSettings:
        self._path = path.absolute()
        return load(path)

    async def serve(self, settings: AgentSettings, stop: asyncio.Event) -> None:
        agent = Agent(settings, self._path)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, agent.reloading.ask)
        await agent.run(stop)


if __name__ == "__main__":
    sys.exit(main())
