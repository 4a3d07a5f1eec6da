"""Yepkit's switchable USB hubs: settings and kind."""

from typing import Literal

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.kinds.hid_relay import UsbPath
from agent.power.settings import ControllerBase, NonEmpty, TimeoutS


class YkushSettings(ControllerBase):
    """A YKUSH, YKUSH3 or YKUSH XS. Without serial and path the only one on this host is taken."""

    driver: Literal["ykush"]
    serial: NonEmpty | None = None
    """As `ykushcmd -l` shows it."""
    path: UsbPath | None = None
    """Of its HID device, which sits behind the hub itself."""
    reply_timeout_s: TimeoutS = 1.0


KIND = DriverKind(
    name="ykush",
    settings=YkushSettings,
    make="agent.power.drivers.ykush:make",
    support=lambda: (
        DeviceSupport(
            "Yepkit YKUSH, YKUSH3, YKUSH XS (04d8:f2f7, f11b, f0cd)",
            read_back="yes",
            verified_by="virtual device behind pyusb",
            discovery="describe",
            source="Yepkit's ykushcmd",
        ),
    ),
)
