"""The folder that plays the kernel's USB tree does what was measured on a real kernel (facts of the lab)."""

import errno
from pathlib import Path

import pytest

from udev.usb_hubs import plugged_in, usb_hubs
from virtual_lab.usb_hub_tree import Behaviour, UsbHubTree, VirtualDevice


@pytest.fixture
def tree(tmp_path: Path) -> UsbHubTree:
    return UsbHubTree(tmp_path / "sys")


def names(tree: UsbHubTree) -> set[str]:
    return set(plugged_in(tree.root))


def test_a_port_that_is_disabled_loses_its_device_and_tty_and_gets_them_back_anew(tree: UsbHubTree) -> None:
    hub = tree.hub(tree.root_hub(), 1)
    tree.plug(hub, 2, VirtualDevice(ttys=1))
    number = plugged_in(tree.root)["1-1.2"][0]
    port = hub.ports[2]
    tree.write(port.disable, "1")
    assert tree.read(port.disable) == "1\n"
    assert names(tree) == {"usb1", "1-1"}
    assert list((tree.root / "class/tty").iterdir()) == []
    tree.write(port.disable, "1")
    tree.write(port.disable, "0")
    assert plugged_in(tree.root)["1-1.2"][0] > number
    assert plugged_in(tree.root)["1-1.2"][1] == ("ttyUSB0",)
    assert port.edges == [False, True]


def test_a_hub_without_switching_accepts_and_enumerates_the_device_again(tree: UsbHubTree) -> None:
    hub = tree.hub(tree.root_hub(), 1, behaviour=Behaviour.NONE)
    tree.plug(hub, 1, VirtualDevice())
    number = plugged_in(tree.root)["1-1.1"][0]
    tree.write(hub.ports[1].disable, "1")
    assert tree.read(hub.ports[1].disable) == "0\n"
    assert plugged_in(tree.root)["1-1.1"][0] > number
    assert hub.ports[1].edges == []
    assert hub.descriptor()[3] & 3 == 2


def test_a_hub_takes_what_is_behind_it_away_and_brings_it_back(tree: UsbHubTree) -> None:
    upper = tree.hub(tree.root_hub(), 1)
    lower = tree.hub(upper, 4)
    tree.plug(lower, 1, VirtualDevice(ttys=2))
    tree.write(lower.ports[2].disable, "1")
    tree.write(upper.ports[4].disable, "1")
    assert names(tree) == {"usb1", "1-1"}
    tree.write(upper.ports[4].disable, "0")
    assert names(tree) == {"usb1", "1-1", "1-1.4", "1-1.4.1"}
    assert lower.ports[2].powered, "the kernel powers all ports of a hub that is new to it"


def test_power_past_the_kernel_leaves_a_stale_device_until_power_is_back(tree: UsbHubTree) -> None:
    hub = tree.hub(tree.root_hub(), 1)
    tree.plug(hub, 1, VirtualDevice(ttys=1))
    seen = next(found for found in usb_hubs(tree.root) if found.name == "1-1")
    tree.switch(seen, 1, on=False)
    assert not tree.is_powered(seen, 1)
    stale = plugged_in(tree.root)["1-1.1"]
    assert stale[1] == ("ttyUSB0",)
    tree.write(seen.folder / "1-1.1" / "authorized", "0")
    assert plugged_in(tree.root)["1-1.1"] == (stale[0], ())
    tree.switch(seen, 1, on=True)
    fresh = plugged_in(tree.root)["1-1.1"]
    assert fresh[0] > stale[0] and fresh[1] == ("ttyUSB0",)


def test_a_device_removed_while_its_port_is_off_has_its_power_back(tree: UsbHubTree) -> None:
    """Measured on Linux 6.1: the kernel looks at the port and switches it on."""
    hub = tree.hub(tree.root_hub(), 1)
    tree.plug(hub, 1, VirtualDevice())
    seen = next(found for found in usb_hubs(tree.root) if found.name == "1-1")
    tree.switch(seen, 1, on=False)
    tree.write(seen.folder / "1-1.1" / "remove", "1")
    assert tree.is_powered(seen, 1) and hub.ports[1].edges == [False, True]


def test_a_socket_of_two_halves_has_power_until_both_are_off(tree: UsbHubTree) -> None:
    usb2, usb3 = tree.root_hub(), tree.root_hub(usb3=True)
    one, other = tree.hub(usb2, 1), tree.hub(usb3, 1)
    tree.peers(one, other)
    tree.write(one.ports[1].disable, "1")
    assert tree.vbus(one, 1)
    tree.write(other.ports[1].disable, "1")
    assert not tree.vbus(one, 1)
    assert (one.ports[1].folder / "peer").resolve() == other.ports[1].folder


@pytest.mark.parametrize(
    ("name", "text", "number"), [("disable", "x", errno.EINVAL), ("nothing", "1", errno.ENOENT), ("peer", "1", 22)]
)
def test_what_the_kernel_refuses_is_refused(tree: UsbHubTree, name: str, text: str, number: int) -> None:
    hub = tree.root_hub()
    (hub.ports[1].folder / "peer").touch()
    with pytest.raises(OSError) as caught:
        tree.write(hub.ports[1].folder / name, text)
    assert caught.value.errno == number


def test_what_is_pulled_out_does_not_come_back(tree: UsbHubTree) -> None:
    root = tree.root_hub()
    hub = tree.hub(root, 1)
    tree.plug(hub, 1, VirtualDevice(ttys=1))
    tree.unplug(hub)
    assert names(tree) == {"usb1"}
    tree.write(root.ports[1].disable, "1")
    tree.write(root.ports[1].disable, "0")
    assert names(tree) == {"usb1"}


def test_one_switch_for_all_ports(tree: UsbHubTree) -> None:
    hub = tree.hub(tree.root_hub(), 1, behaviour=Behaviour.TOGETHER)
    for number in (1, 2):
        tree.plug(hub, number, VirtualDevice())
    tree.write(hub.ports[1].disable, "1")
    assert names(tree) == {"usb1", "1-1"}
    assert [port.powered for port in hub.ports.values()] == [False] * 4
