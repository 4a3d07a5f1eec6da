"""Requests to hubs through libusb: what goes over the wire, and what errors become."""

import errno
import os

import pytest
import usb.core
from hypothesis import given
from hypothesis import strategies as st

from agent.power.driver_kind import DriverContext
from agent.power.drivers import usb_requests
from agent.power.drivers.usb_requests import UsbRequests, power_in_status
from udev.usb_hubs import usb_hubs
from virtual_lab.usb_hub_tree import UsbHubTree


@pytest.fixture
def tree(tmp_path):
    return UsbHubTree(tmp_path / "sys")


class Device:
    """What pyusb gives: notes the transfers it was asked for."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []
        self._ctx = self

    def dispose(self, _device):
        self.asked.append("disposed")

    def ctrl_transfer(self, *words):
        self.asked.append(words)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def hub(tree):
    tree.hub(tree.root_hub(), 1)
    return next(hub for hub in usb_hubs(tree.root) if hub.name == "1-1")


@pytest.fixture
def device(monkeypatch):
    made = Device(bytes.fromhex("03010000"))

    def find(*, backend, bus, address):
        made.asked.append((bus, address))
        return made

    monkeypatch.setattr(usb.core, "find", find)
    return made


def test_the_requests_are_those_of_the_specification(hub, device):
    requests = UsbRequests()
    assert requests.is_powered(hub, 3)
    requests.switch(hub, 3, on=True)
    requests.switch(hub, 3, on=False)
    requests.hub_descriptor(hub)
    requests.bos(hub)
    transfers = [asked[:4] for asked in device.asked if len(asked) > 2 and asked != "disposed"]
    assert transfers == [(0xA3, 0, 0, 3), (0x23, 3, 8, 3), (0x23, 1, 8, 3), (0xA0, 6, 0x2900, 0), (0x80, 6, 0x0F00, 0)]
    assert device.asked.count("disposed") == 5
    assert device.asked[0] == (1, 2)


@pytest.mark.parametrize(
    ("problem", "number"),
    [
        (usb.core.USBError("Access denied", -3, errno.EACCES), errno.EACCES),
        (usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT), errno.ETIMEDOUT),
        (usb.core.USBError("Other error"), errno.EIO),
        (usb.core.NoBackendError("No backend available"), errno.ENOSYS),
    ],
)
def test_errors_of_libusb_have_numbers(hub, device, problem, number):
    device.answer = problem
    with pytest.raises(OSError) as caught:
        UsbRequests().is_powered(hub, 1)
    assert caught.value.errno == number
    assert device.asked[-1] == "disposed"


def test_a_device_that_libusb_does_not_see(hub):
    """The real libusb of this host; the virtual hub is not on it."""
    with pytest.raises(OSError) as caught:
        UsbRequests().hub_descriptor(hub)
    assert caught.value.errno in {errno.ENODEV, errno.EACCES, errno.EIO}


def test_no_libusb_at_all(hub, monkeypatch):
    monkeypatch.setattr("libusb_package.get_libusb1_backend", lambda: None)
    monkeypatch.setattr(usb_requests.libusb1, "get_backend", lambda: None)
    with pytest.raises(OSError, match="libusb cannot be loaded"):
        UsbRequests().is_powered(hub, 1)


@given(st.binary(max_size=6), st.booleans())
def test_any_status_is_read_or_refused(status, usb3):
    if len(status) < 2:
        with pytest.raises(OSError, match="port status"):
            power_in_status(status, usb3=usb3)
    else:
        assert power_in_status(status, usb3=usb3) is bool(status[1] & (2 if usb3 else 1))


def test_the_power_bit_stands_elsewhere_on_usb_3():
    assert power_in_status(bytes.fromhex("00010000"), usb3=False)
    assert not power_in_status(bytes.fromhex("00010000"), usb3=True)
    assert power_in_status(bytes.fromhex("a0020000"), usb3=True)


def test_a_claim_is_held_by_an_open_file_until_it_is_released(hub, tmp_path, monkeypatch):
    node = tmp_path / "bus" / "001" / "002"
    node.parent.mkdir(parents=True)
    node.touch()
    told = []
    monkeypatch.setattr(usb_requests.fcntl, "ioctl", lambda file, number, data: told.append((file, number, data)))
    requests = UsbRequests(tmp_path / "bus")
    assert requests.claim(hub, 3)
    first, number, data = told[0]
    assert (number, data) == (0x80045518, b"\3\0\0\0")
    assert os.path.samestat(os.fstat(first), node.stat())
    assert requests.claim(hub, 3), "anew, since the first may be of a hub that was pulled out"
    requests.release(hub, 3)
    requests.release(hub, 3)
    for descriptor, *_ in told:
        with pytest.raises(OSError):
            os.fstat(descriptor)


async def test_claims_end_with_the_agent(hub, tmp_path, monkeypatch):
    (tmp_path / "001").mkdir()
    (tmp_path / "001" / "002").touch()
    told = []
    monkeypatch.setattr(usb_requests.fcntl, "ioctl", lambda file, *_: told.append(file))
    context = DriverContext()
    assert context.share("requests", lambda: UsbRequests(tmp_path)).claim(hub, 1)
    await context.close()
    with pytest.raises(OSError):
        os.fstat(told[0])


def test_what_cannot_be_claimed_is_not(hub, tmp_path):
    """No node, and a node that is no USB device."""
    requests = UsbRequests(tmp_path)
    assert not requests.claim(hub, 1)
    (tmp_path / "001").mkdir()
    (tmp_path / "001" / "002").touch()
    assert not requests.claim(hub, 1)
