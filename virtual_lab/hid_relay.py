"""Virtual USB HID relay boards and YKUSH hubs behind pyusb's backend interface.

`VirtualUsb` stands where libusb stands: all above it, pyusb's own code included, is what runs with real devices. It
minds what Linux minds: an interface with a kernel driver cannot be claimed, and a class request to an interface that is
not claimed is refused.
"""

import array
import errno
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import usb.backend  # type: ignore[import-untyped]
import usb.core  # type: ignore[import-untyped]

REQUEST_GET_DESCRIPTOR = 6
ENDPOINT_IN, ENDPOINT_OUT = 0x81, 0x01
TIMEOUT_CODE = -7
"""LIBUSB_ERROR_TIMEOUT."""


@dataclass(eq=False)
class VirtualHid:
    """One device. What it does with reports is its subclass's.

    Attributes:
        path: bus and ports, as `1-1.4`.
        deaf: answers nothing; every transfer times out.
        lying: accepts and does not switch.
        refusing: stalls the control endpoint.
        forbidden: may not be opened.
        kernel_driver: usbhid is bound to it.
        late_s: answers through the interrupt endpoint come after this.
        edges: every real change, as (outlet, on).
    """

    path: str = "1-1"
    outlets: int = 4
    vendor: int = 0
    product_id: int = 0
    product: str = ""
    serial: str = ""
    deaf: bool = False
    lying: bool = False
    refusing: bool = False
    forbidden: bool = False
    late_s: float = 0.0
    kernel_driver: bool = True
    address: int = field(default=0, init=False)
    on: list[bool] = field(default_factory=list, init=False)
    edges: list[tuple[int, bool]] = field(default_factory=list, init=False)
    claimed_by: object = field(default=None, init=False)
    answers: list[tuple[float, bytes]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.on = [False] * self.outlets

    def press(self, outlet: int, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        """Switch now, as by hand."""
        if self.on[outlet - 1] != on:
            self.on[outlet - 1] = on
            self.edges.append((outlet, on))

    def command(self, outlet: int, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        if not self.lying and 1 <= outlet <= self.outlets:
            self.press(outlet, on)

    def strings(self) -> dict[int, str]:
        return {1: "virtual", 2: self.product, 3: self.serial}

    def set_report(self, report: bytes) -> None:
        raise usb.core.USBError(f"Pipe error at {report.hex()}", -9, errno.EPIPE)

    def get_report(self) -> bytes:
        raise usb.core.USBError("Pipe error", -9, errno.EPIPE)

    def interrupt(self, report: bytes) -> bytes | None:
        """What is answered to a report through the interrupt endpoint."""
        del report
        return None


@dataclass(eq=False)
class VirtualHidRelay(VirtualHid):
    """dcttech's board; its serial stands in its report, and not in a string descriptor."""

    vendor: int = 0x16C0
    product_id: int = 0x05DF
    serial: str = "BITFT"
    report_length: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.product = self.product or f"USBRelay{self.outlets}"

    def strings(self) -> dict[int, str]:
        return {1: "www.dcttech.com", 2: self.product}

    def set_report(self, report: bytes) -> None:
        if not 2 <= len(report) <= 8:
            raise usb.core.USBError("Pipe error", -9, errno.EPIPE)
        if report[0] in {0xFE, 0xFC}:
            for outlet in range(1, self.outlets + 1):
                self.command(outlet, report[0] == 0xFE)
        elif report[0] in {0xFF, 0xFD}:
            self.command(report[1], report[0] == 0xFF)

    def get_report(self) -> bytes:
        bits = sum(1 << index for index, on in enumerate(self.on) if on)
        return (self.serial.encode().ljust(7, b"\0") + bytes((bits,)))[: self.report_length]


@dataclass(eq=False)
class VirtualLcusHid(VirtualHid):
    """LCUS: frames through interrupt endpoints; the answer tells nothing."""

    vendor: int = 0x5131
    product_id: int = 0x2007
    product: str = "HIDRelay"

    def interrupt(self, report: bytes) -> bytes | None:
        if len(report) < 4 or report[0] != 0xA0 or sum(report[:3]) & 0xFF != report[3]:
            return None
        self.command(report[1], bool(report[2]))
        return bytes(64)


@dataclass(eq=False)
class VirtualYkush(VirtualHid):
    """YKUSH (f2f7), YKUSH3 (f11b) or YKUSH XS (f0cd)."""

    vendor: int = 0x04D8
    product_id: int = 0xF2F7
    outlets: int = 3
    product: str = "YKUSH"
    serial: str = "Y00001"

    def interrupt(self, report: bytes) -> bytes | None:
        what, port = report[0] & 0xF0, report[0] & 0x0F
        if what in {0x00, 0x10} and 1 <= port <= self.outlets:
            self.command(port, what == 0x10)
            return bytes((1, report[0])).ljust(64, b"\0")
        if what == 0x20 and 1 <= port <= self.outlets:
            return bytes((1, port | (0x10 if self.on[port - 1] else 0))).ljust(64, b"\0")
        return bytes((0xFF,)).ljust(64, b"\0")


class _Record:
    """A descriptor: attributes, as pyusb's backends hand them over."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values, extra_descriptors=b"")


@dataclass(eq=False)
class _Handle:
    device: VirtualHid


class VirtualUsb(usb.backend.IBackend):  # type: ignore[misc]  # pyusb has no types
    """All virtual devices of a host. Devices are plugged in and pulled out while drivers run."""

    def __init__(self, *devices: VirtualHid) -> None:
        self._lock = threading.RLock()
        self._addresses = iter(range(2, 1 << 30))
        self.plugged: list[VirtualHid] = []
        self.open_handles: set[_Handle] = set()
        self.attached: list[str] = []
        """Paths at which the kernel's driver was bound again."""
        for device in devices:
            self.plug(device)

    def plug(self, device: VirtualHid) -> None:
        """Plug in (again): a new address, and usbhid binds to it as to any."""
        with self._lock:
            device.address = next(self._addresses)
            device.claimed_by = None
            self.plugged.append(device)

    def pull(self, device: VirtualHid) -> None:
        with self._lock:
            self.plugged.remove(device)

    # --- pyusb's interface ---------------------------------------------------------------------------------------

    def enumerate_devices(self) -> Iterator[VirtualHid]:
        return iter(list(self.plugged))

    def get_parent(self, dev: VirtualHid) -> None:
        del dev

    def get_device_descriptor(self, dev: VirtualHid) -> _Record:
        bus, _, ports = dev.path.partition("-")
        numbers = tuple(int(port) for port in ports.split("."))
        return _Record(
            bLength=18, bDescriptorType=1, bcdUSB=0x0110, bDeviceClass=0, bDeviceSubClass=0, bDeviceProtocol=0,
            bMaxPacketSize0=8, idVendor=dev.vendor, idProduct=dev.product_id, bcdDevice=0x0100, iManufacturer=1,
            iProduct=2, iSerialNumber=3 if 3 in dev.strings() else 0, bNumConfigurations=1, bus=int(bus),
            address=dev.address, port_number=numbers[-1], port_numbers=numbers, speed=1,
        )  # fmt: skip

    def get_configuration_descriptor(self, dev: VirtualHid, config: int) -> _Record:
        del dev
        if config:
            raise IndexError(config)
        return _Record(
            bLength=9, bDescriptorType=2, wTotalLength=41, bNumInterfaces=1, bConfigurationValue=1, iConfiguration=0,
            bmAttributes=0x80, bMaxPower=50,
        )  # fmt: skip

    def get_interface_descriptor(self, dev: VirtualHid, intf: int, alt: int, config: int) -> _Record:
        del dev
        if intf or alt or config:
            raise IndexError(intf)
        return _Record(
            bLength=9, bDescriptorType=4, bInterfaceNumber=0, bAlternateSetting=0, bNumEndpoints=2, bInterfaceClass=3,
            bInterfaceSubClass=0, bInterfaceProtocol=0, iInterface=0,
        )  # fmt: skip

    def get_endpoint_descriptor(self, dev: VirtualHid, ep: int, intf: int, alt: int, config: int) -> _Record:
        del dev, intf, alt, config
        return _Record(
            bLength=7, bDescriptorType=5, bEndpointAddress=(ENDPOINT_IN, ENDPOINT_OUT)[ep], bmAttributes=3,
            wMaxPacketSize=64, bInterval=10, bRefresh=0, bSynchAddress=0,
        )  # fmt: skip

    def open_device(self, dev: VirtualHid) -> _Handle:
        self._there(dev)
        if dev.forbidden:
            raise usb.core.USBError("Access denied (insufficient permissions)", -3, errno.EACCES)
        handle = _Handle(dev)
        with self._lock:
            self.open_handles.add(handle)
        return handle

    def close_device(self, dev_handle: _Handle) -> None:
        with self._lock:
            self.open_handles.discard(dev_handle)
            if dev_handle.device.claimed_by is dev_handle:
                dev_handle.device.claimed_by = None

    def get_configuration(self, dev_handle: _Handle) -> int:
        self._there(dev_handle.device)
        return 1

    def claim_interface(self, dev_handle: _Handle, intf: int) -> None:
        del intf
        with self._lock:
            device = self._there(dev_handle.device)
            if device.kernel_driver or device.claimed_by not in {None, dev_handle}:
                raise usb.core.USBError("Resource busy", -6, errno.EBUSY)
            device.claimed_by = dev_handle

    def release_interface(self, dev_handle: _Handle, intf: int) -> None:
        del intf
        with self._lock:
            if self._there(dev_handle.device).claimed_by is dev_handle:
                dev_handle.device.claimed_by = None

    def is_kernel_driver_active(self, dev_handle: _Handle, intf: int) -> bool:
        del intf
        return self._there(dev_handle.device).kernel_driver

    def detach_kernel_driver(self, dev_handle: _Handle, intf: int) -> None:
        del intf
        self._there(dev_handle.device).kernel_driver = False

    def attach_kernel_driver(self, dev_handle: _Handle, intf: int) -> None:
        del intf
        self._there(dev_handle.device).kernel_driver = True
        self.attached.append(dev_handle.device.path)

    def ctrl_transfer(
        self,
        dev_handle: _Handle,
        bmRequestType: int,  # noqa: N803 - pyusb's names
        bRequest: int,  # noqa: N803
        wValue: int,  # noqa: N803
        wIndex: int,  # noqa: N803
        data: "array.array[int]",
        timeout: int,
    ) -> int:
        device = self._talking(dev_handle, timeout)
        if bmRequestType == 0x80 and bRequest == REQUEST_GET_DESCRIPTOR and wValue >> 8 == 3:
            return _fill(data, _string_descriptor(device, wValue & 0xFF))
        if bmRequestType in {0x21, 0xA1} and device.claimed_by is not dev_handle:
            raise usb.core.USBError("Resource busy", -6, errno.EBUSY)
        # Requests to the device instead of its interface need no claim, and V-USB's firmware takes them as well.
        if device.refusing or wValue != 0x0300 or wIndex != 0:
            raise usb.core.USBError("Pipe error", -9, errno.EPIPE)
        if bmRequestType in {0x20, 0x21} and bRequest == 0x09:
            device.set_report(data.tobytes())
            return len(data)
        if bmRequestType in {0xA0, 0xA1} and bRequest == 0x01:
            return _fill(data, device.get_report())
        raise usb.core.USBError("Pipe error", -9, errno.EPIPE)

    def intr_write(self, dev_handle: _Handle, ep: int, intf: int, data: "array.array[int]", timeout: int) -> int:
        del ep, intf
        device = self._talking(dev_handle, timeout)
        answer = device.interrupt(data.tobytes())
        if answer is not None:
            device.answers.append((time.monotonic() + device.late_s, answer))
        return len(data)

    def intr_read(self, dev_handle: _Handle, ep: int, intf: int, buff: "array.array[int]", timeout: int) -> int:
        del ep, intf
        device = self._talking(dev_handle, timeout)
        wait_s = device.answers[0][0] - time.monotonic() if device.answers else timeout / 1000
        if wait_s >= timeout / 1000:
            _time_out(timeout)
        threading.Event().wait(max(0.0, wait_s))
        return _fill(buff, device.answers.pop(0)[1])

    def _there(self, dev: VirtualHid) -> VirtualHid:
        if dev not in self.plugged:
            raise usb.core.USBError("No such device (it may have been disconnected)", -4, errno.ENODEV)
        return dev

    def _talking(self, handle: _Handle, timeout: int) -> VirtualHid:
        device = self._there(handle.device)
        if device.deaf:
            _time_out(timeout)
        return self._there(device)


def _time_out(timeout_ms: int) -> None:
    threading.Event().wait(timeout_ms / 1000)
    raise usb.core.USBTimeoutError("Operation timed out", TIMEOUT_CODE, errno.ETIMEDOUT)


def _fill(buffer: "array.array[int]", data: bytes) -> int:
    count = min(len(buffer), len(data))
    buffer[:count] = array.array("B", data[:count])
    return count


def _string_descriptor(device: VirtualHid, index: int) -> bytes:
    if index == 0:
        return b"\x04\x03\x09\x04"
    text = device.strings().get(index)
    if text is None:
        raise usb.core.USBError("Pipe error", -9, errno.EPIPE)
    body = text.encode("utf-16-le")
    return bytes((2 + len(body), 3)) + body
