"""`boardhand backup` and `boardhand restore`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cli.exits import CliError, Exit, usage

if TYPE_CHECKING:
    from broker.settings import BrokerTable
    from broker.store.backup import Made


def backup(file: Path, settings: Path | None, state_dir: Path | None, *, as_json: bool) -> int:
    """Write the store into `file`.

    Raises:
        CliError: it cannot be read or written.
    """
    table = _table(settings, state_dir)
    made = _done(lambda: _backup(table, file))
    return _tell(file, made, "backed up", as_json=as_json)


def restore(file: Path, settings: Path | None, state_dir: Path | None, *, as_json: bool) -> int:
    """Make the store from `file`.

    Raises:
        CliError: there is a store, or the file cannot be used.
    """
    table = _table(settings, state_dir)
    made = _done(lambda: _restore(table, file))
    return _tell(file, made, "restored", as_json=as_json)


def _backup(table: "BrokerTable", file: Path) -> "Made":
    from broker.store.backup_places import backup_postgresql, backup_sqlite

    if table.store is None:
        return backup_sqlite(table.state_dir, file)
    from broker.store.postgresql_connection import Place

    return backup_postgresql(Place(table.store, table.store_password_file), file)


def _restore(table: "BrokerTable", file: Path) -> "Made":
    from broker.store.backup_places import restore_postgresql, restore_sqlite

    if table.store is None:
        return restore_sqlite(table.state_dir, file)
    from broker.store.postgresql_connection import Place

    return restore_postgresql(Place(table.store, table.store_password_file), file)


def _table(settings: Path | None, state_dir: Path | None) -> "BrokerTable":
    from broker.settings import BrokerTable, read_settings
    from daemon.settings_file import SettingsError

    if settings is None:
        return BrokerTable(state_dir=state_dir) if state_dir is not None else BrokerTable()
    if not settings.is_file():
        raise usage(f"settings file {settings} is not there, or is no file", "mend --settings")
    try:
        return read_settings(settings).broker
    except SettingsError as error:
        raise CliError(Exit.USAGE, str(error)) from None


def _done(work: Callable[[], "Made"]) -> "Made":
    from broker.store.backup import BackupError
    from daemon.foreground import DaemonError

    try:
        return work()
    except (BackupError, DaemonError) as error:
        raise CliError(Exit.FAILED, str(error)) from None


def _tell(file: Path, made: "Made", what: str, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"file": str(file), "schema": made.schema, "rows": made.rows}))
    else:
        jobs = made.rows.get("jobs", 0)
        print(f"{file}: {what}: {jobs} jobs, {sum(made.rows.values())} rows in all, schema version {made.schema}")
    return Exit.OK
