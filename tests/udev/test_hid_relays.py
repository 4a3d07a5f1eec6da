"""HID boards in a sysfs tree."""

import pytest

from udev.hid_relays import hid_relays
from virtual_lab.usb_hub_tree import UsbHubTree, VirtualDevice


@pytest.fixture
def tree(tmp_path):
    return UsbHubTree(tmp_path / "sys")


def relay(serial=None, label="USBRelay4"):
    return VirtualDevice("16c0", "05df", serial, label)


def test_boards_are_known_by_ids_and_by_product_string(tree):
    hub = tree.hub(tree.root_hub(), 1)
    tree.plug(hub, 1, relay())
    tree.plug(hub, 2, relay(label="Mouse of a hobbyist"))  # V-USB's number is everybody's
    tree.plug(hub, 3, VirtualDevice("5131", "2007", label="USB Relay"))
    tree.plug(hub, 4, VirtualDevice("04D8", "F2F7", "YK12345", "YKUSH"))
    found = {board.path: board for board in hid_relays(tree.root)}
    assert set(found) == {"1-1.1", "1-1.3", "1-1.4"}
    assert (found["1-1.1"].outlets, found["1-1.3"].outlets, found["1-1.4"].outlets) == (4, None, 3)
    assert found["1-1.1"].node.startswith("/dev/bus/usb/001/")
    assert all(board.only_one and not board.serial_is_shared for board in found.values())


def test_two_of_a_kind_and_two_with_one_serial(tree):
    root = tree.root_hub()
    for number, serial in ((1, "AAAA"), (2, "AAAA"), (3, "BBBB")):
        tree.plug(root, number, relay(serial))
    found = hid_relays(tree.root)
    assert [board.only_one for board in found] == [False] * 3
    assert [board.serial_is_shared for board in found] == [True, True, False]


def test_one_that_goes_while_it_is_read_is_left_out(tree):
    root = tree.root_hub()
    gone = tree.plug(root, 1, relay())
    tree.plug(root, 2, relay())
    (gone.folder / "devnum").unlink()
    assert [board.path for board in hid_relays(tree.root)] == ["1-2"]


def test_no_usb_and_no_sysfs(tmp_path):
    (tmp_path / "sys" / "devices").mkdir(parents=True)
    assert hid_relays(tmp_path / "sys") == []
    with pytest.raises(OSError, match="nothing"):
        hid_relays(tmp_path / "nothing")
