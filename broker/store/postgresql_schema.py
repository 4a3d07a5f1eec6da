"""The broker's schema in PostgreSQL: the scripts of `schema`, said in its dialect, and their version number."""

from collections.abc import Sequence

from broker.store.sql import Connection
from broker.store.sql_dialect import statements
from daemon.store import StoreError


def migrate(connection: Connection, migrations: Sequence[str]) -> None:
    """Bring the schema to version `len(migrations)`, in the transaction under way.

    Raises:
        StoreError: it is of a newer boardhand.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS boardhand_schema (version INTEGER NOT NULL)")
    found = connection.execute("SELECT version FROM boardhand_schema").fetchone()
    version = found["version"] if found is not None else 0
    if version > len(migrations):
        raise StoreError(
            f"the PostgreSQL store has schema version {version}, this boardhand knows {len(migrations)}: start the"
            " newer one"
        )
    for script in migrations[version:]:
        for statement in statements(script):
            connection.execute(statement)
    if found is None:
        connection.execute("INSERT INTO boardhand_schema VALUES (?)", (len(migrations),))
    elif version < len(migrations):
        connection.execute("UPDATE boardhand_schema SET version = ?", (len(migrations),))


def count_on(connection: Connection, columns: Sequence[tuple[str, str]]) -> None:
    """Let the counters of (table, column) go on behind what was written into them: after a restore."""
    for table, column in columns:
        # Both are names of our own schema.
        connection.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'),"  # noqa: S608
            f" (SELECT coalesce(max({column}), 0) + 1 FROM {table}), false)"
        )


def counters(connection: Connection) -> list[tuple[str, str]]:
    """Columns that count by themselves."""
    rows = connection.execute(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND is_identity = 'YES'"
    )
    return [(row[0], row[1]) for row in rows]
