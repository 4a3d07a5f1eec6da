"""USB hubs: settings and kind."""

from enum import StrEnum
from typing import Literal

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.settings import ControllerBase, NonEmpty


class HubMethod(StrEnum):
    """How a port is switched."""

    AUTO = "auto"
    """`sysfs` where the kernel has it, else `usb`."""
    SYSFS = "sysfs"
    """The kernel's `disable` attribute (Linux 6.0 and later)."""
    USB = "usb"
    """Class requests through libusb, past the kernel."""


class UsbHubSettings(ControllerBase):
    """A USB hub that switches its ports. Outlets are port numbers from 1, and `all` for the whole hub."""

    driver: Literal["usb_hub"]
    hub: NonEmpty
    """Its place, `pci-0000:00:14.0-usb-0:1.4`, or its serial number: `boardhand hubs` shows both."""
    method: HubMethod = HubMethod.AUTO
    pair: bool = True
    """Whether the USB 3 half of the hub is switched along. False only for hubs whose USB 3 half does not switch."""
    allow_chained: bool = False
    """Whether a port that feeds a further hub chip of the same housing may be switched."""
    allow_root: bool = False
    """Whether ports of the host controller itself may be switched."""


KIND = DriverKind(
    name="usb_hub",
    settings=UsbHubSettings,
    make="agent.power.drivers.usb_hub:make",
    support=lambda: (
        DeviceSupport(
            "USB hub with per-port power switching",
            read_back="yes, the hub is asked; whether VBUS really falls no host can see",
            verified_by="hub of QEMU on Linux 6.1 in a guest (uhubctl as witness), virtual sysfs tree (USB 3)",
            discovery="yes: boardhand hubs",
            source="USB 2.0 specification 11.24.2; Linux Documentation/ABI/testing/sysfs-bus-usb",
        ),
        DeviceSupport(
            "USB hub with ganged switching, Raspberry Pi 2 to 5",
            read_back="yes, as a whole (outlet `all`)",
            verified_by="virtual sysfs tree after uhubctl's README",
            discovery="yes: boardhand hubs",
            source="uhubctl README",
        ),
        DeviceSupport(
            "USB hub without power switching, dummy_hcd's root hub",
            read_back="refused before it is tried, with the reason",
            verified_by="hub of QEMU and dummy_hcd on Linux 6.1 in a guest, virtual sysfs tree",
            discovery="yes: boardhand hubs",
            source="USB 2.0 specification table 11-13",
        ),
    ),
)
