"""The one-character power cable: settings and kind."""

from typing import Annotated, Literal

from pydantic import Field

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.settings import ControllerBase, NonEmpty, TimeoutS


class SerialCableSettings(ControllerBase):
    """A power cable on a serial port: `agent/power/drivers/serial_cable.py` has the protocol."""

    driver: Literal["serial_cable"]
    device: NonEmpty
    """Use a path that survives replugging, below /dev/serial/by-path or by-id."""
    baudrate: Annotated[int, Field(ge=50, le=4_000_000)] = 9600
    reply_timeout_s: TimeoutS = 0.3
    read_back: bool = True
    """Whether the cable may be asked with `?`. False for an old cable that takes `?` for a digit: power is then
    unknown for ever."""


KIND = DriverKind(
    name="serial_cable",
    settings=SerialCableSettings,
    make="agent.power.drivers.serial_cable:make",
    support=lambda: (
        DeviceSupport(
            "one-character power cable on a serial port",
            read_back="yes, where its firmware answers `?`; else power stays unknown",
            verified_by="virtual cable on a pty, CDC-ACM gadget in a QEMU guest",
        ),
    ),
)
