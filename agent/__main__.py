"""`python -m agent --settings FILE`: the agent in the foreground, until SIGTERM or SIGINT."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.daemon import Agent, AgentError
from agent.settings import load
from daemon.settings_file import SettingsError
from daemon.store import StoreError

EXIT_FAILED = 1
EXIT_SETTINGS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; returns the exit code: 0 after a clean stop, 1 when it cannot run, 2 for bad settings."""
    parser = argparse.ArgumentParser(prog="boardhand agent", description="The daemon of a dispatcher host.")
    parser.add_argument("--settings", type=Path, required=True, metavar="FILE", help="its settings, TOML")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = load(options.settings)
    except SettingsError as error:
        print(f"boardhand agent: {error}", file=sys.stderr)  # noqa: T201  # a daemon's last words go to stderr
        return EXIT_SETTINGS
    try:
        asyncio.run(_run(Agent(settings)))
    except (AgentError, StoreError) as error:
        print(f"boardhand agent: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    return 0


async def _run(agent: Agent) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await agent.run(stop)


if __name__ == "__main__":
    sys.exit(main())
