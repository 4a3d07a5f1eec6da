"""One leader among the brokers of a PostgreSQL store, by an advisory lock on a connection of its own.

The lock goes with the connection. A leader watches its end of it and stops at once when it is gone; a new one begins
the next epoch before it does anything else, and what the old one may still try to commit is refused
(`broker.store.postgresql_engine`). A leader that hangs keeps its connection, so it shows by a question every other
second that it lives; who is silent for too long has its connection ended by those who wait.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

import psycopg

from broker.store import leader_table
from broker.store.postgresql_connection import Place, StoredRow, cut, errors_told, one_line
from broker.store.sql import LeadershipLostError, StoreUnavailableError
from daemon.foreground import DaemonError

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_S = 0.5
AGAIN_S = 1.0
BEAT_S = 2.0
BEAT_TIMEOUT_S = 6.0
STALE_S = 15.0
"""More than the beats of a leader on a loaded machine may be late."""


class Leader:
    """The lock held. `lost` is set as soon as it may not be any more; `leads` says so from any thread."""

    def __init__(self, connection: psycopg.Connection[StoredRow], thread: ThreadPoolExecutor, epoch: int) -> None:
        self.epoch = epoch
        self.lost = asyncio.Event()
        self.why = ""
        self._connection, self._thread = connection, thread
        self._leads = True
        self._resigned = False
        self._news = asyncio.Event()
        self._watcher = asyncio.create_task(self._watch(), name="leadership")

    def leads(self) -> bool:
        """Whether we lead, as far as is known at this moment."""
        return self._leads

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        line = self._connection.fileno()
        try:
            while True:
                # Nothing comes on this connection by itself but its end, and word of changed settings: then ask.
                self._news.clear()
                loop.add_reader(line, self._readable, line)
                try:
                    async with asyncio.timeout(BEAT_S):
                        await self._news.wait()
                except TimeoutError:
                    pass
                finally:
                    loop.remove_reader(line)
                async with asyncio.timeout(BEAT_TIMEOUT_S):
                    await loop.run_in_executor(self._thread, _beat, self._connection)
        except TimeoutError:
            self._end(f"PostgreSQL did not answer for {BEAT_TIMEOUT_S:g} s")
        except (StoreUnavailableError, LeadershipLostError, OSError) as error:
            self._end(str(error))
        finally:
            # However it ended: nobody watches now.
            self._end(self.why or "its connection is not watched any more")

    def _readable(self, line: int) -> None:
        asyncio.get_running_loop().remove_reader(line)
        self._news.set()

    def _end(self, why: str) -> None:
        self._leads = False
        self.why = why
        self.lost.set()

    async def resign(self) -> None:
        """Let another one lead. Doing so twice is harmless."""
        if self._resigned:
            return
        self._resigned = True
        self._end(self.why or "resigned")
        self._watcher.cancel()
        (ended,) = await asyncio.gather(self._watcher, return_exceptions=True)
        if isinstance(ended, Exception):
            log.error("the watch over the leadership failed", exc_info=ended)
        await _close(self._connection, self._thread)


async def win(place: Place, name: str, stop: asyncio.Event) -> Leader | None:
    """Wait until we lead; None where `stop` was set before.

    Args:
        place: the database.
        name: what the brokers of this store are called, all alike.
        stop: ends the wait.

    Raises:
        DaemonError: a leader of another name is there.
    """
    said = ""
    while not stop.is_set():
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leadership")
        connection: psycopg.Connection[StoredRow] | None = None
        try:
            connection = await _on(thread, place.connect)
            epoch = await _wait(connection, thread, name, stop)
            if epoch is None:
                await _close(connection, thread)
                return None
            return Leader(connection, thread, epoch)
        except (StoreUnavailableError, LeadershipLostError) as error:
            if str(error) != said:
                log.warning("waiting for the store: %s", error)
            said = str(error)
        except BaseException:
            await _close(connection, thread)
            raise
        await _close(connection, thread)
        await _pause(stop, AGAIN_S)
    return None


async def _wait(
    connection: psycopg.Connection[StoredRow], thread: ThreadPoolExecutor, name: str, stop: asyncio.Event
) -> int | None:
    """The epoch that we began, or None where `stop` was set before."""
    try:
        await _on(thread, lambda: _set_up(connection))
    except psycopg.ProgrammingError as error:
        raise DaemonError(f"[broker] store: {one_line(error)}: give its role the right to make tables there") from error
    said = False
    while not stop.is_set():
        epoch = await _on(thread, lambda: _try(connection, name))
        if epoch is not None:
            return epoch
        if not said:
            who = await _on(thread, lambda: _check_leader(connection, name))
            log.info("standing by: %s", who)
            said = True
        await _on(thread, lambda: _end_hanging(connection))
        await _pause(stop, POLL_S)
    return None


async def _on(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)


async def _pause(stop: asyncio.Event, pause_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pause_s):
            await stop.wait()


async def _close(connection: psycopg.Connection[StoredRow] | None, thread: ThreadPoolExecutor) -> None:
    """End the connection, and with it the lock; also where the thread still waits on it."""
    if connection is not None:
        if not connection.closed:
            cut(connection)
        await _on(thread, connection.close)
    thread.shutdown(wait=False)


# --- on the connection's own thread ----------------------------------------------------------------------------


def _set_up(connection: psycopg.Connection[StoredRow]) -> None:
    with errors_told(connection), connection.transaction():
        for statement in leader_table.SET_UP:
            connection.execute(statement.encode())


def _try(connection: psycopg.Connection[StoredRow], name: str) -> int | None:
    with errors_told(connection):
        won = connection.execute(leader_table.TRY.encode()).fetchone()
        if won is None or not won["won"]:
            return None
        with connection.transaction():
            connection.execute(leader_table.ALONE.encode())
            now = datetime.now(UTC).isoformat()
            what = {"name": name, "host": socket.gethostname()[:255], "since": now}
            row = connection.execute(leader_table.BEGIN_EPOCH.encode(), what).fetchone()
        if row is None:
            raise StoreUnavailableError("the table boardhand_leader was emptied: restore a backup")
        epoch: int = row["epoch"]
        return epoch


def _check_leader(connection: psycopg.Connection[StoredRow], name: str) -> str:
    with errors_told(connection):
        row = connection.execute(leader_table.WHO.encode()).fetchone()
    if row is not None and row["name"] not in ("", name):
        # They share one MQTT client id, so that the server itself lets one of them in only.
        raise DaemonError(
            f"[broker] name: {name}: the brokers of one PostgreSQL store need one name, and {row['name']} leads on"
            f" {row['host']}: give this one that name, or a store of its own"
        )
    return f"{row['host']} leads since {row['since']}" if row is not None else "another one leads"


def _end_hanging(connection: psycopg.Connection[StoredRow]) -> None:
    with errors_told(connection):
        for row in connection.execute(leader_table.HANGING.encode(), {"stale_s": STALE_S}).fetchall():
            log.error("the leader has been silent for %g s: its connection (pid %d) is ended", STALE_S, row["pid"])
            connection.execute(leader_table.END.encode(), {"pid": row["pid"]})


def _beat(connection: psycopg.Connection[StoredRow]) -> None:
    with errors_told(connection):
        connection.execute(b"SELECT 1")
