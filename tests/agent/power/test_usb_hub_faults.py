"""The hub driver when things go wrong: each fault ends in one typed error, and the next call works."""

import asyncio
import errno
import threading

import pytest
from pydantic import ValidationError

from agent.power.driver_kind import find_kind
from agent.power.errors import ConfigurationError, RefusedError, UnreachableError
from tests.agent.power.usb_hub_rig import PLACE, connections, settings
from virtual_lab.usb_hub_tree import UsbHubTree
from wire.phases import Power


@pytest.fixture
def tree(tmp_path):
    return UsbHubTree(tmp_path / "sys")


@pytest.fixture
def old(tmp_path):
    """A kernel before 6.0."""
    return UsbHubTree(tmp_path / "sys", kernel_switches=False)


@pytest.fixture
async def connect():
    async with connections() as make:
        yield make


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENODEV, UnreachableError, r"hub pci.*usb-0:1 \(1-1\) went away.*plug it in again"),
        (errno.EACCES, ConfigurationError, "disable may not be used; .*'boardhand udev hubs' prints the rules"),
        (errno.EPERM, ConfigurationError, "may not be used"),
        (errno.EROFS, ConfigurationError, "read-only mount"),
        (errno.EINVAL, RefusedError, "the kernel refused to switch"),
        (errno.EIO, UnreachableError, "cannot be used: Input/output error"),
        (errno.ETIMEDOUT, UnreachableError, "cannot be used"),
    ],
)
async def test_faults_of_a_write_are_one_typed_error_and_the_next_call_works(tree, connect, number, kind, said):
    tree.hub(tree.root_hub(), 1)
    tree.faults = [number]
    queue = connect(tree)
    with pytest.raises(kind, match=said) as caught:
        await queue.set("1", False)
    assert (caught.value.controller, caught.value.outlet) == ("hub", "1")
    await queue.set("1", False)
    assert await queue.get("1") is Power.OFF


async def test_a_hub_that_is_away_is_unreachable_and_comes_back(tree, connect):
    root = tree.root_hub()
    hub = tree.hub(root, 1)
    queue = connect(tree)
    tree.unplug(hub)
    for call in (queue.get("1"), queue.set("1", False), queue.describe(), queue.driver.get_many(["1"])):
        with pytest.raises(UnreachableError, match="no USB hub is plugged in at"):
            await call
    tree.plug(root, 1, hub)
    assert await queue.get("1") is Power.ON


@pytest.mark.parametrize(
    ("name", "said"), [("1-1", "changes between boots; write pci-"), ("SAME", "2 USB hubs have the serial number")]
)
async def test_names_that_are_not_clear_are_settings_to_mend(tree, connect, name, said):
    root = tree.root_hub()
    for number in (1, 2):
        tree.hub(root, number, serial="SAME")
    with pytest.raises(ConfigurationError, match=said):
        await connect(tree, name).get("1")


async def test_no_sysfs(tmp_path, connect):
    tree = UsbHubTree(tmp_path / "sys")
    tree.root = tmp_path / "none"
    with pytest.raises(ConfigurationError, match=r"no sysfs at .*none"):
        await connect(tree).get("1")


async def test_class_requests_that_may_not_be_made(old, connect):
    old.hub(old.root_hub(), 1)
    old.readable = False
    with pytest.raises(ConfigurationError, match="/dev/bus/usb/001/002 may not be used"):
        await connect(old).set("1", False)


async def test_a_request_that_fails_leaves_no_claim_behind(old, connect, monkeypatch):
    """The kernel would use no device that is plugged in there."""
    old.hub(old.root_hub(), 1)

    def fail(*_, **__):
        raise OSError(errno.ETIMEDOUT, "Operation timed out")

    monkeypatch.setattr(old, "switch", fail)
    with pytest.raises(UnreachableError, match="Operation timed out"):
        await connect(old).set("1", False)
    assert old.claims == set()


async def test_an_attribute_that_says_nonsense(tree, connect, monkeypatch):
    tree.hub(tree.root_hub(), 1)
    monkeypatch.setattr(tree, "read", lambda _path: "maybe\n")
    with pytest.raises(RefusedError, match="says 'maybe'"):
        await connect(tree).get("1")


async def test_a_hub_that_hangs_blocks_neither_the_event_loop_nor_another_hub(tree, connect):
    root = tree.root_hub()
    tree.hub(root, 1)
    tree.hub(root, 2)
    go_on = threading.Event()
    tree.before_write = lambda path: go_on.wait(60) if "1-1-" in str(path) else None
    slow = connect(tree)
    waiting = asyncio.create_task(slow.set("1", False))
    try:
        other = connect(tree, "pci-0000:00:14.0-usb-0:2")
        await other.set("1", False)
        assert await other.get("1") is Power.OFF
        assert not waiting.done()
    finally:
        go_on.set()
    await waiting


async def test_a_cancelled_call_leaves_a_driver_that_works(tree, connect):
    tree.hub(tree.root_hub(), 1)
    begun, go_on = threading.Event(), threading.Event()

    def hang(_path):
        begun.set()
        go_on.wait(60)

    tree.before_write = hang
    driver = connect(tree).driver
    waiting = asyncio.create_task(driver.set("1", False))
    assert await asyncio.to_thread(begun.wait, 20)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await driver.get("1") is Power.OFF


def test_settings_that_nobody_knows_are_refused():
    for wrong in ({"hub": ""}, {"method": "magic"}, {"port": 1}):
        with pytest.raises(ValidationError):
            settings(**({"hub": PLACE} | wrong))
    assert all(line.verified_by for line in find_kind("usb_hub").support())
