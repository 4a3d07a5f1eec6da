"""Actions: once per transaction, one per board, under the lease, with an end that is always told."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from agent.action_store import ActionStore
from agent.actions import Actions, Progress
from agent.commands import CommandDesk
from agent.memory import MIGRATIONS
from agent.power_desk import LeaseBook
from agent.requests import RequestError
from daemon.store import Store
from wire.payloads import Lease, encode
from wire.phases import ErrorKind, LeaseKind, Power, PowerAction
from wire.topics import Topics

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Bench:
    """Actions over a real store; the agent around them is only what they ask of it."""

    def __init__(self, store: Store) -> None:
        self.told: list[dict[str, object]] = []
        self.leases = LeaseBook()
        self.retained: dict[str, bytes] = {}
        self.rested: list[str] = []
        self.agent = SimpleNamespace(
            name="attic",
            shelf={"pi4": object(), "bone": object()},
            stopping=False,
            commands=SimpleNamespace(leases=self.leases, at_rest=self.at_rest),
            voice=SimpleNamespace(retain=lambda topic, payload: self.retained.update({topic: payload})),
            topics=Topics("boardhand"),
            submit=lambda effects: self.told.extend(event.details for event in effects.events),
            settings=SimpleNamespace(agent=SimpleNamespace(state_dir="state")),
            modes=SimpleNamespace(recovering=set()),
        )
        self.actions = Actions(self.agent)
        self.store = ActionStore(store)
        self.may_end = asyncio.Event()
        self.begun = asyncio.Event()
        self.put_back = False
        self.answer: dict[str, object] = {}
        self.runs = 0

    async def at_rest(self, board: str) -> None:
        self.rested.append(board)

    async def work(self, board: str, data: dict[str, object], progress: Progress) -> dict[str, object]:
        self.runs += 1
        self.begun.set()
        for percent in range(100):
            progress("writing", percent)
        try:
            await self.may_end.wait()
        finally:
            self.put_back = True
        if data.get("fail"):
            raise RequestError(ErrorKind.REFUSED, f"board {board}: no", "image")
        if data.get("crash"):
            raise ZeroDivisionError
        progress("writing", 100)
        return {"board": board, "written": 5} | self.answer

    async def ask(self, transaction: str = "t1", verb: str = "flash", **data: object):
        payload = json.dumps({"transaction": transaction, "data": {"board": "pi4"} | data}).encode()
        return await self.actions.answer(verb, payload, NOW)

    def stages(self) -> list[object]:
        return [details["stage"] for details in self.told]


@pytest.fixture
async def bench(tmp_path):
    store = await Store.open(tmp_path / "agent.db", MIGRATIONS)
    found = Bench(store)
    await found.actions.start(found.store)
    found.actions.add("flash", found.work, holds_power=True)
    found.actions.add("look", found.work)
    yield found
    await found.actions.stop()
    await store.close()


async def test_an_action_tells_its_beginning_its_progress_and_its_end(bench):
    bench.may_end.set()
    response = await bench.ask()
    assert response.ok
    assert response.data == {"board": "pi4", "written": 5}
    assert bench.stages() == ["begun", "writing", "writing", "done"], "a hundred calls in a moment are told twice"
    assert bench.told[2] == {"action": "flash", "transaction": "t1", "stage": "writing", "percent": 100.0}


async def test_a_repeated_request_is_done_once(bench):
    first = asyncio.create_task(bench.ask())
    await bench.begun.wait()
    assert await bench.ask() is None, "it is under way, and will be answered"
    bench.may_end.set()
    done = await first
    again = await bench.ask()
    assert again == done
    assert bench.runs == 1


async def test_what_a_killed_agent_left_is_interrupted_and_not_done_again(bench):
    await bench.store.begin("t9", "pi4", "flash")
    await bench.store.begin("t8", "gone", "flash")
    assert await bench.actions.start(bench.store) == [("pi4", "flash")]
    response = await bench.ask("t9")
    assert response.error.kind is ErrorKind.INTERRUPTED
    assert bench.runs == 0
    assert bench.told[0]["stage"] == "failed"
    assert await bench.actions.start(bench.store) == [], "told once"


async def test_one_at_a_time_per_board(bench):
    first = asyncio.create_task(bench.ask())
    await bench.begun.wait()
    refused = await bench.ask("t2", verb="look")
    assert refused.error.kind is ErrorKind.BUSY
    assert "flash is under way" in refused.error.message
    bench.may_end.set()
    assert (await bench.ask("t3", board="bone")).ok, "another board's is not concerned"
    assert (await first).ok
    assert (await bench.ask("t4", verb="look")).ok


async def test_power_is_held_only_by_what_needs_it(bench):
    assert bench.actions.objection("pi4") is None
    first = asyncio.create_task(bench.ask())
    await bench.begun.wait()
    assert bench.actions.objection("pi4") == "flash is under way"
    assert bench.actions.objection("bone") is None
    bench.may_end.set()
    await first
    assert bench.actions.objection("pi4") is None
    bench.may_end.clear()
    bench.begun.clear()
    second = asyncio.create_task(bench.ask("t2", verb="look"))
    await bench.begun.wait()
    assert bench.actions.objection("pi4") is None
    bench.may_end.set()
    await second


async def test_the_lease_stands_against_strangers(bench):
    lease = Lease(
        holder="alice", kind=LeaseKind.PERSON, token=7, since=NOW, expires=datetime.now(UTC) + timedelta(hours=1)
    )
    bench.leases.heard("pi4", encode(lease))
    bench.may_end.set()
    refused = await bench.ask()
    assert refused.error.kind is ErrorKind.NOT_ALLOWED
    assert refused.error.key == "token"
    assert (await bench.ask("t2", token=7)).ok
    assert (await bench.ask("t3", token=True)).error.kind is ErrorKind.BAD_REQUEST
    with pytest.raises(RequestError, match="alice"):
        await bench.actions.cancel({"board": "pi4"})


async def test_cancel_puts_the_board_back_and_says_so(bench):
    with pytest.raises(RequestError, match="no such action"):
        await bench.actions.cancel({"board": "pi4"})
    first = asyncio.create_task(bench.ask())
    await bench.begun.wait()
    with pytest.raises(RequestError, match="no such action"):
        await bench.actions.cancel({"board": "pi4", "transaction": "other"})
    assert (await bench.actions.cancel({"board": "pi4"}))["cancelled"] == "flash"
    response = await first
    assert response.error.kind is ErrorKind.INTERRUPTED
    assert "cancelled on request" in response.error.message
    assert bench.put_back
    assert bench.stages()[-1] == "failed"


async def test_a_deadline_of_the_callers(bench):
    response = await bench.ask(timeout_s=0.05)
    assert "did not end within timeout_s" in response.error.message
    assert bench.put_back
    assert bench.actions.objection("pi4") is None


async def test_the_agents_stop_ends_actions(bench):
    first = asyncio.create_task(bench.ask())
    await bench.begun.wait()
    await bench.actions.stop()
    assert first.done(), "its end is stored and said before the agent goes on with its stop"
    assert "being stopped" in (await first).error.message
    bench.agent.stopping = True
    assert (await bench.ask("t2")).error.kind is ErrorKind.BUSY


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"fail": True}, ErrorKind.REFUSED),
        ({"crash": True}, ErrorKind.INTERNAL),
        ({"board": "nobody"}, ErrorKind.UNKNOWN_BOARD),
        ({"board": 5}, ErrorKind.BAD_REQUEST),
        ({"timeout_s": -1}, ErrorKind.BAD_REQUEST),
        ({"timeout_s": "long"}, ErrorKind.BAD_REQUEST),
        ({"timeout_s": float("1e9")}, ErrorKind.BAD_REQUEST),
    ],
)
async def test_what_is_wrong_is_answered(bench, data, kind):
    bench.may_end.set()
    assert (await bench.ask(**data)).error.kind is kind


async def test_requests_that_are_none(bench):
    assert (await bench.actions.answer("flash", b"{", NOW)).error.kind is ErrorKind.BAD_REQUEST
    late = json.dumps({"transaction": "t", "expires": "2025-01-01T00:00:00Z", "data": {"board": "pi4"}}).encode()
    assert (await bench.actions.answer("flash", late, NOW)).error.kind is ErrorKind.EXPIRED
    assert bench.runs == 0


async def test_a_board_that_is_being_put_back_is_cancelled_once_only(bench):
    """Whatever comes while it is put back: another cancel-action, the caller's deadline, the agent's stop."""
    may_be_back, at_it = asyncio.Event(), asyncio.Event()
    ended = []

    async def work(board, _data, _progress):
        try:
            await bench.may_end.wait()
        finally:
            at_it.set()
            await may_be_back.wait()
            ended.append(board)

    bench.actions.add("mode", work, holds_power=True)
    first = asyncio.create_task(bench.ask(verb="mode", timeout_s=0.05))
    async with asyncio.timeout(30):
        await at_it.wait()
        assert (await bench.actions.cancel({"board": "pi4"}))["cancelled"] == "mode"
        stopping = asyncio.create_task(bench.actions.stop())
        await asyncio.sleep(0)  # its cancellations have been made
        may_be_back.set()
        response = await first
        await stopping
    assert ended == ["pi4"]
    assert "did not end within timeout_s" in response.error.message, "the first reason counts"


async def test_power_is_held_while_a_board_is_put_back_after_the_agents_last_end(bench):
    bench.agent.modes.recovering.add("pi4")
    assert "is being put back" in bench.actions.objection("pi4")
    assert bench.actions.objection("bone") is None


async def test_a_board_is_left_alone_that_would_take_the_power_of_one_in_a_flash_with_it(bench):
    """`bone` hangs on an outlet of `pi`'s."""
    bench.agent.actions = bench.actions
    bench.agent.power = SimpleNamespace(
        moved_with=lambda board, _action: ["pi4"] if board == "bone" else [], last=lambda _board: Power.ON
    )
    desk = CommandDesk(bench.agent, force_allowed=False)
    first = asyncio.create_task(bench.ask())
    await bench.begun.wait()
    for board, words in (
        ("pi4", "board pi4: flash is under way"),
        ("bone", "its outlet with pi4, of which flash"),
    ):
        refused = await desk.asked(board, PowerAction.OFF)
        assert refused.error.kind is ErrorKind.BUSY
        assert words in refused.error.message
    bench.may_end.set()
    await first
