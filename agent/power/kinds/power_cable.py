"""boardhand's own power cable: settings and kind."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.settings import ControllerBase, NonEmpty, TimeoutS


class PowerCableSettings(ControllerBase):
    """boardhand's own power cable on its serial port: docs/power-cable.md has its parts, firmware and protocol."""

    driver: Literal["power_cable"]
    device: NonEmpty
    """Use a path that survives replugging, below /dev/serial/by-path or by-id."""
    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,32}$")] | None = None
    """The cable's own number, as the agent's log and docs tell it. With it, another cable at this port is refused
    before anything is switched; without it, the first that was seen is the right one until the agent ends."""
    baudrate: Annotated[int, Field(ge=50, le=4_000_000)] = 115200
    """Of no account on USB; for a cable whose tty is a real UART."""
    reply_timeout_s: TimeoutS = 0.5


KIND = DriverKind(
    name="power_cable",
    settings=PowerCableSettings,
    make="agent.power.drivers.power_cable:make",
    support=lambda: (
        DeviceSupport(
            "boardhand's own power cable: a Raspberry Pi Pico with our firmware",
            read_back="yes: at the outlet where it is sensed, else at the pin",
            verified_by="its real firmware under MicroPython 1.25 and CPython with virtual pins, on a pty",
            metering="watts, where an INA219 or an analogue sensor is wired",
            discovery="yes",
            source="docs/power-cable.md",
        ),
    ),
)
