"""The broker's store in one SQLite file. The lock on the broker's state folder keeps others away from it."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from broker.store.sql import Connection, StoreUnavailableError
from daemon.store import Store

T = TypeVar("T")


class SqliteEngine:
    """See `broker.store.sql.Engine`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    async def open(cls, path: Path, migrations: Sequence[str]) -> "SqliteEngine":
        """Open or create the file.

        Raises:
            daemon.store.StoreError: it is damaged, of a newer boardhand, or cannot be written.
        """
        return cls(await Store.open(path, migrations))

    async def run(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._store.run(work)
        except sqlite3.OperationalError as error:
            raise StoreUnavailableError(str(error)) from error

    async def fence(self) -> None:
        """Whoever holds the folder's lock leads."""

    async def close(self) -> None:
        await self._store.close()
