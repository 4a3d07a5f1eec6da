"""Hubs read from trees as the kernel makes them: places, ports, and how words become hubs."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udev.usb_hub_lookup import HubLookupError, find_hub, split_port
from udev.usb_hubs import HubId, container_id, machine_model, usb_hubs
from virtual_lab.usb_hub_tree import UsbHubTree, VirtualDevice

BOX = "5cf3ee30d5074925b001802d79434c30"
PI4, PI5 = "Raspberry Pi 4 Model B Rev 1.4", "Raspberry Pi 5 Model B Rev 1.0"


@pytest.fixture
def tree(tmp_path: Path) -> UsbHubTree:
    return UsbHubTree(tmp_path / "sys")


def hubs_by_name(tree: UsbHubTree):
    return {hub.name: hub for hub in usb_hubs(tree.root)}


def dual(tree: UsbHubTree, **properties):
    """One USB 3 hub at port 1 of a controller; the kernel is not told that it is one."""
    usb2 = tree.hub(tree.root_hub(), 1, usb_version=" 2.10", **properties)
    usb3 = tree.hub(tree.root_hub(usb3=True), 1, usb_version=" 3.00", **properties)
    return usb2, usb3


# --- reading ----------------------------------------------------------------------------------------------------


def test_places_ports_children_and_ttys(tree):
    root = tree.root_hub("pci0000:00/0000:00:03.0", ports=2)
    hub = tree.hub(root, 1, vendor="0409", product="55AA", serial="HUBSER1", label="QEMU USB Hub")
    tree.plug(hub, 2, VirtualDevice(serial="BRD0001", ttys=2, fixed=True))
    found = hubs_by_name(tree)
    assert [str(each.id) for each in found.values()] == ["pci-0000:00:03.0-usb-0:0", "pci-0000:00:03.0-usb-0:1"]
    one = found["1-1"]
    assert (one.vendor, one.product, one.serial, one.label) == ("0409", "55aa", "HUBSER1", "QEMU USB Hub")
    assert (one.bus, one.device, one.is_root, one.speed_mbit_s) == (1, 2, False, 480.0)
    assert [port.number for port in one.ports] == [1, 2, 3, 4]
    assert [port.child is None for port in one.ports] == [True, False, True, True]
    child = one.ports[1].child
    assert (child.name, child.serial, child.fixed, child.ttys) == ("1-1.2", "BRD0001", True, ("ttyUSB0", "ttyUSB1"))
    assert found["usb1"].is_root and found["usb1"].own_serial is None and found["usb1"].driver == "xhci_hcd"
    assert found["usb1"].ports[0].child.is_hub


def test_the_bus_of_the_controller_is_in_the_place_and_its_number_is_not(tree):
    tree.root_hub("pci0000:00/0000:00:1d.0")
    one, other = dual(tree)
    places = [str(hub.id) for hub in usb_hubs(tree.root)]
    assert len(set(places)) == len(places) == 5
    assert "pci-0000:00:14.0-usb-0:1" in places and "pci-0000:00:14.0-usbv3-0:1" in places
    assert one.folder.name == "2-1" and other.folder.name == "3-1"


def test_platform_controllers_and_bridges_are_named_as_udev_does(tree):
    tree.root_hub("platform/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0")
    tree.root_hub("platform/dummy_hcd.0", driver="dummy_hcd")
    assert {hub.id.controller for hub in usb_hubs(tree.root)} == {
        "platform-fd500000.pcie-pci-0000:01:00.0",
        "platform-dummy_hcd.0",
    }


def test_a_host_without_usb_has_no_hubs_and_one_without_sysfs_is_an_error(tmp_path):
    (tmp_path / "sys/devices").mkdir(parents=True)
    assert usb_hubs(tmp_path / "sys") == []
    with pytest.raises(OSError):
        usb_hubs(tmp_path / "none")


def test_an_old_kernel_and_a_hub_without_its_driver(tmp_path):
    tree = UsbHubTree(tmp_path / "sys", kernel_switches=False)
    tree.hub(tree.root_hub(), 1)
    found = hubs_by_name(tree)
    assert [port.switchable for port in found["1-1"].ports] == [False] * 4
    for port in list(found["1-1"].folder.glob("*/*-port*")):
        port.rename(port.with_name("gone"))
        break
    assert len(hubs_by_name(tree)["1-1"].ports) == 3


def test_damaged_attributes_do_not_end_the_scan(tree):
    hub = tree.hub(tree.root_hub(), 1)
    (hub.folder / "speed").write_text("unknown\n")
    (hub.folder / "idVendor").write_bytes(b"\xff\xfe\n")
    (hub.folder / "1-1:1.0" / "1-1-port999").mkdir()
    found = hubs_by_name(tree)["1-1"]
    assert found.speed_mbit_s is None and len(found.ports) == 4
    (hub.folder / "devnum").write_text("x\n")
    assert "1-1" not in hubs_by_name(tree)


def test_container_id_is_read_where_the_kernel_shows_it(tree):
    hub = tree.hub(tree.root_hub(), 1, container=BOX)
    assert hubs_by_name(tree)["1-1"].container is None
    (hub.folder / "bos_descriptors").write_bytes(tree.bos(hubs_by_name(tree)["1-1"]))
    assert hubs_by_name(tree)["1-1"].container == BOX


def test_machine_model(tmp_path):
    assert machine_model(UsbHubTree(tmp_path / "a", machine=PI4).root) == PI4
    assert machine_model(UsbHubTree(tmp_path / "b").root) == ""


@given(st.binary(max_size=64))
def test_any_bos_is_an_id_or_none(data):
    assert (found := container_id(data)) is None or len(found) == 32


def test_container_id_behind_other_capabilities():
    lpm, box = bytes([7, 0x10, 2, 2, 0, 0, 0]), bytes([20, 0x10, 4, 0]) + bytes.fromhex(BOX)
    head = struct.pack("<BBHB", 5, 15, 5 + 27, 2)
    assert container_id(head + lpm + box) == BOX
    assert container_id(head + lpm + box[:10]) is None
    assert container_id(head + bytes([20, 0x10, 4, 0]) + bytes(16)) is None


# --- names ------------------------------------------------------------------------------------------------------

STEP = st.integers(1, 255).map(str)
IDS = st.builds(
    HubId,
    st.sampled_from(
        ["pci-0000:00:14.0", "platform-fd500000.pcie-pci-0000:01:00.0", "platform-dummy_hcd.0", "a-usb-0:1"]
    ),
    st.just("0") | st.lists(STEP, min_size=1, max_size=6).map(".".join),
    st.booleans(),
)


@given(IDS)
def test_a_place_survives_being_written(place):
    assert HubId.parse(str(place)) == place


@given(IDS, st.integers(1, 255))
def test_a_port_of_a_place_survives_being_written(place, number):
    assert split_port(f"{place}:{number}") == (str(place), str(number))


@given(st.text())
def test_any_text_is_a_place_or_a_value_error(text):
    try:
        place = HubId.parse(text)
    except ValueError:
        return
    assert HubId.parse(str(place)) == place


def test_udevs_words_for_usb_2_are_taken():
    assert HubId.parse("pci-0000:00:14.0-usbv2-0:1.4") == HubId.parse("pci-0000:00:14.0-usb-0:1.4")


@pytest.mark.parametrize("words", ["", ":1", "hub", "hub:", "hub:0", "hub:x", "hub:1000", "hub:-1", "hub: 1"])
def test_what_is_no_port_of_a_hub(words):
    with pytest.raises(ValueError, match="HUB:PORT"):
        split_port(words)


def test_find_by_place_serial_and_kernel_name(tree):
    one, _other = dual(tree, serial="BOX1")
    tree.hub(tree.root_hub("pci0000:00/0000:00:1d.0"), 2)
    tree.peers(one, _other)
    hubs = usb_hubs(tree.root)
    assert find_hub(hubs, "pci-0000:00:14.0-usb-0:1").name == "1-1"
    assert find_hub(hubs, "BOX1").name == "1-1", "both halves have it; the USB 2 half is meant"
    assert find_hub(hubs, "3-2", kernel_names=True).id.controller == "pci-0000:00:1d.0"
    with pytest.raises(HubLookupError, match=r"changes between boots; write pci-0000:00:1d\.0-usb-0:2") as caught:
        find_hub(hubs, "3-2")
    assert not caught.value.absent
    with pytest.raises(HubLookupError, match="no USB hub is plugged in at") as caught:
        find_hub(hubs, "pci-0000:00:14.0-usb-0:7")
    assert caught.value.absent
    for words in ("NOSUCH", "0000:00:14.0"):
        with pytest.raises(HubLookupError, match="no USB hub with the serial number"):
            find_hub(hubs, words)


def test_a_controller_with_two_buses_of_one_kind_has_no_clear_place(tree):
    for _ in range(2):
        tree.root_hub("platform/odd_hcd.0", driver="odd")
    with pytest.raises(HubLookupError, match="2 USB hubs are at"):
        find_hub(usb_hubs(tree.root), "platform-odd_hcd.0-usb-0:0")


def test_two_hubs_of_one_serial_number_are_refused_with_their_places(tree):
    root = tree.root_hub()
    for number in (1, 2):
        tree.hub(root, number, serial="SAME")
    with pytest.raises(HubLookupError, match=r"2 USB hubs have .*usb-0:1 and .*usb-0:2") as caught:
        find_hub(usb_hubs(tree.root), "SAME")
    assert not caught.value.absent
