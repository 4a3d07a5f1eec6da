"""YKUSH hubs, through pyusb's own code, on virtual devices where libusb stands."""

import pytest

from agent.power.controller_queue import ControllerQueue
from agent.power.driver_factory import DriverFactory
from agent.power.driver_kind import DriverContext
from agent.power.drivers.hid_device import UsbBackend
from agent.power.errors import ConfigurationError, RefusedError, UnreachableError
from agent.power.kinds.ykush import YkushSettings
from virtual_lab.hid_relay import VirtualUsb, VirtualYkush
from wire.phases import Power

PATIENT_S = 10.0
"""For an answer that will come; on a loaded machine it may take seconds."""
SOON_S = 0.5
"""For an answer that will not come."""


@pytest.fixture
async def connect():
    closing = []

    def make(*devices, **changes):
        context = DriverContext()
        context.share(UsbBackend, lambda: UsbBackend(VirtualUsb(*devices)))
        settings = YkushSettings(**({"driver": "ykush", "reply_timeout_s": PATIENT_S} | changes))
        queue = ControllerQueue("hub", DriverFactory(context)("hub", settings))
        closing.append(queue)
        return queue

    yield make
    for queue in closing:
        await queue.close()


@pytest.mark.parametrize(("product", "ports"), [(0xF2F7, 3), (0xF11B, 3), (0xF0CD, 1)])
async def test_switch_and_read_back(connect, product, ports):
    hub = VirtualYkush(product_id=product, outlets=ports)
    queue = connect(hub)
    for outlet in range(1, ports + 1):
        for on in (True, False, True):
            await queue.set(str(outlet), on)
            assert hub.on[outlet - 1] is on
            assert await queue.get(str(outlet)) is (Power.ON if on else Power.OFF)
    hub.press(1, False)
    assert [item.power for item in await queue.describe()] == [Power.OFF] + [Power.ON] * (ports - 1)
    assert (await queue.get_many(["1", "9"]))["1"] is Power.OFF
    for wrong in (str(ports + 1), "0", "x"):
        with pytest.raises(ConfigurationError):
            await queue.get(wrong)
    assert await queue.identify() == f"YKUSH: 04d8:{product:04x}, serial Y00001, at 1-1"


async def test_hubs_are_told_apart_by_serial(connect):
    hubs = VirtualYkush("1-1.4", serial="Y00001"), VirtualYkush("1-2.4", serial="Y00002")
    await connect(*hubs, serial="Y00002").set("3", True)
    assert [hub.on[2] for hub in hubs] == [False, True]


async def test_a_late_answer_is_not_taken_for_the_next(connect):
    """A set's answer says the same as a question's: `01 11` may mean heard, or on."""
    hub = VirtualYkush()
    queue = connect(hub, reply_timeout_s=SOON_S)
    await queue.set("1", False)
    hub.late_s = SOON_S + 0.1
    with pytest.raises(UnreachableError, match="did not answer"):
        await queue.set("1", True)
    hub.late_s = 0
    hub.press(1, False)
    assert await queue.get("1") is Power.OFF


async def test_deaf_in_time_and_back(connect):
    hub = VirtualYkush()
    queue = connect(hub, reply_timeout_s=SOON_S)
    await queue.set("2", True)
    hub.deaf = True
    # The driver's own word: the queue would have named its longer call_timeout_s.
    with pytest.raises(UnreachableError, match=rf"YKUSH did not answer within {SOON_S} s"):
        await queue.get("2")
    hub.deaf = False
    assert await queue.get("2") is Power.ON


async def test_answers_that_are_none(connect):
    hub = VirtualYkush()
    queue = connect(hub)
    await queue.get("1")
    hub.interrupt = lambda _report: b"\xff".ljust(64, b"\0")
    with pytest.raises(RefusedError, match="answered ff 00"):
        await queue.set("1", True)
    with pytest.raises(UnreachableError, match="ff 00 00 00 to the question for port 1"):
        await queue.get("1")
    hub.interrupt = lambda _report: bytes((1, 0x12)).ljust(64, b"\0")
    with pytest.raises(UnreachableError, match="01 12"):
        await queue.get("1")


async def test_none_there(connect):
    with pytest.raises(UnreachableError, match="there is no YKUSH on USB; plug it in"):
        await connect().get("1")
