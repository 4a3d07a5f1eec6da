import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.memory import MIGRATIONS, Memory
from agent.outbox import NewEvent, Outbox
from daemon.store import Store
from wire.phases import EventType

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def event(board: str, number: int = 0) -> NewEvent:
    return NewEvent(board, EventType.POWER, {"n": number})


async def test_numbers_have_no_gap_over_restarts(tmp_path: Path) -> None:
    for session in (1, 2):
        store = await Store.open(tmp_path / "a.db", MIGRATIONS)
        assert await Memory(store).next_session() == session
        outbox = Outbox(store, agent="lab", session=session, max_events=1000)
        await outbox.append([event("a"), event("b"), event("a")], NOW)
        await store.close()
    store = await Store.open(tmp_path / "a.db", MIGRATIONS)
    outbox = Outbox(store, agent="lab", session=3, max_events=1000)
    waiting = await outbox.waiting(100)
    told = [(w.board, json.loads(w.payload)["session"], json.loads(w.payload)["seq"]) for w in waiting]
    assert told == [("a", 1, 1), ("b", 1, 1), ("a", 1, 2), ("a", 2, 3), ("b", 2, 2), ("a", 2, 4)]
    await outbox.sent(waiting[2].id)
    assert [w.id for w in await outbox.waiting(100)] == [w.id for w in waiting[3:]]
    assert await outbox.sequence_numbers() == {"a": 4, "b": 2}
    await store.close()


async def test_a_full_outbox_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db", MIGRATIONS)
    outbox = Outbox(store, agent="lab", session=1, max_events=100)
    for number in range(500):
        await outbox.append([event("a" if number % 3 else "b", number)], NOW)
    waiting = [json.loads(w.payload) for w in await outbox.waiting(10_000)]
    assert len(waiting) <= 100
    for board in ("a", "b"):
        mine = [e for e in waiting if e["board"] == board]
        numbers = [e["seq"] for e in mine]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        # What was dropped before the first that is left: every one is counted, none twice.
        told = sum(e["details"]["dropped"] for e in mine if e["type"] == "outbox-overflow")
        overflows_gone = numbers[0] - 1 - told
        assert 0 <= overflows_gone <= 0, (board, numbers[0], told)
    await store.close()


async def test_what_goes_with_the_events_is_stored_with_them_or_not_at_all(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "a.db", MIGRATIONS)
    outbox = Outbox(store, agent="lab", session=1, max_events=100)

    def fail(_db: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await outbox.append([event("a")], NOW, also=fail)
    assert await outbox.waiting(10) == []
    made = await outbox.append([event("a")], NOW)
    assert made[0].seq == 1
    await store.close()
