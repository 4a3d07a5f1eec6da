"""`python -m broker --settings FILE`: the broker in the foreground, until SIGTERM or SIGINT."""

import asyncio
import sys
from collections.abc import Sequence

from broker.service import Broker
from broker.settings import BrokerSettings, read_settings
from daemon.foreground import run_daemon


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the broker; returns the exit code: 0 after a clean stop, 1 when it cannot run, 2 for bad settings."""
    return run_daemon("broker", "The work broker of a farm.", read_settings, _serve, arguments)


async def _serve(settings: BrokerSettings, stop: asyncio.Event) -> None:
    await Broker(settings).run(stop)


if __name__ == "__main__":
    sys.exit(main())
