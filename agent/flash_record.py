"""What must be known of a board's mode and flash after a kill -9: in which mode it is, what was under way, what was
left half written."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from agent.memory import Memory

FACT = "mode-{board}"


@dataclass(frozen=True, slots=True)
class Record:
    """One board.

    Attributes:
        mode: the mode that it was brought into; None: nobody knows.
        took_out: it was put into maintenance for that, by us and not by a person.
        under_way: `METHOD: IMAGE` of a flash that is being done, or `mode NAME`.
        method: that flash's method.
        was_off: its power was off before that.
        damaged: why its flash may hold half an image; stands until one was written whole.
        damaged_at: since when, ISO 8601.
    """

    mode: str | None = None
    took_out: bool = False
    under_way: str | None = None
    method: str | None = None
    was_off: bool = False
    damaged: str | None = None
    damaged_at: str | None = None

    def hurt(self, why: str) -> "Record":
        """The same with damage."""
        return replace(self, damaged=why, damaged_at=datetime.now(UTC).isoformat())

    @property
    def since(self) -> datetime:
        """When it was damaged."""
        return datetime.now(UTC) if self.damaged_at is None else datetime.fromisoformat(self.damaged_at)


class Records:
    """The records of one agent's boards, each stored before it is believed."""

    def __init__(self) -> None:
        self._memory: Memory | None = None
        self._records: dict[str, Record] = {}

    async def load(self, memory: Memory, boards: list[str]) -> None:
        """Read what was stored.

        Raises:
            sqlite3.Error: the state file cannot be read.
        """
        self._memory = memory
        await self.know(boards)

    async def know(self, boards: list[str]) -> None:
        """Read what was stored of boards that came later.

        Raises:
            sqlite3.Error: the state file cannot be read.
        """
        if self._memory is not None:
            for board in boards:
                self._records[board] = parse(await self._memory.fact(FACT.format(board=board)))

    def of(self, board: str) -> Record:
        return self._records.get(board, Record())

    async def put(self, board: str, record: Record) -> None:
        """Store it; it survives a kill -9 when this returns.

        Raises:
            sqlite3.Error: it cannot be stored, and is not believed.
        """
        if self._memory is not None:
            await self._memory.remember(FACT.format(board=board), asdict(record))
        self._records[board] = record


def parse(stored: object) -> Record:
    """A stored record; what cannot be read of it is as if it had never been written."""
    if not isinstance(stored, dict):
        return Record()

    def word(key: str) -> str | None:
        value = stored.get(key)
        return value if isinstance(value, str) else None

    return Record(
        mode=word("mode"),
        took_out=stored.get("took_out") is True,
        under_way=word("under_way"),
        method=word("method"),
        was_off=stored.get("was_off") is True,
        damaged=word("damaged"),
        damaged_at=word("damaged_at"),
    )
