"""The driver of boardhand's own power cable against its real firmware, under MicroPython and under CPython."""

import asyncio
import contextlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.power import conformance
from agent.power.controller_queue import ControllerQueue
from agent.power.driver_kind import DriverContext
from agent.power.drivers.power_cable import make
from agent.power.drivers.power_cable_lines import (
    AnswerError,
    AnswerReader,
    GarbledError,
    checksum,
    identity,
    led_word,
    pairs,
    request,
    states,
    tag,
    watts,
)
from agent.power.drivers.serial_cable import SerialCableDriver
from agent.power.errors import ConfigurationError, UnreachableError
from agent.power.journal import Journal, MemoryStore
from agent.power.kinds.power_cable import PowerCableSettings
from agent.power.kinds.serial_cable import SerialCableSettings
from agent.power.service import Listeners, PowerService
from agent.power.settings import BoardFeed
from firmware_tools.power_cable import lines as firmware
from tests.firmware_tools.micropython import micropython
from virtual_lab.power_cable import VirtualPowerCable
from wire.phases import ErrorKind, Phase, Power, PowerAction

PATIENT_S = 10.0
"""For an answer that will come; on a loaded machine another process needs its time."""
OTHER = bytes.fromhex("e661640843111111")


@pytest.fixture(scope="session", params=["micropython", "cpython"])
def python(request):
    return micropython() if request.param == "micropython" else (sys.executable,)


@pytest.fixture
async def connect():
    queues = []

    def connect(cable, **changes):
        settings = PowerCableSettings(
            driver="power_cable", device=cable.device, **{"reply_timeout_s": PATIENT_S} | changes
        )
        queue = ControllerQueue("cable", make("cable", settings, DriverContext()))
        queues.append(queue)
        return queue

    yield connect
    for queue in queues:
        await queue.close()


class CableBench(conformance.DriverBench):
    outlets = ("1", "2", "4")
    no_such_outlet = "5"

    def __init__(self, cable):
        self.cable = cable

    reply_timeout_s = PATIENT_S

    def make(self):
        settings = PowerCableSettings(
            driver="power_cable", device=self.cable.device, reply_timeout_s=self.reply_timeout_s
        )
        return make("bench", settings, DriverContext())

    async def truth(self, outlet):
        return self.cable.is_on(int(outlet))

    async def edges(self, outlet):
        return len(self.cable.edges(int(outlet)))

    async def press(self, outlet, on):
        await self.cable.press(int(outlet), on=on)

    async def silence(self):
        self.cable.vanish()

    async def restore(self):
        self.cable.come_back()


class DeafBench(CableBench):
    reply_timeout_s = 0.5

    async def silence(self):
        self.cable.deaf = True

    async def restore(self):
        self.cable.deaf = False


async def test_every_promise_of_a_driver(tmp_path, python):
    async with VirtualPowerCable(link=tmp_path / "cable", python=python) as cable:
        results = await conformance.check_driver(CableBench(cable))
        assert {result.check for result in results if result.skipped} == {"secrets"}


async def test_every_promise_of_a_driver_whose_cable_goes_deaf(tmp_path):
    async with VirtualPowerCable(link=tmp_path / "cable", python=micropython()) as cable:
        results = await conformance.check_driver(DeafBench(cable))
        assert {result.check for result in results if result.skipped} == {"secrets"}


async def test_switch_read_back_and_identify(connect, python):
    async with VirtualPowerCable(python=python) as cable:
        queue = connect(cable)
        assert await queue.get("2") is Power.OFF
        for on in (True, False, True):
            await queue.set("2", on)
            assert await queue.get("2") is (Power.ON if on else Power.OFF)
            assert cable.is_on(2) is on
        assert [(item.outlet, item.power) for item in await queue.describe()] == [
            ("1", Power.OFF), ("2", Power.ON), ("3", Power.OFF), ("4", Power.OFF)]  # fmt: skip
        assert await queue.identify() == (
            "boardhand-cable e66164084373532b: firmware 1.0.0, 4 outlets, reads each outlet"
        )
        assert await queue.read("2") is None


async def test_leds_show_the_phase(connect, until):
    async with VirtualPowerCable() as cable:
        queue = connect(cable)
        await queue.set("4", True)
        for phase, pin in ((Phase.BOOTING, 14), (Phase.READY, 15), (Phase.FAULT, 16)):
            await queue.show("4", phase)
            await until(lambda pin=pin: cable.log()[-1] == f"out {pin} 1" or f"out {pin} 1" in cable.log())
        assert cable.is_on(4)
        with pytest.raises(ConfigurationError, match="outlets 1 to 4"):
            await queue.show("5", Phase.READY)


async def test_watts_where_they_are_measured(connect):
    table = {
        "i2c": {"sda": 20, "scl": 21},
        "outlets": [{"pin": 2, "meter": {"ina219": 64}}, {"pin": 3, "meter": {"ina219": 65}}, {"pin": 4}],
    }
    async with VirtualPowerCable(settings=table) as cable:
        cable.world(i2c={"64": {"1": [0x13, 0x88], "2": [0x27, 0xD8]}})
        queue = connect(cable)
        assert dict(await queue.driver.read_many(["1", "2", "3"])) == {"1": 2.55, "2": None, "3": None}
        assert await queue.read("1") == 2.55
        with pytest.raises(ConfigurationError, match="has 1 to 3"):
            await queue.read("4")
        assert (await queue.identify()).endswith("3 outlets, reads its pins, measures 2")


async def test_another_cable_in_its_place_is_refused_before_it_is_switched(connect, tmp_path):
    async with VirtualPowerCable(link=tmp_path / "cable") as cable:
        queue = connect(cable)
        await queue.set("1", True)
        cable.vanish()
        async with VirtualPowerCable(link=tmp_path / "cable", unique_id=OTHER) as other:
            with pytest.raises(UnreachableError, match="cannot be used"):
                await queue.get("1")
            for call in (queue.set("1", False), queue.get("1"), queue.set("2", True)):
                with pytest.raises(
                    ConfigurationError, match=r"another cable is at .*e661640843111111, not e66164084373"
                ):
                    await call
            assert b" set " not in other.received
        cable.come_back()
        assert await queue.get("1") is Power.ON


async def test_the_settings_may_name_the_cable(connect):
    async with VirtualPowerCable(unique_id=OTHER) as cable:
        with pytest.raises(ConfigurationError, match=r'another cable is at .*write id = "e661640843111111"'):
            await connect(cable, id="e66164084373532b").get("1")
        assert await connect(cable, id="e661640843111111").get("1") is Power.OFF


async def test_a_relay_that_sticks_is_not_verified(tmp_path):
    store = MemoryStore()
    async with VirtualPowerCable(link=tmp_path / "cable") as cable:
        cable.stick(1, stuck=True)
        settings = PowerCableSettings(driver="power_cable", device=cable.device, reply_timeout_s=PATIENT_S)
        service = PowerService(
            {"cable": settings}, {"pi-1": BoardFeed(outlets=["cable:1"], verify_deadline_s=0.3)},
            journal=Journal(store, "boot"), listeners=Listeners(lambda *_: None), poll_every_s=0,
        )  # fmt: skip
        await service.start()
        outcome = await service.switch("pi-1", PowerAction.ON, operation_id="1")
        await service.close()
    await store.close()
    assert (outcome.error.kind, outcome.power) == (ErrorKind.NOT_VERIFIED, Power.OFF)


async def test_a_restart_while_a_command_is_under_way_is_survived(connect):
    async with VirtualPowerCable() as cable:
        queue = connect(cable, reply_timeout_s=2.0)
        await queue.set("1", True)
        await cable.hang()
        with pytest.raises(UnreachableError, match=r"did not answer within 2 s; check that a cable"):
            await queue.set("2", True)
        await cable.bite()
        assert await queue.get("1") is Power.ON
        assert await queue.get("2") is Power.OFF
        assert cable.edges(1) == [True]


async def test_a_noisy_line(connect):
    async with VirtualPowerCable(noise=b"\xff@zzz ok 1=on\n@x") as cable:
        queue = connect(cable)
        for _ in range(5):
            assert await queue.get("1") is Power.OFF
        await queue.set("1", True)
        assert await queue.get("1") is Power.ON


async def test_settings_of_the_cable_that_are_wrong_are_told(connect):
    async with VirtualPowerCable(settings={"outlets": [{"pin": 99}]}) as cable:
        with pytest.raises(
            ConfigurationError, match=r"outlets\[0\].pin: a whole number.*power_cable.json on the cable"
        ):
            await connect(cable).get("1")


async def test_the_driver_of_one_character_works_with_it_unchanged(python):
    async with VirtualPowerCable(python=python) as cable:
        settings = SerialCableSettings(driver="serial_cable", device=cable.device, reply_timeout_s=PATIENT_S)
        queue = ControllerQueue("cable", SerialCableDriver("cable", settings))
        for on in (True, False, True):
            await queue.set("1", on)
            assert await queue.get("1") is (Power.ON if on else Power.OFF)
            assert cable.is_on(1) is on
        await queue.show("1", Phase.FAULT)
        assert await queue.get("1") is Power.ON
        assert queue.driver.reads_back
        cable.stick(1, stuck=True)
        await queue.set("1", False)
        assert await queue.get("1") is Power.ON, "the firmware reads the relay for this protocol, too"
        await queue.close()


@pytest.mark.parametrize("wrong", ["0", "5", "01", "-1", "²", "on", "", "1 on\n@x set 2", "9" * 20])
async def test_outlets_that_are_not_there(connect, wrong):
    async with VirtualPowerCable() as cable:
        queue = connect(cable)
        for call in (queue.get(wrong), queue.set(wrong, True), queue.read(wrong)):
            with pytest.raises(ConfigurationError, match="outlet") as caught:
                await call
            assert caught.value.outlet == wrong
        assert not any(cable.edges(outlet) for outlet in (1, 2, 3, 4))


async def test_a_flood_instead_of_an_answer_ends_in_time(connect):
    async with VirtualPowerCable(noise=b"\x00" * 60_000) as cable:
        cable.deaf = True
        queue = connect(cable, reply_timeout_s=0.3)
        asked = asyncio.create_task(queue.get("1"))
        while not asked.done():
            cable.deaf = False
            cable._say(b"?")
            cable.deaf = True
            await asyncio.sleep(0.001)
        with pytest.raises(UnreachableError):
            await asked


# --- its words -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 100_000), st.lists(st.sampled_from(["get", "set", "1", "on"])))
def test_the_firmware_understands_each_request(number, words):
    found = firmware.Receiver().feed(request(tag(number), *words), 0)
    assert [kind for kind, _ in found] == [firmware.LINE]
    assert firmware.request(found[0][1]) == (tag(number), words, True)


@given(st.binary(max_size=200), st.lists(st.integers(1, 9)), st.sampled_from(["ok", "ok 1=on 2=off", "ok 1=-"]))
def test_an_answer_is_found_in_noise_however_it_is_cut(noise, cuts, said):
    data = noise + b"\n" + firmware.answer("abc", "ok 1=on", True) + firmware.answer("abd", said, True)
    reader, rest, found = AnswerReader("abd"), data, None
    for cut in [*cuts, len(data)]:
        found = reader.feed(rest[:cut])
        rest = rest[cut:]
        if found is not None:
            break
    assert found == said[3:]


@given(st.binary(max_size=400), st.data())
def test_no_changed_answer_is_believed(noise, data):
    line = bytearray(firmware.answer("abd", "ok 1=on 2=off", True))
    place = data.draw(st.integers(0, len(line) * 8 - 1))
    line[place // 8] ^= 1 << place % 8
    assert AnswerReader("abd").feed(bytes(line)) in {None, "1=on 2=off"}  # a byte before `@` is noise
    assert AnswerReader("abd").feed(noise) is None


def test_an_error_is_told_by_its_kind():
    with pytest.raises(AnswerError, match="there are outlets") as caught:
        AnswerReader("1").feed(firmware.answer("1", "error outlet there are outlets 1 to 4", True))
    assert caught.value.kind == "outlet"
    with pytest.raises(GarbledError):
        AnswerReader("1").feed(firmware.answer("1", "perhaps", True))


@pytest.mark.parametrize("read", [pairs, states, watts, identity])
@given(words=st.text(max_size=60))
def test_words_of_whatever_kind_are_read_or_garbled(read, words):
    with contextlib.suppress(GarbledError):
        read(words)


def test_checksums_agree():
    assert checksum(b"123456789").decode() == firmware.checksum(b"123456789")


def test_tags_begin_again():
    assert len({tag(number) for number in range(36**3)}) == 36**3
    assert tag(36**3) == tag(0) == "000"


def test_every_phase_has_a_word():
    assert {led_word(phase) for phase in Phase} == {"dark", "coming", "ready", "fault"}
