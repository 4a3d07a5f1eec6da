"""One SQLite file on a thread of its own, so that the event loop never waits for a disk.

WAL with `synchronous=FULL`: what `Store.run` returned from survives a kill -9 and a power cut (measured: one commit
costs about 0.2 ms). A file that fails its integrity check is an error, never silently replaced.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")

BUSY_TIMEOUT_S = 10.0
"""Another process may hold the file for one transaction (a backup, a look with sqlite3); longer is a fault."""


PROBE_BYTES = 64 * 1024
"""What must fit on a disk that has room again: some transactions. One page of the log may fit into a full disk."""


class StoreError(Exception):
    """The store's file cannot be used; the message names it and says what to do."""


class Store:
    """A SQLite file with a schema version; all access is by `run`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, executor: ThreadPoolExecutor) -> None:
        self.path = path
        self._connection = connection
        self._executor = executor
        self._closed = False
        self.on_failure: Callable[[sqlite3.Error], None] | None = None
        """Told, in the event loop, of each transaction that the file did not take, before `run` raises the same."""

    @classmethod
    async def open(cls, path: Path, migrations: Sequence[str]) -> Self:
        """Open `path`, create it if it is missing, and bring its schema to version `len(migrations)`.

        Script `i` brings version `i` to `i + 1` and is applied in one transaction with the version number.

        Raises:
            StoreError: the file is damaged, is no SQLite file, was written by a newer boardhand, or the folder cannot
                be written.
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"store-{path.name}")
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(executor, _open, path, migrations)
        except BaseException:
            executor.shutdown(wait=False)
            raise
        return cls(path, connection, executor)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` on the store's thread inside one transaction; committed when it returns, undone when it raises.

        Raises:
            sqlite3.Error: the file cannot be read or written; nothing of it was done, and the next one may be.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, self._transaction, work)
        except sqlite3.Error as error:
            if self.on_failure is not None and _is_the_files(error):
                self.on_failure(error)
            raise

    async def probe(self) -> None:
        """Write as much as some transactions beside the file, and a page into it.

        Raises:
            OSError: the disk takes nothing.
            sqlite3.Error: the file takes nothing.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._probe)

    def _probe(self) -> None:
        beside = self.path.with_name(f"{self.path.name}.probe")
        try:
            with beside.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            beside.unlink(missing_ok=True)
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        self._transaction(lambda db: db.execute(f"PRAGMA user_version = {version}"))

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(self._connection)
            # A commit that fails may leave its transaction open, and no other could be begun in it.
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            raise
        return result

    async def close(self) -> None:
        """Close the file; work already handed in is done first. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._executor, self._connection.close)
        self._executor.shutdown(wait=False)


def _is_the_files(error: sqlite3.Error) -> bool:
    """Whether it is the file or its disk, and not what was asked of it."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError | sqlite3.NotSupportedError
    )


def _open(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.OperationalError) as error:
        raise StoreError(f"{path}: cannot be opened: {error}; make its folder writable for this user") from error
    try:
        connection.row_factory = sqlite3.Row
        # It holds boot secrets: nobody but its owner reads it.
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        _check(path, connection)
        _migrate(path, connection, migrations)
    except (sqlite3.OperationalError, OSError) as error:
        connection.close()
        raise StoreError(f"{path}: cannot be used: {error}; make room on its disk, or mend that") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreError(f"{path}: cannot be used: {error}; move it away, or restore a backup") from error
    except StoreError:
        connection.close()
        raise
    return connection


def _check(path: Path, connection: sqlite3.Connection) -> None:
    verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
    if verdict != "ok":
        raise StoreError(f"{path}: is damaged ({verdict}); move it away and start again, or restore a backup")


def _migrate(path: Path, connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise StoreError(
            f"{path}: has schema version {version}, this boardhand knows {len(migrations)}; start the newer one"
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script};\nPRAGMA user_version = {number};\nCOMMIT;")
