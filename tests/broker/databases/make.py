"""Writes the store of the present schema version as SQL: run once for each new version, from the project's folder.

    .venv/bin/python tests/broker/databases/make.py

It takes the store of the version before, brings it up to date, and asks for nothing else: rows for new tables are
added to the file by hand, where a test looks at them.
"""

import contextlib
import sqlite3
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[2]))


from broker.store.schema import MIGRATIONS  # noqa: E402


def main() -> None:
    for version in range(2, len(MIGRATIONS) + 1):
        path = FOLDER / f"v{version}.sql"
        if path.exists():
            continue
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            db.executescript((FOLDER / f"v{version - 1}.sql").read_text())
            db.executescript(MIGRATIONS[version - 1])
            head = f"-- The broker's store, schema version {version}, as boardhand wrote it."
            lines = [head, *db.iterdump(), f"PRAGMA user_version = {version};"]
        path.write_text("\n".join(lines) + "\n")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
