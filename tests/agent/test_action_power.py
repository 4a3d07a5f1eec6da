"""Power commands beside actions: what waits for what, at the desk itself."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from agent.commands import CommandDesk
from agent.power.outcomes import PowerOutcome
from agent.power_watch import OnChange
from agent.shelf import Shelf
from agent.unit import BoardPlan, Effects, Moment
from wire.phases import ErrorKind, Power, PowerAction, Purpose

PATIENCE_S = 30.0


class Bench:
    """Two boards on one outlet, `pi` and `bone`, and `imx` on its own; commands end when they may."""

    def __init__(self):
        self.now_s = 0.0
        self.shelf = Shelf(
            "lab",
            1,
            {"pi": BoardPlan(60.0, 1, OnChange.ENFORCE)} | dict.fromkeys(("bone", "imx"), BoardPlan(None)),
            self.moment(),
        )
        for board in self.shelf.boards:
            self.shelf.restore(board, None, Power.ON, self.moment())
        self.under_way: dict[str, str] = {}
        self.switched: list[str] = []
        self.told: list[str] = []
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.may_end.set()
        agent = SimpleNamespace(
            shelf=self.shelf,
            stopping=False,
            actions=SimpleNamespace(objection=self.under_way.get, retry_objection=self.under_way.get),
            power=SimpleNamespace(moved_with=self.moved_with, last=lambda _board: Power.ON, switch=self.switch),
            hooks=SimpleNamespace(run=self.hook),
            boots=SimpleNamespace(cycled=lambda _board, _began: None),
            bootloaders=SimpleNamespace(power_begins=lambda *_words, **_more: None),
            moment=self.moment,
            submit=self.submit,
            apply=self.apply,
        )
        self.desk = CommandDesk(agent, force_allowed=False)

    def moment(self):
        return Moment(self.now_s, datetime(2026, 1, 1, tzinfo=UTC))

    def moved_with(self, board, _action):
        return {"pi": ["bone"], "bone": ["pi"]}.get(board, [])

    async def switch(self, board, action, **_more):
        self.begun.set()
        await self.may_end.wait()
        self.switched.append(f"{board} {action.value}")
        return PowerOutcome(ok=True, power=Power.ON, error=None, took_ms=1.0)

    async def hook(self, _point, _board, _facts):
        return None

    def submit(self, effects: Effects):
        self.told += [str(event.details.get("what", "")) for event in effects.events]

    async def apply(self, effects: Effects):
        self.submit(effects)


@pytest.fixture
async def bench():
    return Bench()


@pytest.mark.parametrize("board", ["pi", "bone"])
async def test_an_action_waits_for_whatever_moves_its_boards_power(bench, board):
    bench.may_end.clear()
    command = asyncio.create_task(bench.desk.switch(board, PowerAction.CYCLE, Purpose.OPERATOR))
    await bench.begun.wait()
    resting = asyncio.create_task(bench.desk.at_rest("pi"))
    async with asyncio.timeout(PATIENCE_S):
        await bench.desk.at_rest("imx")  # not concerned
        assert not resting.done()
        bench.may_end.set()
        await resting
        await command
    assert bench.switched == [f"{board} cycle"]


async def test_a_command_whose_turn_comes_in_an_action_is_refused(bench):
    bench.may_end.clear()
    first = asyncio.create_task(bench.desk.asked("pi", PowerAction.CYCLE))
    await bench.begun.wait()
    waiting = [asyncio.create_task(bench.desk.asked(board, PowerAction.OFF)) for board in ("pi", "imx")]
    await asyncio.sleep(0)
    bench.under_way["pi"] = "flash is under way"
    bench.may_end.set()
    assert (await first).ok, "it was being carried out already"
    refused, other = await asyncio.gather(*waiting)
    assert (refused.error.kind, "flash is under way" in refused.error.message) == (ErrorKind.BUSY, True)
    assert other.ok
    assert sorted(bench.switched) == ["imx off", "pi cycle"]
    own = await bench.desk.switch("pi", PowerAction.OFF, Purpose.OPERATOR)
    assert own.ok, "the action's own hands"


@pytest.mark.parametrize("held", ["pi", "bone"])
async def test_a_late_board_is_not_cycled_in_an_action_and_its_retry_is_not_spent(bench, held):
    """Neither in one of its own, nor of one that would lose its power with it."""
    life = bench.shelf.unit("pi").life
    bench.under_way[held] = "bootloader-run is under way"
    for _ in range(3):
        bench.now_s = life.boot_deadline
        assert bench.shelf.tick(bench.moment()).cycle == ["pi"]
        await bench.desk.cycle_for_boot("pi")
        assert "bootloader-run is under way" in bench.told[-1]
        assert bench.told[-1].startswith("not cycled now: board pi: ")
    assert bench.switched == []
    bench.under_way.clear()
    bench.now_s = life.boot_deadline
    assert bench.shelf.tick(bench.moment()).cycle == ["pi"]
    await bench.desk.cycle_for_boot("pi")
    assert bench.switched == ["pi cycle"]
    assert life.retries_left == 0


async def test_a_late_board_that_was_cycled_while_its_retry_waited_is_not_cycled_again(bench):
    bench.may_end.clear()
    command = asyncio.create_task(bench.desk.asked("pi", PowerAction.CYCLE))
    await bench.begun.wait()
    life = bench.shelf.unit("pi").life
    bench.now_s = life.boot_deadline
    assert bench.shelf.tick(bench.moment()).cycle == ["pi"]
    retry = asyncio.create_task(bench.desk.cycle_for_boot("pi"))
    await asyncio.sleep(0)
    life.boot_deadline += 1  # as it is by any new beginning
    bench.may_end.set()
    await asyncio.gather(command, retry)
    assert bench.switched == ["pi cycle"]
    assert "was switched, or came up, meanwhile" in bench.told[-1]
    assert life.retries_left == 1


async def test_power_that_is_to_be_given_back_waits_for_the_end_of_an_action(bench):
    unit = bench.shelf.unit("pi")
    bench.under_way["pi"] = "flash is under way"
    await bench.desk.enforce("pi", PowerAction.ON, Purpose.OPERATOR)
    assert bench.switched == []
    assert unit.watch.retry_at is not None, "it is tried again"
    bench.under_way.clear()
    await bench.desk.enforce("pi", PowerAction.ON, Purpose.OPERATOR)
    assert bench.switched == ["pi on"]
