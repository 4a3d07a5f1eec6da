"""Device trees: our reader and writer against each other, and against dtc and QEMU."""

import contextlib
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_tools.image import device_tree
from firmware_tools.image.device_tree import DeviceTree, DeviceTreeError, Node

names = st.text("abcdefghijklmnopqrstuvwxyz,-0123456789", min_size=1, max_size=20)
properties = st.dictionaries(names, st.binary(max_size=40), max_size=5)
leaves = st.builds(Node, names, properties, st.just([]))
nodes = st.recursive(
    leaves, lambda inner: st.builds(Node, names, properties, st.lists(inner, max_size=3)), max_leaves=8
)
words = st.integers(1, 2**64 - 1)
trees = st.builds(
    DeviceTree,
    st.builds(Node, st.just(""), properties, st.lists(nodes, max_size=3)),
    st.lists(st.tuples(words, words), max_size=3),
    st.integers(0, 2**32 - 1),
)


@given(trees)
def test_what_is_written_reads_back_the_same(tree):
    assert device_tree.read(device_tree.write(tree)) == tree


@given(trees, st.data())
def test_a_damaged_tree_is_read_or_refused_but_never_crashes(tree, data):
    blob = bytearray(device_tree.write(tree))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DeviceTreeError):
        device_tree.read(bytes(blob[: data.draw(st.integers(0, len(blob)))]))


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 39))
def test_a_cut_header_is_refused(length):
    with pytest.raises(DeviceTreeError):
        device_tree.read(device_tree.write(DeviceTree(Node("")))[:length])


SOURCE = """/dts-v1/;
/memreserve/ 0x40000000 0x1000;
/ { #address-cells = <2>; compatible = "linux,dummy-virt"; empty;
    cpus { cpu@0 { device_type = "cpu"; reg = <0>; }; };
    chosen { stdout-path = "/pl011@9000000"; }; };
"""


def dtc(data, into, of):
    done = subprocess.run(["dtc", "-q", "-I", of, "-O", into, "-o", "-"], input=data, capture_output=True, check=True)
    return done.stdout


def test_a_tree_of_dtc_is_read_and_dtc_reads_ours():
    tree = device_tree.read(dtc(SOURCE.encode(), "dtb", "dts"))
    assert tree.root.properties["compatible"] == b"linux,dummy-virt\0"
    assert tree.root.properties["empty"] == b""
    assert tree.reservations == [(0x40000000, 0x1000)]
    tree.root.set_text("serial-number", "virt-7")
    text = dtc(device_tree.write(tree), "dts", "dtb").decode()
    assert 'serial-number = "virt-7"' in text
    assert 'stdout-path = "/pl011@9000000"' in text
    assert "cpu@0" in text
