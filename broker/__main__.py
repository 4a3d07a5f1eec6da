"""`python -m broker --settings FILE`: the broker in the foreground, until SIGTERM or SIGINT."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from broker.service import Broker, BrokerError
from broker.settings import read_settings
from daemon.settings_file import SettingsError
from daemon.store import StoreError

EXIT_FAILED = 1
EXIT_SETTINGS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the broker; returns the exit code: 0 after a clean stop, 1 when it cannot run, 2 for bad settings."""
    parser = argparse.ArgumentParser(prog="boardhand broker", description="The work broker of a farm.")
    parser.add_argument("--settings", type=Path, required=True, metavar="FILE", help="its settings, TOML")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = read_settings(options.settings)
    except SettingsError as error:
        print(f"boardhand broker: {error}", file=sys.stderr)  # noqa: T201  # a daemon's last words go to stderr
        return EXIT_SETTINGS
    try:
        asyncio.run(_run(Broker(settings)))
    except (BrokerError, StoreError) as error:
        print(f"boardhand broker: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    return 0


async def _run(broker: Broker) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await broker.run(stop)


if __name__ == "__main__":
    sys.exit(main())
