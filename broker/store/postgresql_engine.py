"""The broker's store in a PostgreSQL database that several brokers share; for who may write see `leadership`.

Each transaction holds a shared lock, under which the leader's epoch is compared with ours; a new leader takes that
lock alone while it writes the next epoch. So whoever was leader before cannot commit once another one leads, whatever
it believes itself.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from broker.store.leader_table import EPOCH, FENCE
from broker.store.postgresql_connection import Place, StoredRow, Translated, cut, errors_told
from broker.store.postgresql_schema import migrate
from broker.store.sql import Connection, LeadershipLostError

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

CLOSE_S = 3.0
OPEN_TRANSACTION_MS = 8_000
"""A leader that stands still in the middle of a transaction holds the fence, behind which the next epoch would wait for
ever: PostgreSQL ends its connection. Transactions take milliseconds. Below `broker.store.leadership.STALE_S`, since
whoever waits at the fence looks silent, too."""
NOT_LEADER = "another broker leads now"


def connect_to_write(place: Place) -> "psycopg.Connection[StoredRow]":
    """A leader's connection for its transactions. Blocks, for some seconds at most.

    Raises:
        StoreUnavailableError: the server is away or does not let us in.
    """
    connection = place.connect()
    with errors_told():
        connection.execute(f"SET idle_in_transaction_session_timeout = {OPEN_TRANSACTION_MS}")
    return connection


class PostgresqlEngine:
    """See `broker.store.sql.Engine`. `leads` is asked before each transaction and each message: it costs nothing."""

    def __init__(
        self, connection: "psycopg.Connection[StoredRow]", epoch: int, leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._connection, self._epoch, self._leads = connection, epoch, leads
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-postgresql")

    @classmethod
    async def open(
        cls, place: Place, migrations: Sequence[str], epoch: int, leads: Callable[[], bool] = lambda: True
    ) -> "PostgresqlEngine":
        """Connect as the leader of that epoch, and bring the schema up to date.

        Raises:
            StoreUnavailableError: the server is away, full or read-only.
            LeadershipLostError: the epoch has passed.
            daemon.store.StoreError: the schema is of a newer boardhand.
        """
        engine = cls(await asyncio.to_thread(connect_to_write, place), epoch, leads)
        try:
            await engine.run(lambda connection: migrate(connection, migrations))
        except BaseException:
            await engine.close()
            raise
        return engine

    async def run(self, work: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._transaction, work)

    async def fence(self) -> None:
        await self.run(lambda _: None)

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        if not self._leads():
            raise LeadershipLostError(NOT_LEADER)
        connection = self._connection
        with errors_told(connection):
            try:
                # In one go, to save time; the epoch is read when the lock is held, as each statement sees anew.
                begun = connection.execute(f"BEGIN; {FENCE}; {EPOCH}")
                while begun.nextset():
                    pass
                found = begun.fetchone()
                if found is None or found["epoch"] != self._epoch:
                    raise LeadershipLostError(NOT_LEADER)  # noqa: TRY301  # undone below like any other
                result = work(Translated(connection))
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is the one that counts
                    connection.execute("ROLLBACK")
                raise
            ended = connection.execute("COMMIT").statusmessage
        if ended != "COMMIT":
            raise RuntimeError(f"a statement failed unseen, and all was undone: {ended}")
        return result

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(RuntimeError):  # closed before
            closing = loop.run_in_executor(self._executor, self._connection.close)
            await asyncio.wait({closing}, timeout=CLOSE_S)
            if not closing.done():
                cut(self._connection)  # a transaction hangs: its thread must not outlive us
        self._executor.shutdown(wait=False)
