"""Requests to USB hubs past the kernel's hub driver, through libusb: what is the hub, is a port on, switch it.

USB 2.0 specification 11.24.2 and USB 3.2 specification 10.16.2. All go to the hub's default pipe with the recipients
"device" and "other", for which no interface is claimed: the kernel's driver stays bound. Blocking; every request has a
timeout. What goes wrong is an `OSError` with a number, whatever the layer it came from.
"""

import errno
import fcntl
import logging
import os
import struct
from pathlib import Path
from typing import Protocol

import usb.core  # type: ignore[import-untyped]
import usb.util  # type: ignore[import-untyped]
from usb.backend import libusb1  # type: ignore[import-untyped]

from udev.usb_hub_truth import HUB_DESCRIPTOR, SUPER_SPEED_HUB_DESCRIPTOR
from udev.usb_hubs import UsbHub

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_MS = 2000
"""The kernel gives hubs 1 s (drivers/usb/core/hub.c, USB_STS_TIMEOUT); twice that for one that sleeps."""

_TO_DEVICE_CLASS_OTHER, _FROM_DEVICE_CLASS_OTHER = 0x23, 0xA3  # bmRequestType, USB 2.0 specification table 11-15
_FROM_DEVICE_CLASS_DEVICE, _FROM_DEVICE_STANDARD = 0xA0, 0x80
_GET_STATUS, _CLEAR_FEATURE, _SET_FEATURE, _GET_DESCRIPTOR = 0, 1, 3, 6
_PORT_POWER = 8  # feature selector, USB 2.0 specification table 11-17
_POWER_BIT_USB2, _POWER_BIT_USB3 = 0x0100, 0x0200  # wPortStatus, USB 2.0 table 11-21 and USB 3.2 table 10-13
_CONNECTED_BIT = 0x0001
_CLAIM_PORT = 0x80045518  # _IOR('U', 24, unsigned int), include/uapi/linux/usbdevice_fs.h
_BOS = 0x0F  # bDescriptorType, USB 3.2 specification 9.6.2
_MAX_HUB_DESCRIPTOR_BYTES = 71  # 7 bytes and two bitmaps for 255 ports
_MAX_BOS_BYTES = 1024  # real ones have 22 to 100


class AsksHubs(Protocol):
    """What the hub driver and `boardhand hubs` need of libusb."""

    def hub_descriptor(self, hub: UsbHub) -> bytes:
        """The class descriptor."""

    def bos(self, hub: UsbHub) -> bytes:
        """The Binary device Object Store, where the container id is."""

    def is_powered(self, hub: UsbHub, port: int) -> bool:
        """The port's power bit, as the hub says it now."""

    def switch(self, hub: UsbHub, port: int, *, on: bool) -> None:
        """Set or clear the port's power feature."""

    def claim(self, hub: UsbHub, port: int) -> bool:
        """Keep the kernel from switching the port on by itself, until `release`. False where it cannot be."""

    def release(self, hub: UsbHub, port: int) -> None:
        """Give the port back to the kernel; without effect if it is not claimed."""


class UsbRequests:
    """The real one. The hub is found anew for each request, since its device number changes when it is replugged.

    A claim is the kernel's own (USBDEVFS_CLAIM_PORT, drivers/usb/core/devio.c) and ends when its file is closed, so
    with the process at the latest.
    """

    def __init__(self, device_folder: Path = Path("/dev/bus/usb")) -> None:
        self._device_folder = device_folder
        self._claims: dict[tuple[str, int], int] = {}
        """Place and port -> the open file that holds the claim."""

    def hub_descriptor(self, hub: UsbHub) -> bytes:
        kind = SUPER_SPEED_HUB_DESCRIPTOR if hub.id.usb3 else HUB_DESCRIPTOR
        return _request(hub, _FROM_DEVICE_CLASS_DEVICE, _GET_DESCRIPTOR, kind << 8, 0, _MAX_HUB_DESCRIPTOR_BYTES)

    def bos(self, hub: UsbHub) -> bytes:
        return _request(hub, _FROM_DEVICE_STANDARD, _GET_DESCRIPTOR, _BOS << 8, 0, _MAX_BOS_BYTES)

    def is_powered(self, hub: UsbHub, port: int) -> bool:
        return power_in_status(_request(hub, _FROM_DEVICE_CLASS_OTHER, _GET_STATUS, 0, port, 4), usb3=hub.id.usb3)

    def switch(self, hub: UsbHub, port: int, *, on: bool) -> None:
        _request(hub, _TO_DEVICE_CLASS_OTHER, _SET_FEATURE if on else _CLEAR_FEATURE, _PORT_POWER, port, 0)

    def claim(self, hub: UsbHub, port: int) -> bool:
        self.release(hub, port)  # a claim on a hub that was pulled out holds nothing
        try:
            descriptor = os.open(self._device_folder / f"{hub.bus:03}" / f"{hub.device:03}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as problem:
            log.debug("hub %s cannot be opened for a claim: %s", hub.id, problem)
            return False
        try:
            fcntl.ioctl(descriptor, _CLAIM_PORT, struct.pack("I", port))
        except OSError as problem:
            os.close(descriptor)
            log.debug("port %d of hub %s cannot be claimed: %s", port, hub.id, problem)
            return False
        self._claims[str(hub.id), port] = descriptor
        return True

    def release(self, hub: UsbHub, port: int) -> None:
        descriptor = self._claims.pop((str(hub.id), port), None)
        if descriptor is not None:
            os.close(descriptor)

    async def close(self) -> None:
        """Give all ports back; what is off stays so until the kernel has a reason to look at the port."""
        while self._claims:
            _, descriptor = self._claims.popitem()
            os.close(descriptor)


def power_in_status(status: bytes, *, usb3: bool) -> bool:
    """The power bit in an answer to GET_STATUS of a port; it stands elsewhere on USB 3 hubs.

    Raises:
        OSError: the answer is too short.
    """
    if len(status) < 2:
        raise OSError(errno.EPROTO, f"the hub's port status has {len(status)} bytes instead of 4")
    return bool(int.from_bytes(status[:2], "little") & (_POWER_BIT_USB3 if usb3 else _POWER_BIT_USB2))


def _request(hub: UsbHub, kind: int, request: int, value: int, index: int, length: int) -> bytes:
    device = None
    try:
        device = usb.core.find(backend=_backend(), bus=hub.bus, address=hub.device)
        if device is None:
            raise OSError(errno.ENODEV, f"libusb does not see device {hub.device} on bus {hub.bus}")
        answer = device.ctrl_transfer(kind, request, value, index, length or None, REQUEST_TIMEOUT_MS)
    except usb.core.USBError as problem:
        # An error of libusb that has no number of the system's, as "not supported", is one of input and output.
        raise OSError(problem.errno or errno.EIO, problem.strerror or str(problem)) from problem
    except usb.core.NoBackendError as problem:
        raise OSError(errno.ENOSYS, "libusb cannot be loaded") from problem
    finally:
        if device is not None:
            usb.util.dispose_resources(device)
    return bytes(answer) if length else b""


def _backend() -> object:
    """The libusb that comes as a package, else the system's."""
    try:
        import libusb_package  # noqa: PLC0415  # a platform without a wheel has none
    except ImportError:
        backend = None
    else:
        backend = libusb_package.get_libusb1_backend()
    backend = backend or libusb1.get_backend()
    if backend is None:
        raise OSError(errno.ENOSYS, "libusb cannot be loaded")
    return backend
