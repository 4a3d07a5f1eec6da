"""The power service under other settings, again and again, while commands and read-backs are under way."""

import asyncio
import random

from agent.power.changing import PowerSettings
from agent.power.feed import OutletRef
from agent.power.journal import Journal, MemoryStore
from agent.power.service import Listeners, PowerService
from agent.power.settings import BoardFeed
from tests.agent.power import fakes
from wire.phases import ErrorKind, Power, PowerAction

RELOADS = 60
PLAIN = {"pi": ["rack:1"], "bone": ["rack:2"], "both": ["rack:3", "desk:1"]}
OTHER = {"pi": ["desk:2"], "both": ["rack:3"], "new": ["desk:1", "rack:2"]}


class Devices:
    """Outlets whose state outlives their drivers, as hardware's does."""

    def __init__(self) -> None:
        self.outlets: dict[tuple[str, str], bool] = {}
        self.busy: set[str] = set()
        self.made = 0

    def __call__(self, name: str) -> "OneDevice":
        self.made += 1
        return OneDevice(self, name)


class OneDevice(fakes.FakeDriver):
    """A driver of one of them: two at a time on one device would be a fault."""

    def __init__(self, devices: Devices, name: str) -> None:
        super().__init__()
        self._devices, self._name = devices, name
        self.closed_here = False

    async def _alone(self) -> None:
        assert self._name not in self._devices.busy
        assert not self.closed_here
        self._devices.busy.add(self._name)
        await asyncio.sleep(0.0005)
        self._devices.busy.discard(self._name)

    async def set(self, outlet: str, on: bool) -> None:
        await self._alone()
        self._devices.outlets[self._name, outlet] = on

    async def get(self, outlet: str) -> Power:
        await self._alone()
        return Power.ON if self._devices.outlets.get((self._name, outlet)) else Power.OFF

    async def close(self) -> None:
        self.closed_here = True


def wanted(service_feeds: dict[str, list[str]], controllers: dict, *, min_off_s: float = 0.0) -> PowerSettings:
    feeds = {name: BoardFeed(outlets=feed, min_off_s=min_off_s) for name, feed in service_feeds.items()}
    return PowerSettings(controllers, feeds, {}, 0.0)


async def test_many_reloads_under_commands():
    devices, seen = Devices(), []
    one = {"rack": fakes.any_settings(), "desk": fakes.any_settings()}
    two = {"rack": one["rack"].model_copy(update={"description": "another"}), "desk": one["desk"]}
    first = wanted(PLAIN, one)
    service = PowerService(
        first.controllers, first.feeds, journal=Journal(MemoryStore(), "boot"), poll_every_s=0,
        listeners=Listeners(lambda board, power: seen.append((board, power))), driver_factory=fakes.Factory(devices),
    )  # fmt: skip
    await service.start()
    dice, stop, count = random.Random(7), asyncio.Event(), 0
    last: dict[str, PowerAction] = {}

    async def operate(board: str) -> None:
        nonlocal count
        while not stop.is_set():
            count += 1
            action = dice.choice([PowerAction.ON, PowerAction.OFF])
            outcome = await service.switch(board, action, operation_id=f"{board}-{count}")
            if not outcome.ok:
                assert outcome.error is not None
                assert outcome.error.kind is ErrorKind.UNKNOWN_BOARD, outcome.error
            last[board] = action
            await asyncio.sleep(0)

    async def look() -> None:
        while not stop.is_set():
            await service.describe()
            await service.watts_of_all()
            await asyncio.sleep(0.001)

    work = [asyncio.create_task(operate(board)) for board in ("pi", "bone", "both", "new")]
    work.append(asyncio.create_task(look()))
    for _ in range(RELOADS):
        feeds = dice.choice([PLAIN, OTHER])
        prepared = service.prepare(wanted(feeds, dice.choice([one, two]), min_off_s=dice.choice([0.0, 0.001])))
        await service.follow(prepared, within_s=30)
        await asyncio.sleep(dice.choice([0, 0.002]))
    stop.set()
    await asyncio.gather(*work)
    # Back to the first: every read-back agrees with the hardware, and nothing was ever taken for silent.
    await service.follow(service.prepare(first), within_s=30)
    # (Half of a feed that is on is unknown: that is what two outlets may say in between.)
    assert Power.UNKNOWN not in {power for board, power in seen if board in {"pi", "bone"}}
    for board, feed in PLAIN.items():
        read = await service.read(board)
        states = {devices.outlets.get((ref.controller, ref.outlet), False) for ref in map(OutletRef.parse, feed)}
        if len(states) == 1:
            assert read is (Power.ON if states == {True} else Power.OFF)
        assert service.last(board) is read
    assert devices.made > RELOADS / 8
    assert count > RELOADS
    await service.close()


async def test_what_is_waited_for_too_long_changes_nothing():
    devices = Devices()
    one = {"rack": fakes.any_settings()}
    first = wanted({"pi": ["rack:1"]}, one, min_off_s=0.5)
    service = PowerService(
        first.controllers, first.feeds, journal=Journal(MemoryStore(), "boot"), poll_every_s=0,
        listeners=Listeners(lambda *_: None), driver_factory=fakes.Factory(devices),
    )  # fmt: skip
    await service.start()
    await service.switch("pi", PowerAction.ON, operation_id="1")
    cycle = asyncio.create_task(service.switch("pi", PowerAction.CYCLE, operation_id="2"))
    await asyncio.sleep(0.05)
    prepared = service.prepare(wanted({"pi": ["rack:2"]}, one))
    try:
        await service.follow(prepared, within_s=0.05)
    except TimeoutError:
        await prepared.abandon()
    else:
        raise AssertionError("the cycle was not waited for")
    assert (await cycle).ok
    assert devices.outlets == {("rack", "1"): True}
    await service.follow(service.prepare(wanted({"pi": ["rack:2"]}, one)), within_s=30)
    assert service.last("pi") is Power.OFF
    assert devices.outlets == {("rack", "1"): True}, "nothing is switched"
    await service.close()
