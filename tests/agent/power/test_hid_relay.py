"""HID relay boards, through pyusb's own code, on virtual devices where libusb stands."""

import asyncio
import errno
import threading

import pytest
import usb.core
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.power.controller_queue import ControllerQueue
from agent.power.driver_factory import DriverFactory
from agent.power.driver_kind import DriverContext
from agent.power.drivers.hid_board import GarbledError
from agent.power.drivers.hid_device import UsbBackend, Wanted
from agent.power.drivers.hid_relay import DcttechBoard
from agent.power.errors import ConfigurationError, RefusedError, UnreachableError
from agent.power.kinds.hid_relay import HidRelaySettings
from virtual_lab.hid_relay import VirtualHid, VirtualHidRelay, VirtualLcusHid, VirtualUsb
from wire.phases import Power

PATIENT_S = 10.0
"""For an answer that will come; on a loaded machine it may take seconds."""
SOON_S = 0.5
"""For an answer that will not come."""


@pytest.fixture
async def host():
    """Plug devices in, connect controllers; all controllers of one test are those of one agent."""
    host = Host()
    yield host
    await host.close()
    assert not host.usb.open_handles, "a device was left open"


class Host:
    def __init__(self):
        self.usb = VirtualUsb()
        self.queues = []
        context = DriverContext()
        context.share(UsbBackend, lambda: UsbBackend(self.usb))
        self.factory = DriverFactory(context)

    def plug(self, device):
        self.usb.plug(device)
        return device

    def connect(self, name="relays", **changes):
        settings = HidRelaySettings(**({"driver": "hid_relay", "reply_timeout_s": PATIENT_S} | changes))
        queue = ControllerQueue(name, self.factory(name, settings))
        self.queues.append(queue)
        return queue

    async def close(self):
        for queue in self.queues:
            await queue.close()
        await self.factory.close()


async def test_switch_and_read_back(host):
    board = host.plug(VirtualHidRelay("1-1.4", 4))
    queue = host.connect()
    for outlet in ("1", "4", "2"):
        for on in (True, False, True):
            await queue.set(outlet, on)
            assert board.on[int(outlet) - 1] is on
            assert await queue.get(outlet) is (Power.ON if on else Power.OFF)
    board.press(1, False)
    assert [(item.outlet, item.power) for item in await queue.describe()] == [
        ("1", Power.OFF), ("2", Power.ON), ("3", Power.OFF), ("4", Power.ON)
    ]  # fmt: skip
    many = await queue.get_many(["2", "3", "5", "on"])
    assert (many["2"], many["3"]) == (Power.ON, Power.OFF)
    assert all(isinstance(many[wrong], ConfigurationError) for wrong in ("5", "on"))
    assert await queue.identify() == "USBRelay4: 16c0:05df, serial BITFT, at 1-1.4"
    assert queue.driver.reads_back
    assert await queue.read("1") is None


async def test_usbhid_is_unbound_while_we_have_it_and_bound_again(host):
    board = host.plug(VirtualHidRelay("1-3", 1))
    queue = host.connect()
    assert await queue.get("1") is Power.OFF
    assert not board.kernel_driver
    await queue.close()
    host.queues.clear()
    assert board.kernel_driver
    assert host.usb.attached == ["1-3"]


async def test_a_device_that_had_no_kernel_driver_gets_none(host):
    host.plug(VirtualHidRelay(kernel_driver=False))
    queue = host.connect()
    await queue.get("1")
    await queue.close()
    assert host.usb.attached == []


async def test_boards_are_told_apart_by_serial_and_by_path(host):
    one, two, three = (
        host.plug(VirtualHidRelay(path, 2, serial=serial))
        for path, serial in (("1-1", "AAAAA"), ("1-2", "BBBBB"), ("1-3", "BBBBB"))
    )
    by_serial = host.connect("a", serial="AAAAA")
    by_path = host.connect("c", path="1-3")
    await asyncio.gather(by_serial.set("1", True), by_path.set("2", True))
    assert (one.on, two.on, three.on) == ([True, False], [False, False], [False, True])
    both = host.connect("b", serial="BBBBB", path="1-2")
    await both.set("1", True)
    assert two.on == [True, False]


async def test_several_boards_and_no_word_which(host):
    for path, serial in (("1-1", "AAAAA"), ("1-2", "BBBBB")):
        host.plug(VirtualHidRelay(path, serial=serial))
    with pytest.raises(
        ConfigurationError, match=r"2 devices fit \(serial AAAAA at path 1-1, .* at path 1-2\); set path"
    ):
        await host.connect().get("1")
    assert not host.usb.open_handles, "boards that are not ours are let go"


async def test_two_that_share_a_serial_need_a_path(host):
    for path in ("1-1", "1-2"):
        host.plug(VirtualHidRelay(path, serial="BITFT"))
    with pytest.raises(ConfigurationError, match="set path"):
        await host.connect(serial="BITFT").get("1")


async def test_many_controllers_find_their_boards_at_once(host):
    boards = [host.plug(VirtualHidRelay(f"1-{n}", 2, serial=f"R{n:04}")) for n in range(1, 7)]
    queues = [host.connect(f"c{n}", serial=f"R{n:04}") for n in range(1, 7)]
    await asyncio.gather(*(queue.set("2", True) for queue in queues))
    assert all(board.on == [False, True] for board in boards)


async def test_one_that_is_missing_is_unreachable_while_others_are_being_found(host):
    """A board that another controller is just taking is not "claimed by another program"."""
    for number in range(1, 7):
        host.plug(VirtualHidRelay(f"1-{number}", 2, serial=f"R{number:04}"))
    queues = [host.connect(f"c{number}", serial=f"R{number:04}") for number in range(1, 7)]
    missing = [host.connect(f"m{number}", serial=f"M{number:04}") for number in range(4)]
    found = await asyncio.gather(*(queue.get("1") for queue in [*missing, *queues]), return_exceptions=True)
    assert [type(outcome) for outcome in found[:4]] == [UnreachableError] * 4, found
    assert found[4:] == [Power.OFF] * 6


async def test_another_hobby_device_with_the_same_ids_is_left_alone(host):
    host.plug(VirtualHid("1-1", vendor=0x16C0, product_id=0x05DF, product="USBasp-hid"))
    with pytest.raises(UnreachableError, match=r"no HID relay board on USB; others are at 1-1"):
        await host.connect().get("1")
    host.plug(VirtualHidRelay("1-2"))
    assert await host.connect().get("1") is Power.OFF


async def test_not_there_wrong_serial_wrong_path(host):
    with pytest.raises(UnreachableError, match="no HID relay board on USB; plug it in"):
        await host.connect().get("1")
    host.plug(VirtualHidRelay("1-1", serial="AAAAA"))
    with pytest.raises(UnreachableError, match="no HID relay board with serial ZZZZZ on USB; others are at 1-1"):
        await host.connect("b", serial="ZZZZZ").get("1")
    with pytest.raises(UnreachableError, match=r"with path 1-7\.1 on USB"):
        await host.connect("c", path="1-7.1").get("1")


async def test_pulled_out_and_plugged_in_elsewhere(host):
    board = host.plug(VirtualHidRelay("1-1", serial="AAAAA"))
    queue = host.connect(serial="AAAAA")
    await queue.set("3", True)
    host.usb.pull(board)
    for _ in range(2):
        with pytest.raises(UnreachableError, match=r"gone|there is no"):
            await queue.get("3")
    board.path = "1-4.2"
    host.plug(board)
    assert await queue.get("3") is Power.ON


async def test_deaf_in_time_and_back(host):
    board = host.plug(VirtualHidRelay())
    queue = host.connect(reply_timeout_s=SOON_S)
    await queue.set("1", True)
    board.deaf = True
    for call in (lambda: queue.get("1"), lambda: queue.set("1", False)):
        # The driver's own word: the queue would have named its longer call_timeout_s.
        with pytest.raises(UnreachableError, match=rf"did not answer within {SOON_S} s"):
            await call()
    board.deaf = False
    assert await queue.get("1") is Power.ON


async def test_a_deaf_board_delays_no_other(host):
    host.plug(VirtualHidRelay("1-1", serial="DEAF0", deaf=True))
    host.plug(VirtualHidRelay("1-2", serial="FINE0"))
    deaf, fine = host.connect("deaf", path="1-1", reply_timeout_s=3), host.connect("fine", path="1-2")
    waiting = asyncio.create_task(deaf.get("1"))
    assert await fine.get("1") is Power.OFF
    assert not waiting.done()
    waiting.cancel()


async def test_permission_is_answered_with_the_udev_rule(host):
    host.plug(VirtualHidRelay(forbidden=True))
    with pytest.raises(ConfigurationError, match=r'udev rule: .*ATTR\{idVendor\}=="16c0", ATTR\{idProduct\}=="05df"'):
        await host.connect().get("1")


async def test_claimed_by_another_program(host):
    board = host.plug(VirtualHidRelay(kernel_driver=False))
    board.claimed_by = "another program"
    with pytest.raises(ConfigurationError, match="claimed by another program"):
        await host.connect().get("1")


async def test_a_stall_is_a_refusal(host):
    board = host.plug(VirtualHidRelay())
    queue = host.connect()
    await queue.get("1")
    board.refusing = True
    with pytest.raises(RefusedError, match="refused the request"):
        await queue.set("1", True)
    board.refusing = False
    assert await queue.get("1") is Power.OFF


async def test_short_and_foreign_reports_are_no_states(host):
    board = host.plug(VirtualHidRelay("1-1"))
    queue = host.connect()
    await queue.get("1")
    board.report_length = 3
    with pytest.raises(UnreachableError, match="no report of 8 bytes"):
        await queue.get("1")
    board.report_length = 8
    assert await queue.get("1") is Power.OFF
    board.serial = "OTHER"
    with pytest.raises(UnreachableError, match="as board OTHER, and was BITFT"):
        await queue.get("1")


async def test_lying(host):
    board = host.plug(VirtualHidRelay(lying=True))
    queue = host.connect()
    await queue.set("1", True)
    assert await queue.get("1") is Power.OFF
    assert board.edges == []


async def test_no_libusb_is_said(host, monkeypatch):
    monkeypatch.setattr("agent.power.drivers.hid_device.libusb_package.get_libusb1_backend", lambda: None)
    monkeypatch.setattr("usb.backend.libusb1.get_backend", lambda: None)
    context = DriverContext()
    driver = DriverFactory(context)("relays", HidRelaySettings(driver="hid_relay"))
    with pytest.raises(ConfigurationError, match=r"no libusb; install libusb-1\.0-0"):
        await driver.get("1")
    await driver.close()


async def test_the_libusb_of_this_host_is_loaded_and_finds_no_board():
    driver = DriverFactory()("relays", HidRelaySettings(driver="hid_relay", serial="NONE0"))
    with pytest.raises(UnreachableError, match="no HID relay board with serial NONE0"):
        await driver.get("1")
    await driver.close()


async def test_lcus_switches_and_is_never_claimed(host):
    board = host.plug(VirtualLcusHid(outlets=2))
    queue = host.connect(protocol="lcus", outlets=2, reply_timeout_s=SOON_S)
    await queue.set("2", True)
    assert board.on == [False, True]
    assert await queue.get("2") is Power.UNKNOWN
    assert not queue.driver.reads_back
    board.deaf = True
    with pytest.raises(UnreachableError):
        await queue.set("2", False)


@pytest.mark.parametrize("changes", [{"path": "1"}, {"path": "1-1; reboot"}, {"protocol": "lcus"}, {"outlets": 4},
                                     {"serial": ""}, {"path": "usb1"}])  # fmt: skip
def test_settings_that_cannot_be(changes):
    with pytest.raises(ValidationError):
        HidRelaySettings(driver="hid_relay", **changes)


async def test_closing_twice_leaves_no_thread(host):
    host.plug(VirtualHidRelay())
    queue = host.connect()
    await queue.get("1")
    await queue.driver.close()
    await queue.driver.close()
    async with asyncio.timeout(60):
        while any(thread.name.startswith("hid-relays") for thread in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    with pytest.raises(UnreachableError, match="is closed"):
        await queue.driver.get("1")


class Report:
    """Stands for a device that gives this report."""

    serial = "BITFT"

    def __init__(self, report):
        self.report = report

    def get_report(self, _length):
        return self.report


@given(report=st.binary(max_size=16))
def test_any_report_is_states_or_garbage(report):
    try:
        states = DcttechBoard().states(Report(report), range(1, 9))
    except GarbledError:
        assert len(report) != 8 or report[:5] != b"BITFT"
    else:
        assert report[:5] == b"BITFT"
        assert [power is Power.ON for power in states.values()] == [bool(report[7] >> bit & 1) for bit in range(8)]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV, errno.EPROTO, None, errno.EOVERFLOW])
async def test_every_usb_error_is_one_of_ours(host, number):
    board = host.plug(VirtualHidRelay())
    queue = host.connect()
    await queue.get("1")

    def fail():
        raise usb.core.USBError("it broke", errno=number)

    working, board.get_report = board.get_report, fail
    with pytest.raises(UnreachableError, match="it broke"):
        await queue.get("1")
    board.get_report = working
    assert await queue.get("1") is Power.OFF


def test_what_is_wanted_in_words():
    products = frozenset([(1, 2)])
    assert str(Wanted("board", products)) == "board"
    assert str(Wanted("board", products, "S", "1-1")) == "board with serial S and path 1-1"
