"""Backup and restore of the store that a settings file names. Everything here blocks."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.jobs.store import STORE_FILE
from broker.store.backup import BackupError, Made, fill, read_header, write
from broker.store.schema import MIGRATIONS
from broker.store.sql import LeadershipLostError, StoreUnavailableError
from daemon.state_folder import held

if TYPE_CHECKING:
    import psycopg

    from broker.store.postgresql_connection import Place, StoredRow

BUSY_TIMEOUT_S = 10.0


def backup_sqlite(state_dir: Path, file: Path) -> Made:
    """Back up the store in a state folder. The broker may be running: what is written meanwhile is left out.

    Raises:
        BackupError: there is no store, or the file cannot be written.
    """
    path = state_dir / STORE_FILE
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
            db.execute("BEGIN")  # one snapshot for all that follows
            schema = _known(db.execute("PRAGMA user_version").fetchone()[0], path)
            return write(file, schema, db.execute)
    except sqlite3.Error as error:
        raise BackupError(f"{path}: cannot be read: {error}; is it the broker's state_dir?") from error


def restore_sqlite(state_dir: Path, file: Path) -> Made:
    """Make the store of a state folder from a backup. There must be none yet.

    Raises:
        BackupError: there is one, or the backup cannot be used.
        DaemonError: the broker runs.
    """
    path = state_dir / STORE_FILE
    schema = read_header(file).schema
    part = path.with_name(STORE_FILE + ".restore")
    with held(state_dir, "broker"):
        if path.exists():
            raise BackupError(f"{path}: is there already: move it away, with its -wal and -shm, and restore again")
        part.unlink(missing_ok=True)
        try:
            part.touch(mode=0o600)
            with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as db:
                db.execute("PRAGMA synchronous=FULL")
                for script in MIGRATIONS[:schema]:
                    db.executescript(script)
                db.execute("BEGIN")
                made = fill(file, db)
                db.execute("COMMIT")
                db.execute(f"PRAGMA user_version = {schema}")
            part.rename(path)
            _sync(state_dir)
        except sqlite3.Error as error:
            raise BackupError(f"{file}: cannot be restored into {path}: {error}") from error
        except OSError as error:
            raise BackupError(f"{path}: cannot be written: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)
    return made


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def backup_postgresql(place: "Place", file: Path) -> Made:
    """Back up a PostgreSQL store. Brokers may be running.

    Raises:
        BackupError: it is away, holds no store, or the file cannot be written.
    """
    from broker.store.postgresql_connection import errors_told  # noqa: PLC0415  # psycopg is optional

    try:
        with contextlib.closing(place.connect()) as connection, errors_told():
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            schema = _known(_version(connection), place.url)

            def rows_of(query: str) -> Iterable[Sequence[Any]]:
                # On the server: a store's logs need not fit our memory.
                with connection.cursor("backup") as cursor:
                    yield from cursor.execute(query.encode())

            return write(file, schema, rows_of)
    except StoreUnavailableError as error:
        raise BackupError(str(error)) from error


def restore_postgresql(place: "Place", file: Path) -> Made:
    """Make a PostgreSQL store from a backup, in a database or schema that holds none.

    Raises:
        BackupError: it is away, there is a store, or the backup cannot be used.
    """
    from broker.store.postgresql_connection import Translated, errors_told  # noqa: PLC0415  # psycopg is optional
    from broker.store.postgresql_schema import count_on, counters, migrate  # noqa: PLC0415

    schema = read_header(file).schema
    try:
        with contextlib.closing(place.connect()) as connection, errors_told():
            connection.execute("BEGIN")
            if _version(connection) is not None:
                raise BackupError(f"{place.url}: holds a store already: restore into an empty database or schema")
            inside = Translated(connection)
            migrate(inside, MIGRATIONS[:schema])
            made = fill(file, inside)
            count_on(inside, counters(inside))
            connection.execute("COMMIT")
            return made
    except (StoreUnavailableError, LeadershipLostError) as error:
        raise BackupError(str(error)) from error


def _version(connection: "psycopg.Connection[StoredRow]") -> int | None:
    """The schema version of the store there, or None where there is none."""
    found = connection.execute("SELECT to_regclass('boardhand_schema') IS NOT NULL AS there").fetchone()
    if found is None or not found["there"]:
        return None
    row = connection.execute("SELECT version FROM boardhand_schema").fetchone()
    return int(row["version"]) if row is not None else None


def _known(version: int | None, where: Path | str) -> int:
    if not version:
        raise BackupError(f"{where}: holds no store of a broker")
    if version > len(MIGRATIONS):
        raise BackupError(f"{where}: has schema version {version}, this boardhand knows {len(MIGRATIONS)}: use a newer")
    return version
