"""Identities in device trees, judged by dtc and fdtget."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_tools.image.device_tree import DeviceTree, DeviceTreeError, Node, read, write
from firmware_tools.image.identity import MAX_PADDING_BYTES, Identity, IdentityError, with_identity

SOURCE = """\
/dts-v1/;
/ {
    model = "Maker Board"; compatible = "maker,board", "chip,soc"; #address-cells = <1>; #size-cells = <1>;
    aliases { ethernet0 = "/soc/ethernet@100"; ethernet1 = &second; lost = "/none"; ethernet9 = "/none"; };
    soc {
        #address-cells = <1>; #size-cells = <1>;
        ethernet@100 { reg = <0x100 0x10>; mac-address = [00 00 00 00 00 00]; };
        second: ethernet@200 { reg = <0x200 0x10>; };
        single@300 { reg = <0x300 0x10>; };
    };
};
"""


def dtc(tmp_path):
    (tmp_path / "in.dts").write_text(SOURCE)
    subprocess.run(
        ["dtc", "-@", "-q", "-O", "dtb", "-o", tmp_path / "in.dtb", tmp_path / "in.dts"], check=True, timeout=60
    )
    return (tmp_path / "in.dtb").read_bytes()


def get(path, node, name, kind="s"):
    done = subprocess.run(
        ["fdtget", "-t", kind, path, node, name], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_everything_at_once_as_fdtget_reads_it(tmp_path):
    wanted = Identity(
        serial="SN-17", model="Shelf 3", compatible=("lab,shelf", "maker,board"), bootargs="quiet",
        macs=(("ethernet0", "52:54:00:00:00:01"), ("ethernet1", "52:54:00:00:00:02"),
              ("/soc/single", "52:54:00:00:00:03")),
    )  # fmt: skip
    out = tmp_path / "out.dtb"
    out.write_bytes(with_identity(dtc(tmp_path), wanted, 4096))
    assert get(out, "/", "serial-number") == "SN-17"
    assert get(out, "/", "model") == "Shelf 3"
    assert get(out, "/", "compatible") == "lab,shelf maker,board chip,soc"
    assert get(out, "/chosen", "bootargs") == "quiet"
    assert get(out, "/soc/ethernet@100", "local-mac-address", "bx") == "52 54 0 0 0 1"
    assert get(out, "/soc/ethernet@100", "mac-address", "bx") == "52 54 0 0 0 1"
    assert get(out, "/soc/ethernet@200", "local-mac-address", "bx") == "52 54 0 0 0 2"
    assert get(out, "/soc/single@300", "local-mac-address", "bx") == "52 54 0 0 0 3"
    subprocess.run(["dtc", "-q", "-I", "dtb", "-O", "dts", "-o", tmp_path / "back.dts", out], check=True, timeout=60)
    # The room behind it is room for others: fdtput adds to it in place.
    assert len(out.read_bytes()) == int.from_bytes(out.read_bytes()[4:8], "big")


def test_nothing_else_changes(tmp_path):
    blob = dtc(tmp_path)
    changed = read(with_identity(blob, Identity(serial="x")))
    changed.root.properties.pop("serial-number")
    assert changed == read(blob)


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        (Identity(macs=(("ethernet7", "52:54:00:00:00:01"),)), "ethernet7: no such alias.*ethernet0, ethernet1"),
        (Identity(macs=(("ethernet9", "52:54:00:00:00:01"),)), "no node /none"),
        (Identity(macs=(("/soc/ethernet", "52:54:00:00:00:01"),)), "no node"),
        (Identity(macs=(("ethernet0", "52:54:00:00:00"),)), "no Ethernet address"),
        (Identity(macs=(("ethernet0", "53:54:00:00:00:01"),)), "groups"),
        (Identity(macs=(("ethernet0", "00:00:00:00:00:00"),)), "nobody"),
        (Identity(serial="a\nb"), "serial-number"),
        (Identity(model="ü"), "model"),
        (Identity(compatible=("a b",)), "compatible"),
        (Identity(bootargs="x" * 5000), "bootargs"),
    ],
)
def test_what_cannot_be_set(tmp_path, identity, words):
    with pytest.raises(IdentityError, match=words):
        with_identity(dtc(tmp_path), identity)


def test_padding_has_an_end_and_a_damaged_tree_is_none(tmp_path):
    blob = dtc(tmp_path)
    for size in (-1, MAX_PADDING_BYTES + 1):
        with pytest.raises(IdentityError, match="padding"):
            with_identity(blob, Identity(serial="x"), size)
    with pytest.raises(DeviceTreeError):
        with_identity(blob[:60], Identity(serial="x"))
    tree = write(DeviceTree(Node("", {"model": b"x\0"})))
    assert read(with_identity(tree, Identity(bootargs="quiet"))).root.children[0].name == "chosen"
    with pytest.raises(IdentityError, match="aliases: none"):
        with_identity(tree, Identity(macs=(("ethernet0", "52:54:00:00:00:01"),)))


@given(st.binary(max_size=300))
def test_anything_is_a_tree_or_is_refused(blob):
    try:
        with_identity(blob, Identity(serial="x"))
    except (DeviceTreeError, IdentityError):
        return
