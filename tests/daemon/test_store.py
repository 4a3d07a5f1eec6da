import asyncio
import sqlite3
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from daemon.store import Store, StoreError

SCHEMA = ("CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",)


async def test_what_run_returned_from_is_there_for_the_next_process(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import asyncio, os, sys
        from pathlib import Path
        from daemon.store import Store
        async def main():
            store = await Store.open(Path(sys.argv[1]), (sys.argv[2],))
            for number in range(50):
                await store.run(lambda db: db.execute("INSERT INTO thing (name) VALUES (?)", (str(number),)))
            os.kill(os.getpid(), 9)
        asyncio.run(main())
    """)
    path = tmp_path / "deep" / "a.db"
    ended = subprocess.run([sys.executable, "-c", script, str(path), SCHEMA[0]], check=False, timeout=60)
    assert ended.returncode == -9
    store = await Store.open(path, SCHEMA)
    assert await store.run(lambda db: db.execute("SELECT count(*) FROM thing").fetchone()[0]) == 50
    await store.close()


async def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db", SCHEMA)

    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO thing (name) VALUES ('x')")
        raise KeyError("midway")

    with pytest.raises(KeyError, match="midway"):
        await store.run(half)
    assert await store.run(lambda db: db.execute("SELECT count(*) FROM thing").fetchone()[0]) == 0
    await store.close()
    await store.close()


async def test_a_commit_that_fails_does_not_stand_in_the_way_of_the_next(tmp_path: Path) -> None:
    """SQLite leaves the transaction open: as a full disk may, a broken reference that is looked at last does always."""
    later = "CREATE TABLE part (thing INTEGER REFERENCES thing (id) DEFERRABLE INITIALLY DEFERRED)"
    store = await Store.open(tmp_path / "a.db", (*SCHEMA, later))
    failures: list[sqlite3.Error] = []
    store.on_failure = failures.append
    with pytest.raises(sqlite3.IntegrityError):
        await store.run(lambda db: db.execute("INSERT INTO part VALUES (5)"))
    assert not failures, "no fault of the disk's"
    await store.run(lambda db: db.execute("INSERT INTO thing (name) VALUES ('x')"))
    assert await store.run(lambda db: db.execute("SELECT count(*) FROM part").fetchone()[0]) == 0
    await store.close()


async def test_what_the_disk_does_not_take_is_told_and_the_file_goes_on(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db", SCHEMA)
    failures: list[sqlite3.Error] = []
    store.on_failure = failures.append
    pages = await store.run(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await store.run(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await store.run(lambda db: db.execute("INSERT INTO thing (name) VALUES (zeroblob(100000))"))
    assert [str(failure) for failure in failures] == ["database or disk is full"] * 2
    await store.run(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
    await store.run(lambda db: db.execute("INSERT INTO thing (name) VALUES (zeroblob(100000))"))
    await store.probe()
    assert len(failures) == 2
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".probe"] == []
    await store.close()


async def test_a_probe_fails_where_nothing_can_be_written(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db", SCHEMA)
    (tmp_path / "a.db.probe").mkdir()  # what no user can write, root included
    with pytest.raises(IsADirectoryError):
        await store.probe()
    (tmp_path / "a.db.probe").rmdir()
    await store.probe()
    await store.close()


async def test_migrations_go_on_where_the_file_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await Store.open(path, SCHEMA)
    await store.run(lambda db: db.execute("INSERT INTO thing (name) VALUES ('old')"))
    await store.close()
    newer = (*SCHEMA, "ALTER TABLE thing ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'; CREATE TABLE other (x)")
    for _ in range(2):
        store = await Store.open(path, newer)
        row = await store.run(lambda db: tuple(db.execute("SELECT name, colour FROM thing").fetchone()))
        assert row == ("old", "grey")
        await store.close()
    with pytest.raises(StoreError, match=r"a\.db: has schema version 2, this boardhand knows 1"):
        await Store.open(path, SCHEMA)


async def test_a_failing_migration_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await (await Store.open(path, SCHEMA)).close()
    with pytest.raises(StoreError):
        await Store.open(path, (*SCHEMA, "CREATE TABLE ok (x); CREATE TABLE thing (x)"))
    store = await Store.open(path, SCHEMA)
    tables = await store.run(lambda db: {row[0] for row in db.execute("SELECT name FROM sqlite_master")})
    assert "ok" not in tables
    await store.close()


@pytest.mark.parametrize(
    "content", [b"this is no database, it is a letter" * 100, b"SQLite format 3\x00" + b"\xff" * 4096]
)
async def test_a_damaged_file_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"a\.db"):
        await Store.open(path, SCHEMA)
    assert path.read_bytes() == content


async def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db", SCHEMA)
    assert stat.S_IMODE((tmp_path / "a.db").stat().st_mode) == 0o600
    await store.close()


async def test_the_event_loop_goes_on_while_the_disk_is_slow(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db", SCHEMA)
    import threading

    release = threading.Event()
    slow = asyncio.ensure_future(store.run(lambda _db: release.wait(60)))
    await asyncio.sleep(0)
    release.set()  # reached only because the loop was not blocked
    assert await slow
    await store.close()
