"""One queue per controller."""

import asyncio

import pytest

from agent.power.controller_queue import ControllerQueue
from agent.power.errors import BusyError, InternalError, UnreachableError
from wire.phases import Phase, Power


async def test_calls_on_one_controller_never_overlap(fakes):
    driver = fakes.FakeDriver()
    queue = ControllerQueue("rack", driver)
    await asyncio.gather(*(queue.set(str(number), True) for number in range(20)))
    assert driver.most_running == 1
    assert [call[1] for call in driver.calls] == [str(number) for number in range(20)]
    await queue.close()
    assert driver.closed


async def test_a_hung_controller_delays_nobody_else(fakes):
    timing = fakes.replace(fakes.QUICK, call_timeout_s=2.0)
    hung, well = fakes.FakeDriver(hangs=True, timing=timing), fakes.FakeDriver(on={"1": True})
    queues = ControllerQueue("hung", hung), ControllerQueue("well", well)
    waiting = asyncio.create_task(queues[0].get("1"))
    assert await queues[1].get("1") is Power.ON
    assert not waiting.done()
    with pytest.raises(UnreachableError, match=r"hung:1: did not answer within 2 s"):
        await waiting
    for queue in queues:
        await queue.close()


@pytest.mark.parametrize("stubborn", [False, True])
async def test_the_queue_goes_on_after_a_call_that_hangs(fakes, stubborn):
    driver = fakes.FakeDriver(hangs=True, stubborn=stubborn, on={"1": True})
    queue = ControllerQueue("rack", driver)
    with pytest.raises(UnreachableError):
        await queue.get("1")
    driver.hangs = False
    async with asyncio.timeout(60):
        assert await queue.get("1") is Power.ON
    await queue.close()


async def test_a_full_queue_refuses_as_busy(fakes):
    queue = ControllerQueue("rack", fakes.FakeDriver(hangs=True), max_waiting=2)
    waiting = [asyncio.create_task(queue.get("1")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting.append(asyncio.create_task(queue.get("1")))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert any(isinstance(result, BusyError) for result in results)
    assert {type(result) for result in results} == {BusyError, UnreachableError}
    await queue.close()


async def test_a_defect_in_a_driver_is_told_and_does_not_end_the_queue(fakes):
    driver = fakes.FakeDriver(error=ZeroDivisionError("oops"))
    queue = ControllerQueue("rack", driver)
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        await queue.get("1")
    driver.error = None
    assert await queue.get("1") is Power.OFF
    await queue.close()


async def test_close_ends_what_waits(fakes):
    queue = ControllerQueue("rack", fakes.FakeDriver(hangs=True))
    waiting = [asyncio.create_task(queue.get("1")) for _ in range(3)]
    await asyncio.sleep(0.01)
    await queue.close()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, UnreachableError)
    with pytest.raises(UnreachableError, match="being closed"):
        await queue.get("1")


async def test_show_reaches_only_drivers_that_can(fakes):
    driver = fakes.FakeDriver()
    queue = ControllerQueue("rack", driver)
    await queue.show("1", Phase.READY)
    assert driver.shown == [("1", Phase.READY)]
    await queue.close()
