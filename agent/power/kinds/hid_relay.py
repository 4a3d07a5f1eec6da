"""HID relay boards: settings and kind."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.settings import ControllerBase, NonEmpty, TimeoutS

UsbPath = Annotated[str, Field(pattern=r"^[1-9][0-9]*-[1-9][0-9]*(\.[1-9][0-9]*)*$")]
"""Where a device is plugged in, as the kernel writes it: bus, then ports: `1-1.4`."""


class HidRelaySettings(ControllerBase):
    """A relay board that is a USB HID device: `agent/power/drivers/hid_relay.py` has the protocols.

    Without serial and path the only board of its kind on this host is taken.
    """

    driver: Literal["hid_relay"]
    protocol: Literal["dcttech", "lcus"] = "dcttech"
    serial: NonEmpty | None = None
    """As the board tells it; many are sold with the same one, and need path."""
    path: UsbPath | None = None
    outlets: Annotated[int, Field(ge=1, le=8)] | None = None
    """Only for lcus, whose boards do not tell."""
    reply_timeout_s: TimeoutS = 1.0

    @model_validator(mode="after")
    def _countable(self) -> Self:
        if (self.protocol == "lcus") != (self.outlets is not None):
            raise ValueError(
                "lcus needs outlets: its boards do not tell how many relays they have"
                if self.protocol == "lcus"
                else "outlets is for lcus only: dcttech's boards tell how many relays they have"
            )
        return self


def _support() -> tuple[DeviceSupport, ...]:
    return (
        DeviceSupport(
            "dcttech `USBRelay1` to `USBRelay8`, 16c0:05df",
            read_back="yes",
            verified_by="functionfs gadget under Linux 6.1 in a QEMU guest; virtual device behind pyusb, which "
            "pdudaemon's and labgrid's drivers switch, too",
            discovery="describe",
            source="usbrelay, labgrid's usb_hid_relay agent",
        ),
        DeviceSupport(
            "LCUS HID relays, 5131:2007",
            read_back="no: power stays unknown",
            verified_by="virtual device behind pyusb",
            source="labgrid's usb_hid_relay agent",
        ),
    )


KIND = DriverKind(
    name="hid_relay", settings=HidRelaySettings, make="agent.power.drivers.hid_relay:make", support=_support
)
