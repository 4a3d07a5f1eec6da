"""Connections to PostgreSQL, and what psycopg's errors mean to the broker. The one module that knows psycopg's ways."""

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.store.sql import LeadershipLostError, StoreUnavailableError
from broker.store.sql_dialect import in_postgresql
from daemon.foreground import DaemonError

try:
    import psycopg
    from psycopg.conninfo import make_conninfo
except ImportError as error:
    raise DaemonError(
        "[broker] store: PostgreSQL needs the package psycopg: pip install 'boardhand[postgresql]'"
    ) from error

CONNECT_TIMEOUT_S = 5
# A host that lost its power is noticed by both sides after 5 + 3 * 2 s; unset, the kernel takes two hours.
KEEPALIVE_S, KEEPALIVE_EVERY_S, KEEPALIVES = 5, 2, 3
SILENT_MS = 10_000
# Statements that go to the server together: fewer waits for its answers.
AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Place:
    """A database. The URL holds no password."""

    url: str
    password_file: Path | None = None

    def connect(self) -> "psycopg.Connection[StoredRow]":
        """Open a connection. Blocks, for some seconds at most.

        Raises:
            StoreUnavailableError: the server is away or does not let us in.
        """
        try:
            password = self.password_file.read_text().strip() if self.password_file is not None else None
            connection = psycopg.connect(
                make_conninfo(self.url, password=password),
                autocommit=True,  # transactions are begun and ended in words
                cursor_factory=psycopg.ClientCursor,
                row_factory=_rows,
                connect_timeout=CONNECT_TIMEOUT_S,
                keepalives_idle=KEEPALIVE_S,
                keepalives_interval=KEEPALIVE_EVERY_S,
                keepalives_count=KEEPALIVES,
                tcp_user_timeout=SILENT_MS,
                application_name="boardhand broker",
            )
        except OSError as error:
            raise StoreUnavailableError(f"{error.filename}: {error.strerror}") from error
        except psycopg.Error as error:
            raise StoreUnavailableError(f"{self.url}: {one_line(error)}") from error
        with errors_told():
            connection.execute("SET client_encoding = 'UTF8'")
            connection.execute("SET synchronous_commit = on")  # accepted means on the disk
            if connection.info.host and not connection.info.host.startswith("/"):
                # The server, too, has to notice soon that we are gone: it holds our lock until then.
                connection.execute(
                    f"SET tcp_keepalives_idle = {KEEPALIVE_S}; SET tcp_keepalives_interval = {KEEPALIVE_EVERY_S};"
                    f" SET tcp_keepalives_count = {KEEPALIVES}; SET tcp_user_timeout = {SILENT_MS}"
                )
        return connection


class StoredRow:
    """A row, by position or by name, as `sqlite3.Row`."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: dict[str, int], values: Sequence[Any]) -> None:
        self._names, self._values = names, values

    def __getitem__(self, key: int | str) -> Any:  # what a database holds
        return self._values[self._names[key] if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> list[str]:
        return list(self._names)


class _Rows:
    def __init__(self, cursor: "psycopg.Cursor[Any]") -> None:
        self._names = {column.name: at for at, column in enumerate(cursor.description or ())}

    def __call__(self, values: Sequence[Any]) -> StoredRow:
        return StoredRow(self._names, values)


def _rows(cursor: "psycopg.Cursor[Any]") -> _Rows:
    return _Rows(cursor)


class Translated:
    """A transaction under way that takes SQLite's SQL: see `broker.store.sql.Connection`."""

    def __init__(self, connection: "psycopg.Connection[StoredRow]") -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> "psycopg.Cursor[StoredRow]":
        return self._connection.execute(in_postgresql(sql).encode(), _named(parameters))

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        statement = in_postgresql(sql).encode()
        with psycopg.ClientCursor(self._connection) as cursor:
            told = [cursor.mogrify(statement, _named(row)) for row in parameters]
            for at in range(0, len(told), AT_ONCE):
                cursor.execute(";\n".join(told[at : at + AT_ONCE]).encode())


def _named(parameters: Sequence[Any]) -> dict[str, Any]:
    return {f"p{number}": _value(value) for number, value in enumerate(parameters, start=1)}


def _value(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        # PostgreSQL's text cannot hold a zero byte, and boards may send one.
        return str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value


@contextlib.contextmanager
def errors_told(connection: "psycopg.Connection[StoredRow] | None" = None) -> Iterator[None]:
    """Psycopg's errors by what the caller does next.

    Raises:
        LeadershipLostError: `connection` is gone, and whether its last words arrived is not known.
        StoreUnavailableError: nothing was changed; it may be tried again.
        psycopg.Error: a defect of ours.
    """
    try:
        yield
    except psycopg.Error as error:
        if connection is not None and (connection.closed or connection.broken):
            raise LeadershipLostError(f"the connection to PostgreSQL is gone: {one_line(error)}") from error
        if isinstance(error, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction):
            raise StoreUnavailableError(one_line(error)) from error
        raise


def one_line(error: Exception) -> str:
    """What PostgreSQL says, without its hints of several lines."""
    return " ".join(str(error).split())[:500] or type(error).__name__


def cut(connection: "psycopg.Connection[StoredRow]") -> None:
    """End a connection at once, also one on which another thread waits: that gets an error."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
