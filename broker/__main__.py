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
    if settings.web is None:
        await _broker(settings, stop)
        return
    from broker.web.service import Web  # noqa: PLC0415  # a broker without a page does not load the web framework

    state_dir = settings.broker.state_dir
    await asyncio.to_thread(state_dir.mkdir, parents=True, exist_ok=True)
    web = Web(settings.web, settings.mqtt, state_dir)
    await web.start()
    broker = asyncio.create_task(_broker(settings, stop), name="broker")
    try:
        # A web server that dies is a fault of ours; half a broker would hide it.
        await asyncio.wait({broker, *web.tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in (broker, *web.tasks):
            if task.done():
                task.result()
    finally:
        stop.set()
        await asyncio.gather(broker, return_exceptions=True)
        await web.stop()


async def _broker(settings: BrokerSettings, stop: asyncio.Event) -> None:
    table = settings.broker
    if table.store is None:
        await Broker(settings).run(stop)
        return
    from broker import standby  # noqa: PLC0415  # psycopg is optional
    from broker.store.postgresql_connection import Place  # noqa: PLC0415

    await standby.run(settings, Place(table.store, table.store_password_file), stop)


if __name__ == "__main__":
    sys.exit(main())
