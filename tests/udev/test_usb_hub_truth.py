"""The halves of USB 3 hubs, and what is known of each port's power."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udev.usb_hub_pairs import PairedBy, other_half, same_socket, with_containers
from udev.usb_hub_truth import (
    HUB_DESCRIPTOR,
    Source,
    Switching,
    Truth,
    decode_hub_descriptor,
    gang_ports,
    is_chained,
    port_truth,
    proof_key,
    weakest,
)
from udev.usb_hubs import usb_hubs
from virtual_lab.usb_hub_tree import Behaviour, UsbHubTree

BOX = "5cf3ee30d5074925b001802d79434c30"
PI4, PI5 = "Raspberry Pi 4 Model B Rev 1.4", "Raspberry Pi 5 Model B Rev 1.0"


@pytest.fixture
def tree(tmp_path):
    return UsbHubTree(tmp_path / "sys")


def hubs_by_name(tree):
    return {hub.name: hub for hub in usb_hubs(tree.root)}


def dual(tree, **properties):
    """One USB 3 hub at port 1 of a controller; the kernel is not told that it is one."""
    usb2 = tree.hub(tree.root_hub(), 1, usb_version=" 2.10", **properties)
    usb3 = tree.hub(tree.root_hub(usb3=True), 1, usb_version=" 3.00", **properties)
    return usb2, usb3


# --- halves -----------------------------------------------------------------------------------------------------


def test_halves_by_the_kernels_peer_link_port_by_port(tree):
    usb2, usb3 = dual(tree)
    assert other_half(hubs_by_name(tree)["1-1"], usb_hubs(tree.root)) is None
    tree.peers(usb2, usb3)
    found = hubs_by_name(tree)
    pair = other_half(found["1-1"], list(found.values()))
    assert (pair.other.name, pair.by) == ("2-1", PairedBy.PEER)
    assert same_socket(found["1-1"].port(3), pair).folder == usb3.ports[3].folder
    assert other_half(found["2-1"], list(found.values())).other.name == "1-1"


def test_halves_by_container_id_serial_and_place(tree):
    dual(tree, serial="S")
    hubs = usb_hubs(tree.root)
    known = with_containers(hubs, {hub.folder: BOX for hub in hubs if not hub.is_root})
    one = next(hub for hub in known if hub.name == "1-1")
    assert (other_half(one, known).other.name, other_half(one, known).by) == ("2-1", PairedBy.CONTAINER)
    assert same_socket(one.port(2), other_half(one, known)).number == 2


def test_halves_below_differently_numbered_ports_of_the_controller(tree):
    usb2, usb3 = tree.root_hub(), tree.root_hub(usb3=True)
    tree.hub(tree.hub(usb2, 1), 4)
    tree.hub(tree.hub(usb3, 3), 4)
    hubs = usb_hubs(tree.root)
    known = with_containers(hubs, {hub.folder: BOX for hub in hubs if hub.name in {"1-1.4", "2-3.4"}})
    one = next(hub for hub in known if hub.name == "1-1.4")
    assert other_half(one, known).other.name == "2-3.4"


def test_of_several_fitting_halves_the_place_decides_and_a_draw_is_none(tree):
    usb2, usb3 = tree.root_hub(), tree.root_hub(usb3=True)
    tree.hub(usb2, 1)
    for number in (1, 2):
        tree.hub(usb3, number)
    hubs = usb_hubs(tree.root)
    known = with_containers(hubs, {hub.folder: BOX for hub in hubs if not hub.is_root})
    one = next(hub for hub in known if hub.name == "1-1")
    assert other_half(one, known).other.name == "2-1"
    without = [hub for hub in known if hub.name != "2-1"]
    assert other_half(one, without).other.name == "2-2"
    tree.hub(usb3, 3)
    hubs = [hub for hub in usb_hubs(tree.root) if hub.name != "2-1"]
    known = with_containers(hubs, {hub.folder: BOX for hub in hubs if not hub.is_root})
    assert other_half(next(hub for hub in known if hub.name == "1-1"), known) is None


@pytest.mark.parametrize("differs", ["serial", "ports", "container"])
def test_hubs_that_differ_are_no_halves(tree, differs):
    usb2, usb3 = tree.root_hub(), tree.root_hub(usb3=True)
    tree.hub(usb2, 1, serial="A")
    tree.hub(usb3, 1, serial="B" if differs == "serial" else "A", count=3 if differs == "ports" else 4)
    hubs = usb_hubs(tree.root)
    boxes = {hub.folder: BOX if hub.id.usb3 or differs != "container" else "0" * 31 + "1" for hub in hubs}
    known = with_containers([hub for hub in hubs if not hub.is_root], boxes)
    assert other_half(known[0], known) is None


# --- truth ------------------------------------------------------------------------------------------------------


def truth_of(tree, name, number=1, **known):
    hub = hubs_by_name(tree)[name]
    return port_truth(hub, hub.port(number), **({"switching": Switching.PER_PORT} | known))


@pytest.mark.parametrize(
    ("switching", "word", "source"),
    [
        (Switching.PER_PORT, Truth.CLAIMED, Source.DESCRIPTOR),
        (Switching.GANGED, Truth.GANGED, Source.DESCRIPTOR),
        (Switching.NONE, Truth.NONE, Source.DESCRIPTOR),
        (None, Truth.UNKNOWN, Source.NOBODY),
    ],
)
def test_what_the_descriptor_says(tree, switching, word, source):
    tree.hub(tree.root_hub(), 1)
    found = truth_of(tree, "1-1", switching=switching)
    assert (found.word, found.source) == (word, source)
    assert found.why and found.word.meaning


def test_a_gang_of_one_port_is_a_port_by_itself(tree):
    tree.hub(tree.root_hub(), 1, count=1)
    assert truth_of(tree, "1-1", switching=Switching.GANGED).word is Truth.CLAIMED


def test_a_measured_hub_is_believed_when_it_says_so_itself(tree):
    tree.hub(tree.root_hub(), 1, vendor="2001", product="F103", count=7)
    assert truth_of(tree, "1-1").word is Truth.PER_PORT
    assert truth_of(tree, "1-1", switching=None).word is Truth.UNKNOWN
    assert truth_of(tree, "1-1", switching=Switching.NONE).word is Truth.NONE


def test_a_proof_counts_for_this_hub_in_this_place_only(tree):
    tree.hub(tree.root_hub(), 1, serial="A")
    hub = hubs_by_name(tree)["1-1"]
    proofs = {proof_key(hub, 1): Truth.LIES, proof_key(hub, 2): Truth.PER_PORT}
    assert truth_of(tree, "1-1", proofs=proofs).word is Truth.LIES
    assert truth_of(tree, "1-1", 2, proofs=proofs, switching=Switching.NONE).word is Truth.PER_PORT
    assert truth_of(tree, "1-1", 3, proofs=proofs).word is Truth.CLAIMED
    assert truth_of(tree, "1-1", proofs=proofs, switching=Switching.NONE).word is Truth.NONE
    (hub.folder / "serial").write_text("B\n")
    assert truth_of(tree, "1-1", proofs=proofs).word is Truth.CLAIMED


def test_root_hubs_and_the_one_that_lies(tree):
    tree.root_hub()
    tree.root_hub("platform/dummy_hcd.0", driver="dummy_hcd", behaviour=Behaviour.STAYS)
    assert truth_of(tree, "usb1").word is Truth.ROOT_HUB
    assert "each port by itself" in truth_of(tree, "usb1").why
    assert truth_of(tree, "usb2").word is Truth.LIES


def test_a_seven_port_housing_is_two_chips_and_two_loose_hubs_are_not(tree):
    root = tree.root_hub()
    first = tree.hub(root, 1)
    tree.hub(first, 4)
    assert truth_of(tree, "1-1", 4).word is Truth.CHAINED
    assert [port.number for port in gang_ports(hubs_by_name(tree)["1-1"], "")] == [1, 2, 3]
    loose = tree.hub(root, 2, serial="A")
    tree.hub(loose, 1, serial="B")
    tree.hub(loose, 2, vendor="05e3", product="0610")
    tree.hub(loose, 3, vendor="05e3", product="0610", fixed=True)
    hub = hubs_by_name(tree)["1-2"]
    assert [is_chained(hub, port) for port in hub.ports] == [False, False, True, False]


def test_containers_tell_housings_apart(tree):
    first = tree.hub(tree.root_hub(), 1)
    second = tree.hub(first, 4)
    for hub, box in ((first, BOX), (second, BOX[::-1])):
        body = bytes([20, 0x10, 4, 0]) + bytes.fromhex(box)
        (hub.folder / "bos_descriptors").write_bytes(struct.pack("<BBHB", 5, 15, 25, 1) + body)
    assert truth_of(tree, "1-1", 4).word is Truth.CLAIMED


def pi4(tmp_path):
    tree = UsbHubTree(tmp_path / "sys", machine=PI4)
    controller = "platform/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0"
    usb2, usb3 = tree.root_hub(controller, ports=1), tree.root_hub(controller, ports=4, usb3=True)
    tree.peers(usb2, usb3)
    via = tree.hub(usb2, 1, vendor="2109", product="3431")
    return tree, via, usb3


def test_raspberry_pi_4(tmp_path):
    tree, _, _ = pi4(tmp_path)
    found = hubs_by_name(tree)
    pair = other_half(found["1-1"], list(found.values()), PI4)
    assert (pair.other.name, pair.by) == ("usb2", PairedBy.RASPBERRY_PI_4)
    assert same_socket(found["1-1"].port(3), pair).number == 3
    for name in ("1-1", "usb2"):
        assert truth_of(tree, name, machine=PI4, switching=Switching.GANGED).word is Truth.PI4
    assert truth_of(tree, "usb1", machine=PI4).word is Truth.ROOT_HUB
    assert truth_of(tree, "1-1", machine="").word is Truth.CLAIMED


def test_raspberry_pi_5_and_3(tmp_path):
    tree = UsbHubTree(tmp_path / "sys", machine=PI5)
    for number in (0, 1):
        for usb3 in (False, True):
            tree.root_hub(f"platform/axi/1000120000.pcie/xhci-hcd.{number}", ports=1 if usb3 else 2, usb3=usb3)
    assert {truth_of(tree, f"usb{bus}", machine=PI5).word for bus in (1, 2, 3, 4)} == {Truth.PI5}
    tree.hub(next(hub for hub in tree._hubs), 1, vendor="0424", product="9514", count=5)
    machine = "Raspberry Pi 3 Model B Rev 1.2"
    assert truth_of(tree, "1-1", 3, machine=machine).word is Truth.GANGED
    assert [port.number for port in gang_ports(hubs_by_name(tree)["1-1"], machine)] == [2]


def test_what_two_halves_can_do_is_what_the_weaker_can():
    assert weakest([]) is None
    assert weakest([Switching.PER_PORT, Switching.NONE]) is Switching.NONE
    assert weakest([Switching.PER_PORT, Switching.GANGED]) is Switching.GANGED
    assert weakest([Switching.PER_PORT]) is Switching.PER_PORT


@pytest.mark.parametrize(
    ("characteristics", "switching"),
    [(0x0009, Switching.PER_PORT), (0x000A, Switching.NONE), (0x000B, Switching.NONE), (0x0000, Switching.GANGED)],
)
def test_hub_descriptors_as_measured(characteristics, switching):
    data = struct.pack("<BBBHBBBB", 9, HUB_DESCRIPTOR, 4, characteristics, 50, 0, 0, 0xFF)
    found = decode_hub_descriptor(data)
    assert (found.switching, found.ports, found.power_good_s, found.compound) == (switching, 4, 0.1, False)


@given(st.binary(max_size=12))
def test_any_bytes_are_a_hub_descriptor_or_a_value_error(data):
    try:
        found = decode_hub_descriptor(data)
    except ValueError:
        return
    assert found.ports == data[2]
