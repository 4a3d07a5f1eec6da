"""Ports are read from sysfs trees with the kernel's own layout, symbolic links included."""

import shutil
import sys
from pathlib import Path

import pytest

from udev.serial_ports import SYSFS_ROOT, SerialPort, UsbAdapter, serial_ports


def test_a_usb_serial_adapter_is_described_whole(sysfs):
    sysfs.usb_serial("ttyUSB0", "1-1.4", "0403:6001", "BRD0001")
    assert serial_ports(sysfs.root) == [
        SerialPort(
            name="ttyUSB0",
            driver="ftdi_sio",
            hardware="1-1.4:1.0",
            usb=UsbAdapter("0403", "6001", "BRD0001", "00", "1-1.4"),
            port_number=0,
            id_path="pci-0000:00:14.0-usb-0:1.4:1.0",
        )
    ]
    assert serial_ports(sysfs.root)[0].node == "/dev/ttyUSB0"


def test_the_interfaces_of_one_adapter_share_its_serial_number_by_right(sysfs):
    for interface in range(4):
        sysfs.usb_serial(f"ttyUSB{interface}", "1-2", "0403:6011", "FT4232", interface=interface)
    ports = serial_ports(sysfs.root)
    assert [port.usb.interface for port in ports] == ["00", "01", "02", "03"]
    assert all(port.has_own_serial for port in ports)


def test_several_ports_on_one_interface_are_told_apart_by_their_number(sysfs):
    sysfs.usb_serial("ttyUSB0", "1-2", "9710:7840", None, port_number=0)
    sysfs.usb_serial("ttyUSB1", "1-2", "9710:7840", None, port_number=1)
    assert [port.port_number for port in serial_ports(sysfs.root)] == [0, 1]


def test_two_adapters_with_one_serial_number_are_both_marked(sysfs):
    sysfs.usb_serial("ttyUSB0", "1-1.1", "1a86:7523", "12345")
    sysfs.usb_serial("ttyUSB1", "1-1.2", "1a86:7523", "12345")
    sysfs.usb_serial("ttyUSB2", "1-1.3", "1a86:7523", "99")
    # the same number from another maker is another number
    sysfs.usb_acm("ttyACM0", "1-1.4", "2e8a:000a", "12345")
    shared = {port.name: port.serial_is_shared for port in serial_ports(sysfs.root)}
    assert shared == {"ttyACM0": False, "ttyUSB0": True, "ttyUSB1": True, "ttyUSB2": False}


def test_a_factory_serial_number_counts_as_shared_even_alone(sysfs):
    sysfs.usb_serial("ttyUSB0", "1-1", "10c4:ea60", "0001")
    assert serial_ports(sysfs.root)[0].serial_is_shared


def test_an_adapter_without_a_serial_number_shares_none(sysfs):
    sysfs.usb_serial("ttyUSB0", "1-1.1", "1a86:7523", None)
    sysfs.usb_serial("ttyUSB1", "1-1.2", "1a86:7523", None)
    ports = serial_ports(sysfs.root)
    assert [(port.usb.serial, port.serial_is_shared, port.has_own_serial) for port in ports] == [
        (None, False, False)
    ] * 2


def test_cdc_acm_and_a_platform_usb_host(sysfs):
    host = "platform/scb/fd500000.pcie"
    sysfs.device(host, subsystem="platform", driver="brcm-pcie")
    sysfs.device(f"{host}/pci0000:00", subsystem=None)
    sysfs.device(f"{host}/pci0000:00/0000:00:00.0", subsystem="pci")
    sysfs.device(f"{host}/pci0000:00/0000:00:00.0/0000:01:00.0", subsystem="pci", driver="xhci_hcd")
    adapter = sysfs.usb_device("3-1.2", "2e8a", "000a", "E660", host=f"{host}/pci0000:00/0000:00:00.0/0000:01:00.0")
    sysfs.device(f"{adapter}/3-1.2:1.0", subsystem="usb", driver="cdc_acm", bInterfaceNumber="00")
    sysfs.tty(f"{adapter}/3-1.2:1.0", "ttyACM0")
    (port,) = serial_ports(sysfs.root)
    assert (port.driver, port.hardware, port.port_number) == ("cdc_acm", "3-1.2:1.0", None)
    assert port.id_path == "platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1.2:1.0"


@pytest.mark.parametrize("serial_base", [False, True], ids=["before-6.5", "since-6.5"])
def test_the_uart_of_a_soc(sysfs, serial_base):
    """Kernel 6.5 put two devices of the serial core between the chip and the tty; the chip's driver is what counts."""
    sysfs.device("platform/soc", subsystem="platform")
    chip = "platform/soc/fe201000.serial"
    sysfs.device(chip, subsystem="amba", driver="uart-pl011")
    if serial_base:
        sysfs.device(f"{chip}/fe201000.serial:0", subsystem="serial-base", driver="ctrl")
        chip += "/fe201000.serial:0/fe201000.serial:0.0"
        sysfs.device(chip, subsystem="serial-base", driver="port")
    sysfs.tty(chip, "ttyAMA0")
    assert serial_ports(sysfs.root) == [SerialPort(name="ttyAMA0", driver="uart-pl011", hardware="fe201000.serial")]


def test_empty_8250_places_and_virtual_terminals_are_left_out(sysfs):
    sysfs.device("pnp0/00:05", subsystem="pnp", driver="serial")
    sysfs.tty("pnp0/00:05", "ttyS0", type="4")
    sysfs.device("platform/serial8250", subsystem="platform", driver="serial8250")
    sysfs.tty("platform/serial8250", "ttyS1", type="0")
    sysfs.tty("virtual", "tty1", device=False)
    sysfs.tty("virtual", "ptmx", device=False)
    assert [port.name for port in serial_ports(sysfs.root)] == ["ttyS0"]


def test_an_adapter_unplugged_during_the_scan_is_left_out(sysfs):
    sysfs.usb_serial("ttyUSB0", "1-1.1", "0403:6001", "A")
    sysfs.usb_serial("ttyUSB1", "1-1.2", "0403:6001", "B")
    shutil.rmtree(next((sysfs.root / "devices").glob("**/1-1.1")))  # class/tty/ttyUSB0 now points nowhere
    assert [port.name for port in serial_ports(sysfs.root)] == ["ttyUSB1"]


def test_a_device_link_that_leaves_the_tree_is_not_followed(sysfs, tmp_path):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    sysfs.tty("virtual", "ttyX0", device=False)
    (sysfs.root / "devices/virtual/tty/ttyX0/device").symlink_to(outside)
    assert serial_ports(sysfs.root) == []


def test_bytes_that_are_no_text_do_not_stop_the_scan(sysfs):
    sysfs.usb_serial("ttyUSB0", "1-1", "0403:6001", "x")
    next((sysfs.root / "devices").glob("**/1-1/serial")).write_bytes(b"\xff\xfe\x00\n")
    (port,) = serial_ports(sysfs.root)
    assert port.usb.serial == "��\x00"


def test_no_sysfs_is_an_error_and_no_empty_list(tmp_path):
    with pytest.raises(FileNotFoundError):
        serial_ports(tmp_path)


def test_the_sysfs_of_this_machine_can_be_read():
    assert sys.platform == "linux"
    for port in serial_ports(SYSFS_ROOT):
        assert Path("/sys/class/tty", port.name, "device").exists()
