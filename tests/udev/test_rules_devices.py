"""The shipped rules: they are what the tables say, and open what they name and nothing else."""

from pathlib import Path

import pytest

from tests.udev.test_rules import read_rules, udev_accepts
from udev import rules_devices
from udev.rules_devices import DEVICE_KINDS, device_rules, farm_devices, hub_rules

FILES = {"70-boardhand-hubs.rules": hub_rules, "70-boardhand-devices.rules": device_rules}


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_counts_as_it_is(name, tmp_path: Path):
    text = (Path(rules_devices.__file__).parent / name).read_text()
    assert FILES[name]() == text
    rules = read_rules(text)
    labels = {value for rule in rules for key, _, _, value in rule if key == "LABEL"}
    assert {value for rule in rules for key, _, _, value in rule if key == "GOTO"} == labels
    udev_accepts(text, tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_another_group_stands_everywhere(name):
    text = FILES[name](group="farm")
    assert "dialout" not in text
    assert 'GROUP="farm"' in text


def test_the_file_says_what_the_table_says():
    rules = [rule for rule in read_rules(device_rules()) if ("GROUP", "", "=", "dialout") in rule]
    told = [
        ", ".join(f'{key}{{{attribute}}}=="{value}"' for key, attribute, _, value in rule if key in {"ATTR", "ATTRS"})
        for rule in rules
    ]
    wanted = []
    for kind in DEVICE_KINDS:
        wanted += [", ".join(kind.terms("ATTR"))] if kind.opens_usb else []
        wanted += [", ".join(kind.terms("ATTRS"))] if kind.below else []
    assert [line for line in told if line] == wanted
    for rule in rules:
        matches = {(key, attribute) for key, attribute, operator, _ in rule if operator == "=="}
        assert ("SUBSYSTEM", "") in matches
        assert matches & {("ATTR", "idVendor"), ("ATTRS", "idVendor"), ("ENV", "ID_USB_INTERFACES")}, "not for all"


def device(sysfs, path: str, ids: str, **strings: str) -> Path:
    vendor, product_id = ids.split(":")
    below = sysfs.usb_device(path, vendor, product_id, None)
    folder = sysfs.device(below, subsystem="usb", busnum="1", devnum=path[-1], **strings)
    link = sysfs.root / "bus/usb/devices" / path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder)
    return folder


def node(sysfs, folder: Path, subsystem: str, name: str) -> None:
    below = folder / f"{folder.name}:1.0" / subsystem / name
    below.mkdir(parents=True)
    link = sysfs.root / "class" / subsystem / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(below)


def test_devices_of_a_host(sysfs):
    relay = device(sysfs, "1-1", "16c0:05df", product="USBRelay4")
    node(sysfs, relay, "hidraw", "hidraw0")
    toy = device(sysfs, "1-2", "16c0:05df", product="My keyboard")
    node(sysfs, toy, "hidraw", "hidraw1")
    mux = device(sysfs, "1-3", "0424:4041", manufacturer="Pengutronix", product="usb-sd-mux_rev3")
    node(sysfs, mux, "scsi_generic", "sg0")
    node(sysfs, mux, "block", "sda")
    device(sysfs, "1-4", "0424:4041", manufacturer="Generic", product="Ultra Fast Media Reader")
    board = device(sysfs, "1-5", "0483:df11")
    codes = {"bInterfaceClass": "fe", "bInterfaceSubClass": "01", "bInterfaceProtocol": "02"}
    sysfs.device(f"{board.relative_to(sysfs.root / 'devices')}/1-5:1.0", subsystem="usb", **codes)
    found = {entry.name: (entry.what, sorted(entry.nodes)) for entry in farm_devices(sysfs.root)}
    assert found == {
        "1-1": ("HID relay", ["bus/usb/001/001", "hidraw0"]),
        "1-3": ("USB-SD-Mux", ["bus/usb/001/003", "sda", "sg0"]),
        "1-5": ("a board's DFU", ["bus/usb/001/005"]),
    }


def test_a_host_without_usb(tmp_path: Path):
    assert farm_devices(tmp_path) == []
