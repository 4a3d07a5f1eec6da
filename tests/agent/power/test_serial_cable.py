"""The cable driver on a pseudo-terminal that behaves as the microcontroller."""

import asyncio
import os

import pytest
import serial

from agent.power.controller_queue import ControllerQueue
from agent.power.drivers.serial_cable import SerialCableDriver, leds_of
from agent.power.errors import ConfigurationError, UnreachableError
from agent.power.journal import Journal, MemoryStore
from agent.power.kinds.serial_cable import SerialCableSettings
from agent.power.service import Listeners, PowerService
from agent.power.settings import BoardFeed
from virtual_lab.serial_cable import VirtualCable
from wire.phases import ErrorKind, Phase, Power, PowerAction

# Less than the longest time of one call, which is 5 s.
PATIENT_S = 4.0
SOON_S = 0.5


@pytest.fixture
async def connect():
    queues = []

    def make(device, **changes):
        values = {"driver": "serial_cable", "device": str(device), "reply_timeout_s": PATIENT_S} | changes
        settings = SerialCableSettings(**values)
        queue = ControllerQueue("cable", SerialCableDriver("cable", settings))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()


async def test_switch_and_read_back(connect):
    async with VirtualCable() as cable:
        queue = connect(cable.device)
        assert await queue.get("1") is Power.OFF
        for on in (True, False, True):
            await queue.set("1", on)
            assert await queue.get("1") is (Power.ON if on else Power.OFF)
            assert cable.on is on
        assert queue.driver.reads_back
        assert [item.power for item in await queue.describe()] == [Power.ON]
        assert await queue.read("1") is None


async def test_leds_show_the_phase_and_never_switch(connect):
    async with VirtualCable() as cable:
        queue = connect(cable.device)
        await queue.set("1", True)
        for phase, digit in ((Phase.BOOTING, 3), (Phase.READY, 5), (Phase.FAULT, 9), (Phase.OFF, 1)):
            await queue.show("1", phase)
            assert await queue.get("1") is Power.ON
            assert cable.digit == digit
        cable.press(on=False)
        await queue.show("1", Phase.FAULT)
        assert await queue.get("1") is Power.OFF
        assert cable.digit == 8
        await queue.set("1", True)
        assert await queue.get("1") is Power.ON
        assert cable.digit == 9, "switching keeps the LEDs"


async def test_bytes_from_before_the_question_are_no_answer(connect):
    async with VirtualCable() as cable:
        queue = connect(cable.device)
        assert await queue.get("1") is Power.OFF
        os.write(cable._ours, b"f")
        assert await queue.get("1") is Power.OFF


async def test_an_old_cable_is_never_claimed_and_its_leds_wait_for_a_known_state(connect, until):
    async with VirtualCable(silent=True, digit=1) as cable:
        queue = connect(cable.device, reply_timeout_s=SOON_S)
        assert await queue.get("1") is Power.UNKNOWN
        assert not queue.driver.reads_back
        await queue.show("1", Phase.READY)
        assert cable.digits == [], "a guess at the power bit would have switched the board"
        await queue.set("1", False)
        await queue.show("1", Phase.FAULT)
        assert await queue.get("1") is Power.UNKNOWN
        await until(lambda: cable.digits == [0, 8])


async def test_a_cable_that_must_not_be_asked_is_not(connect):
    async with VirtualCable() as cable:
        queue = connect(cable.device, read_back=False)
        assert await queue.get("1") is Power.UNKNOWN
        assert not queue.driver.reads_back


async def test_a_cable_that_answered_before_and_is_silent_now_is_unreachable(connect):
    async with VirtualCable() as cable:
        queue = connect(cable.device, reply_timeout_s=SOON_S)
        await queue.get("1")
        cable.silent = True
        with pytest.raises(UnreachableError, match="did so before"):
            await queue.get("1")
        cable.silent = False
        assert await queue.get("1") is Power.OFF


async def test_a_cable_that_vanishes_is_opened_again_when_it_is_back(connect, tmp_path):
    async with VirtualCable(link=tmp_path / "by-path") as cable:
        queue = connect(cable.device)
        await queue.set("1", True)
        assert await queue.get("1") is Power.ON
        cable.vanish()
        for _ in range(2):
            with pytest.raises(UnreachableError, match="plug it in"):
                await queue.get("1")
        cable.come_back()
        assert await queue.get("1") is Power.ON


async def test_a_port_that_another_program_holds(connect):
    async with VirtualCable() as cable:
        with serial.Serial(cable.device, exclusive=True), pytest.raises(ConfigurationError, match="in use"):
            await connect(cable.device).get("1")


async def test_one_outlet_only(connect):
    with pytest.raises(ConfigurationError, match="write cable:1"):
        await connect("/dev/null").set("2", True)


@pytest.mark.parametrize("silent", [False, True])
async def test_a_lying_cable_through_the_service(silent):
    store = MemoryStore()
    async with VirtualCable(lying=True, silent=silent) as cable:
        service = PowerService(
            {"cable": SerialCableSettings(driver="serial_cable", device=cable.device, reply_timeout_s=SOON_S)},
            {"pi-1": BoardFeed(outlets=["cable:1"], verify_deadline_s=0.3)},
            journal=Journal(store, "boot"), listeners=Listeners(lambda *_: None), poll_every_s=0,
        )  # fmt: skip
        await service.start()
        outcome = await service.switch("pi-1", PowerAction.ON, operation_id="1")
        await service.close()
    await store.close()
    if silent:
        assert (outcome.ok, outcome.power) == (True, Power.UNKNOWN)
    else:
        assert (outcome.error.kind, outcome.power) == (ErrorKind.NOT_VERIFIED, Power.OFF)


def test_every_phase_has_leds():
    assert {leds_of(phase) for phase in Phase} == {0, 2, 4, 8}


async def test_a_stuck_cable_does_not_block_the_event_loop(connect):
    async with VirtualCable(silent=True) as cable:
        waiting = asyncio.create_task(connect(cable.device, reply_timeout_s=SOON_S).get("1"))
        ticks = 0
        while not waiting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 5
