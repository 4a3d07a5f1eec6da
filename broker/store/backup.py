"""A backup of the broker's store as JSON lines, which either engine takes back: `boardhand backup` and `restore`.

The first line says what it is and of which schema version; then each table by a line with its columns and a line per
row; the last line has the number of rows and a checksum of all lines before it. So half a backup is never restored.
"""

import base64
import binascii
import contextlib
import gzip
import hashlib
import io
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from broker.store.schema import MIGRATIONS
from broker.store.sql import Connection

FORMAT = 1
BATCH = 500
# Boards and agents have seen tokens since the backup was made; ours must go on above them.
TOKENS_AHEAD = 1_000_000


class BackupError(Exception):
    """It could not be made or restored; the message says why and what to do. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a backup holds."""

    schema: int
    rows: dict[str, int]


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: tuple[str, ...]


def tables(schema: int) -> list[Table]:
    """The tables of a schema version; each after those that it refers to."""
    with contextlib.closing(sqlite3.connect(":memory:")) as empty:
        for script in MIGRATIONS[:schema]:
            empty.executescript(script)
        names = [
            row[0]
            for row in empty.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
            )
        ]
        return [Table(name, tuple(row[1] for row in empty.execute(f'PRAGMA table_info("{name}")'))) for name in names]


# --- writing ---------------------------------------------------------------------------------------------------


def write(path: Path, schema: int, rows_of: Callable[[str], Iterable[Sequence[Any]]]) -> Made:
    """Write a backup to `path`, whole or not at all. `rows_of` runs a query in one and the same snapshot. Blocks.

    Raises:
        BackupError: the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)
        # It holds what people's jobs hold.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            made = _write(raw, schema, rows_of, packed=path.suffix == ".gz")
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(path)
    except OSError as error:
        raise BackupError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return made


def _write(raw: IO[bytes], schema: int, rows_of: Callable[[str], Iterable[Sequence[Any]]], *, packed: bool) -> Made:
    digest, counts = hashlib.sha256(), {}
    with contextlib.ExitStack() as stack:
        put = stack.enter_context(gzip.GzipFile(fileobj=raw, mode="wb")).write if packed else raw.write

        def line(document: object) -> None:
            data = json.dumps(document, default=_plain, separators=(",", ":")).encode() + b"\n"
            digest.update(data)
            put(data)

        line({"boardhand_backup": FORMAT, "schema": schema, "made": datetime.now(UTC).isoformat()})
        for table in tables(schema):
            line({"table": table.name, "columns": table.columns})
            counts[table.name] = 0
            columns = ", ".join(table.columns)
            for row in rows_of(f"SELECT {columns} FROM {table.name}"):  # noqa: S608  # names of our own schema
                line(list(row))
                counts[table.name] += 1
        line({"rows": sum(counts.values()), "sha256": digest.hexdigest()})
    return Made(schema, counts)


def _plain(value: object) -> dict[str, str]:
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} is in the store, and no backup can hold it")


# --- reading ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a backup."""

    schema: int
    made: str


def read_header(path: Path) -> Header:
    """What a file is a backup of. Blocks.

    Raises:
        BackupError: it is none that this boardhand can restore.
    """
    with _opened(path) as file:
        first = _document(path, 1, file.readline())
    if not isinstance(first, dict) or first.get("boardhand_backup") != FORMAT:
        raise BackupError(f"{path}: is no backup of a broker that this boardhand knows")
    schema = first.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= len(MIGRATIONS):
        raise BackupError(f"{path}: is of schema version {schema}, this boardhand knows {len(MIGRATIONS)}: use a newer")
    return Header(schema, str(first.get("made")))


def fill(path: Path, connection: Connection) -> Made:
    """Put the rows of a backup into the empty tables of its schema version, in the transaction under way. Blocks.

    Raises:
        BackupError: it is damaged or not whole: roll back.
    """
    header = read_header(path)
    known = {table.name: table for table in tables(header.schema)}
    counts: dict[str, int] = {}
    insert, batch = "", list[list[Any]]()
    table: Table | None = None
    for number, document in _lines(path):
        if isinstance(document, dict):
            _insert(connection, insert, batch)
            table = known.get(str(document.get("table")))
            if table is None or list(table.columns) != document.get("columns"):
                raise BackupError(f"{path}:{number}: table {document.get('table')} is not of schema {header.schema}")
            counts[table.name] = 0
            marks = ", ".join("?" for _ in table.columns)
            insert = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks})"  # noqa: S608
            continue
        if table is None or not isinstance(document, list) or len(document) != len(table.columns):
            raise BackupError(f"{path}:{number}: is no row of a table")
        batch.append([_value(path, number, value) for value in document])
        counts[table.name] += 1
        if len(batch) >= BATCH:
            _insert(connection, insert, batch)
    _insert(connection, insert, batch)
    if "tokens" in counts:
        connection.execute("UPDATE tokens SET token = token + ?", (TOKENS_AHEAD,))
    return Made(header.schema, counts)


def _insert(connection: Connection, statement: str, batch: list[list[Any]]) -> None:
    if batch:
        connection.executemany(statement, batch)
        batch.clear()


def _lines(path: Path) -> Iterator[tuple[int, object]]:
    """The lines after the header, numbered, without the last one, which is checked."""
    digest, rows = hashlib.sha256(), 0
    with _opened(path) as file:
        digest.update(file.readline())
        for number, line in enumerate(file, start=2):
            document = _document(path, number, line)
            if isinstance(document, dict) and "sha256" in document:
                if document != {"rows": rows, "sha256": digest.hexdigest()} or file.readline():
                    raise BackupError(f"{path}: was changed after it was made: its checksum does not fit")
                return
            digest.update(line)
            rows += isinstance(document, list)
            yield number, document
    raise BackupError(f"{path}: is not whole: its end is missing")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    try:
        with path.open("rb") as raw:
            yield io.BufferedReader(gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
    except (OSError, EOFError) as error:
        raise BackupError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _document(path: Path, number: int, line: bytes) -> object:
    try:
        found: object = json.loads(line)
    except ValueError as error:
        raise BackupError(f"{path}:{number}: is no line of a backup: {error}") from None
    return found


def _value(path: Path, number: int, value: object) -> object:
    if isinstance(value, dict):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise BackupError(f"{path}:{number}: holds a value that no table has") from None
    return value
