"""The paths that last for serial ports: udev's links, as udev lays them."""

import pytest

from udev.serial_ports import lasting_names, serial_ports

BY_PATH = "pci-0000:00:14.0-usb-0:{}:1.0-port0"


@pytest.fixture
def dev(tmp_path):
    for folder in ("by-id", "by-path"):
        (tmp_path / "dev" / "serial" / folder).mkdir(parents=True)
    return tmp_path / "dev"


def link(dev, folder, name, tty):
    (dev / "serial" / folder / name).symlink_to(f"../../{tty}")


def test_by_serial_where_it_is_its_own_and_by_path_where_not(sysfs, dev):
    sysfs.usb_serial("ttyUSB0", "1-1.1", "0403:6001", "OWN1")
    sysfs.usb_serial("ttyUSB1", "1-1.2", "0403:6001", "SAME")
    sysfs.usb_serial("ttyUSB2", "1-1.3", "0403:6001", "SAME")
    sysfs.usb_serial("ttyUSB3", "1-1.4", "1a86:7523", None)
    link(dev, "by-id", "usb-FTDI_OWN1-if00-port0", "ttyUSB0")
    link(dev, "by-id", "usb-FTDI_SAME-if00-port0", "ttyUSB2")  # the last one wins, and that changes
    for number in range(4):
        link(dev, "by-path", BY_PATH.format(f"1.{number + 1}"), f"ttyUSB{number}")
        link(dev, "by-path", f"pci-0000:00:14.0-usbv2-0:1.{number + 1}:1.0-port0", f"ttyUSB{number}")
    names = lasting_names(serial_ports(sysfs.root), dev)
    assert names["ttyUSB0"] == f"{dev}/serial/by-id/usb-FTDI_OWN1-if00-port0"
    for number in (1, 2, 3):
        assert names[f"ttyUSB{number}"] == f"{dev}/serial/by-path/{BY_PATH.format(f'1.{number + 1}')}"


def test_without_udev_the_node_is_all_there_is(sysfs, tmp_path):
    sysfs.usb_serial("ttyUSB0", "1-1.1", "0403:6001", "OWN1")
    assert lasting_names(serial_ports(sysfs.root), tmp_path / "none") == {"ttyUSB0": f"{tmp_path}/none/ttyUSB0"}
