"""A USB hub as a controller: each port is an outlet, by its number, and `all` is the whole hub.

State is the hub's own word, asked of it at each `get`. Whether a device vanished or came back is no evidence and is
not used: the kernel forgets a device when it is told to switch its port off, whatever the hub then does. Nor can a
host see VBUS; `udev/usb_hub_truth.py` says what is known of a hub, and a port of which it is known that switching
does nothing is refused with that reason.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.usb_hub_ports import ALL, HubSwitch, PortFiles, SysfsFiles
from agent.power.drivers.usb_requests import AsksHubs, UsbRequests
from agent.power.errors import PowerError, UnreachableError
from agent.power.kinds.usb_hub import UsbHubSettings
from udev.usb_hubs import UsbChild
from wire.phases import Power

T = TypeVar("T")

FILES_KEY, REQUESTS_KEY = "usb_hub.files", "usb_hub.requests"
"""Under these `DriverContext.share` keeps the kernel's files and libusb; tests put others there first."""

TIMING = Timing(
    # A write takes 0.2 s in a virtual machine (a hub's answer, and the drivers letting go of the device), and the hub
    # says the new state from then on; the rest is for hubs that follow.
    verify_deadline_s=2.0,
    poll_interval_s=0.05,
    # The tty is back 0.6 s after the power (measured on a virtual hub), and USB devices are slower to come up afresh.
    settle_s=0.7,
    min_off_s=2.0,
    attempts=3,
    # The kernel gives a hub 1 s for each of up to four requests, for each half, and a storage device some to flush.
    call_timeout_s=15.0,
    answer_deadline_s=8.0,
)


class UsbHubDriver:
    """One hub. All file and USB work is done on one thread of its own: a hub that hangs delays no other."""

    def __init__(self, name: str, switch: HubSwitch) -> None:
        self._switch = switch
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"hub-{name}")

    @property
    def timing(self) -> Timing:
        return TIMING

    @property
    def reads_back(self) -> bool:
        return True

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        await self._call(lambda: self._switch.set(outlet, on=on))

    async def get(self, outlet: str) -> Power:
        return await self._call(lambda: self._switch.get(outlet))

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        return await self._call(lambda: self._get_many(outlets))

    async def read(self, outlet: str) -> float | None:
        """Hubs measure nothing."""
        del outlet
        return None

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        return dict.fromkeys(outlets)

    async def describe(self) -> list[OutletDescription]:
        return await self._call(self._describe)

    async def identify(self) -> str:
        return await self._call(self._identify)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    # --- on the hub's thread -------------------------------------------------------------------------------------

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _get_many(self, outlets: Sequence[str]) -> dict[str, Power | PowerError]:
        view = self._switch.look()
        found: dict[str, Power | PowerError] = {}
        for outlet in outlets:
            try:
                found[outlet] = self._switch.get_from(view, outlet)
            except UnreachableError:
                raise  # all ports are the same hub's, and each further question would wait for its timeout
            except PowerError as problem:
                found[outlet] = problem
        return found

    def _describe(self) -> list[OutletDescription]:
        view = self._switch.look()
        described = []
        for outlet in [*(str(port.number) for port in view.hub.ports), ALL]:
            if outlet == ALL:
                described.append(OutletDescription(ALL, "every port", self._switch.get_from(view, ALL)))
                continue
            power = self._switch.get_from(view, outlet)
            stale = power is Power.OFF
            children = self._switch.children(view, outlet)
            name = ", ".join(_named(child, stale=stale) for child in children) or "nothing plugged in"
            described.append(OutletDescription(outlet, name, power))
        return described

    def _identify(self) -> str:
        view = self._switch.look()
        hub = view.hub
        words = [f"{hub.vendor}:{hub.product} {hub.label}".strip(), f"at {hub.id}, now {hub.name}"]
        words += [f"serial number {hub.own_serial}"] if hub.own_serial else []
        if view.pair is not None:
            words.append(f"its other half is {view.pair.other.name} ({view.pair.by})")
        methods = sorted({self._switch.method(port) for port in hub.ports})
        words += [f"switched by {' and '.join(methods)}"] if methods else []
        truths = {port.number: self._switch.truth(view, port) for port in hub.ports}
        for word in dict.fromkeys(truth.word for truth in truths.values()):
            numbers = [str(number) for number, truth in truths.items() if truth.word is word]
            words.append(f"ports {', '.join(numbers)}: {word.meaning}")
        return "; ".join(words)


def _named(child: UsbChild, *, stale: bool) -> str:
    words = [f"{child.vendor}:{child.product}", child.label, child.serial or "", *child.ttys]
    words += ["(without power, still listed by the kernel)"] if stale else []
    return " ".join(word for word in words if word)


def make(name: str, settings: UsbHubSettings, context: DriverContext) -> UsbHubDriver:
    """The driver of one controller."""
    files: PortFiles = context.share(FILES_KEY, SysfsFiles)
    requests: AsksHubs = context.share(REQUESTS_KEY, UsbRequests)
    return UsbHubDriver(name, HubSwitch(name, settings, context.sysfs, files, requests))
