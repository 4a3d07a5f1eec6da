"""What the broker's store asks of a database: as much of sqlite3's interface as SQLite and PostgreSQL both give.

All SQL of the broker is written in SQLite's dialect; `broker.store.sql_dialect` says it in PostgreSQL's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class StoreUnavailableError(Exception):
    """Nothing can be written just now: full, read-only, or the database is away. Nothing was changed; try again."""


class LeadershipLostError(Exception):
    """Another broker may lead: nothing was changed, and nothing more may be said or written."""


class Row(Protocol):
    """A row, by position or by name."""

    def __getitem__(self, key: int | str, /) -> Any: ...  # what a database holds
    def keys(self) -> list[str]: ...


class Result(Protocol):
    """The rows of a statement, of type `Row`."""

    def fetchone(self) -> Any: ...  # `Row | None`; sqlite3 types it so
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A transaction under way. `sqlite3.Connection` is one."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Result: ...
    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> object: ...


class Engine(Protocol):
    """A database on a thread of its own."""

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do `work` inside one transaction; committed when it returns, undone when it raises.

        Raises:
            StoreUnavailableError: full, read-only or away.
            LeadershipLostError: this broker leads no more.
        """
        ...

    async def fence(self) -> None:
        """Return where this broker may still speak.

        Raises:
            LeadershipLostError: another one may lead.
        """
        ...

    async def close(self) -> None:
        """Let go of the database; work already handed in is done first. Closing twice is harmless."""
        ...
