"""One USB HID device of one driver: found by serial or by where it is plugged in, claimed when first needed, and again
after it vanished. pyusb blocks, so each device has its own thread.

On Linux a class request to an interface (HID 1.11, 7.2) needs that interface claimed, and it cannot be while usbhid is
bound to it: it is unbound from this one interface, and bound again at the end. While boardhand has the device, programs
that use it through hidraw do not find it.
"""

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import libusb_package
import usb.backend.libusb1  # type: ignore[import-untyped]
import usb.core  # type: ignore[import-untyped]
import usb.util  # type: ignore[import-untyped]

from agent.power.errors import ConfigurationError, PowerError, RefusedError, UnreachableError

T = TypeVar("T")

CLASS_HID = 3
TO_INTERFACE, FROM_INTERFACE = 0x21, 0xA1
"""bmRequestType of class requests to an interface, out and in."""
GET_REPORT, SET_REPORT = 0x01, 0x09
FEATURE_REPORT = 0x0300
"""wValue: report type 3, no report id."""
GONE = {errno.ENODEV, errno.ENOENT, errno.EIO, errno.EPROTO, errno.ESHUTDOWN}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which device: all that is given has to fit.

    Attributes:
        what: for people, as "HID relay board".
        products: its vendor and product ids.
        serial: as the board tells it.
        path: where it is plugged in, as the kernel writes it: `1-1.4`.
    """

    what: str
    products: frozenset[tuple[int, int]]
    serial: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        given = [f"serial {self.serial}"] * bool(self.serial) + [f"path {self.path}"] * bool(self.path)
        return " with ".join([self.what, *given[:1]]) + "".join(f" and {more}" for more in given[1:])


class UsbBackend:
    """libusb, loaded when first needed, and which device belongs to which of our controllers."""

    def __init__(self, backend: Any = None) -> None:
        """`backend` is pyusb's; None takes the libusb that comes with boardhand, else the system's."""
        self._backend = backend
        self._mutex = threading.Lock()
        self._owners: dict[Hashable, str] = {}
        self._probes: dict[Hashable, threading.Lock] = {}

    def devices(self, products: frozenset[tuple[int, int]]) -> list[Any]:
        """All devices with one of these ids.

        Raises:
            usb.core.NoBackendError: there is no libusb.
        """
        with self._mutex:
            if self._backend is None:
                self._backend = libusb_package.get_libusb1_backend() or usb.backend.libusb1.get_backend()
            if self._backend is None:
                raise usb.core.NoBackendError("no libusb")
        found = usb.core.find(find_all=True, backend=self._backend)
        return [device for device in found if (device.idVendor, device.idProduct) in products]

    @contextlib.contextmanager
    def look_at(self, device: Any, controller: str) -> Iterator[bool]:
        """False when another controller has it. Two that look for theirs look at one device one after the other."""
        key = _key(device)
        with self._mutex:
            probe = self._probes.setdefault(key, threading.Lock())
        with probe:
            yield self._owners.get(key, controller) == controller

    def keep(self, device: Any, controller: str) -> None:
        with self._mutex:
            self._owners[_key(device)] = controller

    def give_up(self, device: Any) -> None:
        with self._mutex:
            self._owners.pop(_key(device), None)


def _key(device: Any) -> Hashable:
    return device.bus, device.address


def path_of(device: Any) -> str:
    """Where a device is plugged in, as the kernel writes it: `1-1.4`."""
    return f"{device.bus}-{'.'.join(str(port) for port in device.port_numbers or ())}"


@dataclass
class OpenHid:
    """A claimed device. All calls block, at most `timeout_s`, and raise `usb.core.USBError`."""

    device: Any
    timeout_s: float
    interface: int = 0
    serial: str = ""
    _detached: bool = False
    _owes_answer: bool = field(default=False, init=False)
    _texts: dict[int, str] = field(default_factory=dict, init=False)

    @classmethod
    def claim(cls, device: Any, timeout_s: float) -> "OpenHid":
        """Open, unbind usbhid where it is bound, claim."""
        hid = cls(device, timeout_s)
        device.default_timeout = hid._ms()  # of string descriptors
        try:
            interfaces = [each for each in device.get_active_configuration() if each.bInterfaceClass == CLASS_HID]
            hid.interface = interfaces[0].bInterfaceNumber if interfaces else 0
            if device.is_kernel_driver_active(hid.interface):
                device.detach_kernel_driver(hid.interface)
                hid._detached = True
            usb.util.claim_interface(device, hid.interface)
        except usb.core.USBError:
            hid.release()
            raise
        return hid

    @property
    def path(self) -> str:
        return path_of(self.device)

    @property
    def product(self) -> str:
        """Of its string descriptor; empty where it has none."""
        return self._text(self.device.iProduct)

    @property
    def serial_number(self) -> str:
        """As `product`. Many boards keep theirs elsewhere, or have none."""
        return self._text(self.device.iSerialNumber)

    def _text(self, index: int) -> str:
        # Not pyusb's own properties: these hide why a device did not answer.
        if not index:
            return ""
        if index not in self._texts:
            languages = usb.util.get_langids(self.device)
            self._texts[index] = (usb.util.get_string(self.device, index, languages[0]) or "") if languages else ""
        return self._texts[index]

    def release(self) -> None:
        """Leave it as it was found."""
        with contextlib.suppress(usb.core.USBError):
            usb.util.release_interface(self.device, self.interface)
        if self._detached:
            with contextlib.suppress(usb.core.USBError):
                self.device.attach_kernel_driver(self.interface)
        with contextlib.suppress(usb.core.USBError):
            usb.util.dispose_resources(self.device)

    def get_report(self, length: int) -> bytes:
        """The feature report without an id."""
        told = self.device.ctrl_transfer(
            FROM_INTERFACE, GET_REPORT, FEATURE_REPORT, self.interface, length, timeout=self._ms()
        )
        return bytes(told)

    def set_report(self, report: bytes) -> None:
        self.device.ctrl_transfer(TO_INTERFACE, SET_REPORT, FEATURE_REPORT, self.interface, report, timeout=self._ms())

    def exchange(self, report: bytes, length: int) -> bytes:
        """Write to the interrupt endpoint, read the answer. One that comes too late is not taken for the next."""
        setting = self.device.get_active_configuration()[(self.interface, 0)]
        ends = {usb.util.endpoint_direction(end.bEndpointAddress): end.bEndpointAddress for end in setting}
        if set(ends) != {usb.util.ENDPOINT_IN, usb.util.ENDPOINT_OUT}:
            raise usb.core.USBError("it lacks an interrupt endpoint", errno=errno.EPIPE)
        while self._owes_answer:
            try:
                self.device.read(ends[usb.util.ENDPOINT_IN], length, timeout=self._ms())
            except usb.core.USBTimeoutError:
                self._owes_answer = False
        self._owes_answer = True
        self.device.write(ends[usb.util.ENDPOINT_OUT], report, timeout=self._ms())
        answer = bytes(self.device.read(ends[usb.util.ENDPOINT_IN], length, timeout=self._ms()))
        self._owes_answer = False
        return answer

    def _ms(self) -> int:
        return max(1, int(self.timeout_s * 1000))


class HidDevice:
    """Runs blocking work at a device, one after the other.

    Whatever goes wrong at the device itself is one typed error; a device that is gone is looked for again by the next
    work.
    """

    def __init__(
        self,
        controller: str,
        wanted: Wanted,
        usb_backend: UsbBackend,
        serial_of: Callable[[OpenHid], str | None],
        timeout_s: float,
    ) -> None:
        """`serial_of` tells the serial of a claimed device, or None when it is none of ours, whatever its ids say."""
        self._controller = controller
        self._wanted = wanted
        self._usb = usb_backend
        self._serial_of = serial_of
        self._timeout_s = timeout_s
        self._hid: OpenHid | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"hid-{controller}")

    async def run(self, work: Callable[[OpenHid], T], *, outlet: str | None = None) -> T:
        """What `work` returns; it runs on the device's thread, and to its end even when this call is cancelled.

        Raises:
            UnreachableError: no such device, or it does not answer.
            ConfigurationError: it may not be opened, or another program has it, or several fit.
            RefusedError: it refused the request.
            PowerError: what `work` raised.
        """

        def at_device() -> T:
            try:
                return work(self._open())
            except usb.core.NoBackendError as problem:
                raise ConfigurationError(
                    "there is no libusb", controller=self._controller, do="install libusb-1.0-0"
                ) from problem
            except usb.core.USBError as problem:
                if not isinstance(problem, usb.core.USBTimeoutError) and problem.errno != errno.EPIPE:
                    self._drop()
                raise self._translated(problem, outlet) from problem

        if self._closed:
            raise UnreachableError("is closed", controller=self._controller, outlet=outlet)
        return await asyncio.get_running_loop().run_in_executor(self._thread, at_device)

    async def close(self) -> None:
        """After the work under way. More than once does no harm."""
        if self._closed:
            return
        self._closed = True
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        finally:
            self._thread.shutdown(wait=False)

    def give_up(self) -> None:
        """On the device's thread: it is not what it was; look for it again next time."""
        self._drop()

    # --- on the device's thread ----------------------------------------------------------------------------------

    def _open(self) -> OpenHid:
        if self._hid is None:
            self._hid = self._find()
        return self._hid

    def _drop(self) -> None:
        hid, self._hid = self._hid, None
        if hid is not None:
            self._let_go(hid)

    def _let_go(self, hid: OpenHid) -> None:
        hid.release()
        self._usb.give_up(hid.device)

    def _find(self) -> OpenHid:
        fitting: list[OpenHid] = []
        others: list[str] = []
        problem: usb.core.USBError | None = None
        for device in self._usb.devices(self._wanted.products):
            if self._wanted.path not in {None, path_of(device)}:
                others.append(path_of(device))
                continue
            with self._usb.look_at(device, self._controller) as free:
                try:
                    hid = self._fitting(device) if free else None
                except usb.core.USBError as its_problem:
                    problem = problem or its_problem
                    continue
                if hid is None:
                    others.append(path_of(device))
                else:
                    fitting.append(hid)
                    self._usb.keep(device, self._controller)
        if len(fitting) == 1:
            return fitting[0]
        for hid in fitting:
            self._let_go(hid)
        if problem is not None and not fitting:
            raise problem
        raise self._not_one(fitting, others)

    def _fitting(self, device: Any) -> OpenHid | None:
        hid = OpenHid.claim(device, self._timeout_s)
        try:
            serial = self._serial_of(hid)
        except usb.core.USBError:
            hid.release()
            raise
        if serial is None or self._wanted.serial not in {None, serial}:
            hid.release()
            return None
        hid.serial = serial
        return hid

    def _not_one(self, fitting: list[OpenHid], others: list[str]) -> PowerError:
        if fitting:
            found = ", ".join(f"serial {hid.serial} at path {hid.path}" for hid in fitting)
            return ConfigurationError(
                f"{len(fitting)} devices fit ({found})", controller=self._controller, do="set path (or serial) to one"
            )
        beside = f"; others are at {', '.join(others)}" if others else ""
        return UnreachableError(
            f"there is no {self._wanted} on USB{beside}", controller=self._controller, do="plug it in"
        )

    def _translated(self, problem: usb.core.USBError, outlet: str | None) -> PowerError:
        def error(kind: type[PowerError], said: str, do: str) -> PowerError:
            return kind(f"{self._wanted} {said}", controller=self._controller, outlet=outlet, do=do)

        if isinstance(problem, usb.core.USBTimeoutError) or problem.errno == errno.ETIMEDOUT:
            return error(UnreachableError, f"did not answer within {self._timeout_s:g} s", "replug it")
        if problem.errno in {errno.EACCES, errno.EPERM}:
            rules = " or ".join(
                f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{vendor:04x}", ATTR{{idProduct}}=="{product:04x}", '
                'MODE="0660", GROUP="plugdev"'
                for vendor, product in sorted(self._wanted.products)
            )
            return error(ConfigurationError, "may not be opened", f"add a udev rule: {rules}")
        if problem.errno == errno.EBUSY:
            return error(ConfigurationError, "is claimed by another program", "end that program, or leave it the board")
        if problem.errno == errno.EPIPE:
            return error(RefusedError, f"refused the request ({problem.strerror})", "check that it is such a board")
        if problem.errno in GONE:
            do = "plug it in; in a container, share /dev/bus/usb with it"
            return error(UnreachableError, f"is gone ({problem.strerror})", do)
        return error(UnreachableError, f"cannot be used ({problem})", "replug it")
