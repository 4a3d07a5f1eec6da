"""A broker on a PostgreSQL store: it stands by until it leads, leads until it may not, and stands by again."""

import asyncio
import contextlib
import logging

from broker.jobs.store import JobStore
from broker.service import Broker
from broker.settings import BrokerSettings
from broker.store.leadership import AGAIN_S, Leader, win
from broker.store.postgresql_connection import Place
from broker.store.postgresql_engine import PostgresqlEngine
from broker.store.schema import MIGRATIONS
from broker.store.sql import LeadershipLostError, StoreUnavailableError
from daemon.state_folder import held

log = logging.getLogger(__name__)


async def run(settings: BrokerSettings, place: Place, stop: asyncio.Event) -> None:
    """Serve as one of several until `stop` is set.

    Raises:
        DaemonError: another process uses the state folder, or the brokers of the store have another name.
        daemon.store.StoreError: the store is of a newer boardhand.
    """
    table = settings.broker
    with held(table.state_dir, "broker"):
        while not stop.is_set():
            leader = await win(place, table.name, stop)
            if leader is None:
                return
            log.info("leading, epoch %d", leader.epoch)
            try:
                await _lead(settings, place, leader, stop)
            except (LeadershipLostError, StoreUnavailableError) as error:
                log.warning("leading no more: %s", leader.why or error)
            finally:
                await leader.resign()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await stop.wait()


async def _lead(settings: BrokerSettings, place: Place, leader: Leader, stop: asyncio.Event) -> None:
    store = JobStore(await PostgresqlEngine.open(place, MIGRATIONS, leader.epoch, leader.leads))
    # Ended by an event and never cancelled: it may be at its last words already, and must get to their end.
    end = asyncio.Event()
    watching = [asyncio.create_task(_pass_on(event, end), name="broker-end") for event in (stop, leader.lost)]
    try:
        await Broker(settings).lead(store, end)
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    if not stop.is_set():
        raise LeadershipLostError(leader.why)


async def _pass_on(event: asyncio.Event, to: asyncio.Event) -> None:
    await event.wait()
    to.set()
