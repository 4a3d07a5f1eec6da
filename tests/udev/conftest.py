"""Writes sysfs trees as the kernel makes them: devices in `devices/`, everything else symbolic links into it."""

import os
from pathlib import Path

import pytest

PCI_HOST = "pci0000:00/0000:00:14.0"


class SysfsTree:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "class" / "tty").mkdir(parents=True)
        self.device("pci0000:00", subsystem=None)
        self.device(PCI_HOST, subsystem="pci", driver="xhci_hcd")

    def device(self, path: str, *, subsystem: str | None, driver: str | None = None, **attributes: str) -> Path:
        """One folder below `devices/`, with its links to its bus or class and to its driver."""
        folder = self.root / "devices" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "uevent").touch()
        if subsystem is not None:
            kind = "class" if subsystem == "tty" else "bus"
            self._link(folder / "subsystem", self.root / kind / subsystem)
        if driver is not None:
            self._link(folder / "driver", self.root / "bus" / str(subsystem) / "drivers" / driver)
        for name, value in attributes.items():
            (folder / name).write_bytes(value.encode() + b"\n")
        return folder

    def tty(self, below: str, name: str, *, device: bool = True, **attributes: str) -> None:
        folder = self.device(f"{below}/tty/{name}", subsystem="tty", **attributes)
        if device:
            self._link(folder / "device", self.root / "devices" / below)
        self._link(self.root / "class" / "tty" / name, folder)

    def usb_device(self, port_path: str, vendor: str, product: str, serial: str | None, host: str = PCI_HOST) -> str:
        """An adapter at `1-1.4`, with the hubs above it; its path below `devices/`."""
        bus, ports = port_path.split("-")
        path = f"{host}/usb{bus}"
        self.device(path, subsystem="usb", driver="usb", idVendor="1d6b", idProduct="0002", serial="0000:00:14.0")
        steps = ports.split(".")
        for depth in range(1, len(steps)):
            path += f"/{bus}-{'.'.join(steps[:depth])}"
            self.device(path, subsystem="usb", driver="usb", idVendor="2109", idProduct="2813")
        path += f"/{port_path}"
        optional = {} if serial is None else {"serial": serial}
        self.device(path, subsystem="usb", driver="usb", idVendor=vendor, idProduct=product, **optional)
        return path

    def usb_serial(
        self, name: str, port_path: str, ids: str, serial: str | None, interface: int = 0, port_number: int = 0
    ) -> None:
        """A ttyUSB: the interface, below it the usb-serial device, below that the tty."""
        vendor, product = ids.split(":")
        adapter = self.usb_device(port_path, vendor, product, serial)
        below = f"{adapter}/{port_path}:1.{interface}"
        self.device(below, subsystem="usb", driver="ftdi_sio", bInterfaceNumber=f"{interface:02x}")
        below += f"/{name}"
        self.device(below, subsystem="usb-serial", driver="ftdi_sio", port_number=str(port_number))
        self.tty(below, name)

    def usb_acm(self, name: str, port_path: str, ids: str, serial: str | None, interface: int = 0) -> None:
        """A ttyACM: the tty hangs off the interface itself."""
        vendor, product = ids.split(":")
        adapter = self.usb_device(port_path, vendor, product, serial)
        below = f"{adapter}/{port_path}:1.{interface}"
        self.device(below, subsystem="usb", driver="cdc_acm", bInterfaceNumber=f"{interface:02x}")
        self.tty(below, name)

    @staticmethod
    def _link(link: Path, target: Path) -> None:
        if link.is_symlink():
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))


@pytest.fixture
def sysfs(tmp_path: Path) -> SysfsTree:
    return SysfsTree(tmp_path / "sys")
