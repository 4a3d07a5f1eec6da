"""`boardhand backup` and `boardhand restore` on the command line; the work is in `cli.backups`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json


def _options(page: ArgumentParser) -> None:
    page.add_argument("file", metavar="FILE", type=Path, help="the backup; packed where it ends with .gz")
    where = page.add_mutually_exclusive_group(required=True)
    where.add_argument("--settings", metavar="FILE", type=Path, help="the broker's settings: its store")
    where.add_argument("--state-dir", metavar="DIR", type=Path, help="a broker's state folder with its SQLite store")


def _backup(args: Namespace) -> int:
    from cli import backups

    return backups.backup(args.file, args.settings, args.state_dir, as_json=as_json(args))


def _restore(args: Namespace) -> int:
    from cli import backups

    return backups.restore(args.file, args.settings, args.state_dir, as_json=as_json(args))


BACKUP = Command(
    "write the broker's store into a file",
    "Jobs, their logs and timelines, leases and tokens, in one moment's state; the broker may be running. The file\n"
    "can be restored into SQLite and into PostgreSQL, whichever it came from. Artifacts are files: copy their folder.\n"
    "JSON: {file, schema, rows: {table: count}}.",
    _options,
    _backup,
)
RESTORE = Command(
    "make the broker's store from such a file",
    "There must be no store yet: a folder without broker.sqlite3, or a PostgreSQL database without its tables. The\n"
    "broker must not be running. What was handed in after the backup is lost.\n"
    "JSON: {file, schema, rows: {table: count}}.",
    _options,
    _restore,
)
