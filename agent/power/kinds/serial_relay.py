"""Relay boards on serial ports: settings and kind."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.settings import ControllerBase, NonEmpty, TimeoutS

MAX_OUTLETS = {"numato": 64, "lcus": 8, "lcus-feedback": 8, "devantech": 8, "conrad": 2040}
"""As many as each protocol can name."""


class SerialRelaySettings(ControllerBase):
    """A relay board on a serial port: `agent/power/drivers/serial_relay_protocols.py` has the protocols."""

    driver: Literal["serial_relay"]
    protocol: Literal["numato", "lcus", "lcus-feedback", "devantech", "conrad"]
    device: NonEmpty
    """Use a path that survives replugging, below /dev/serial/by-path or by-id."""
    outlets: Annotated[int, Field(ge=1, le=2040)]
    """How many relays the board has. They count from 1: Numato's relay 0 is outlet 1."""
    baudrate: Annotated[int, Field(ge=50, le=4_000_000)] | None = None
    """Where the board was set to another one than its protocol's own."""
    reply_timeout_s: TimeoutS = 0.5
    read_back: bool = True
    """Whether the board may be asked for states. False where asking does harm: power is then unknown for ever."""

    @model_validator(mode="after")
    def _countable(self) -> Self:
        if self.outlets > (most := MAX_OUTLETS[self.protocol]):
            raise ValueError(f"outlets = {self.outlets}: a {self.protocol} board has at most {most}")
        return self


def _support() -> tuple[DeviceSupport, ...]:
    by = "virtual relay board on a pty"
    by_pdudaemon = f"{by}, which pdudaemon's driver switches, too"
    return (
        DeviceSupport(
            "Numato relay modules, 1 to 64 channels (`numato`)",
            read_back="yes",
            verified_by=by_pdudaemon,
            source="numato.com/docs, command sets of the 16-, 32- and 64-channel modules",
        ),
        DeviceSupport(
            "LCUS-1, -2, -4, -8 with CH340 (`lcus`)",
            read_back="where the board answers FF, by bytes or by lines; else power stays unknown",
            verified_by=by,
            source="sellers' leaflets; answers as several public programs parse them",
        ),
        DeviceSupport(
            "LCUS look-alikes with feedback, as SAMIROB (`lcus-feedback`)",
            read_back="yes",
            verified_by=by,
            source="public programs",
        ),
        DeviceSupport(
            "Devantech USB-RLY02, 08, 16 and their B, C, L (`devantech`)",
            read_back="yes",
            verified_by=by_pdudaemon,
            source="Devantech's technical documentation of each module",
        ),
        DeviceSupport(
            "Conrad relay cards 197720 and 197730, chained (`conrad`)",
            read_back="yes",
            verified_by=by_pdudaemon,
            source="pdudaemon's driver and an Arduino replica; the maker's manual was not at hand",
        ),
    )


KIND = DriverKind(
    name="serial_relay",
    settings=SerialRelaySettings,
    make="agent.power.drivers.serial_relay:make",
    support=_support,
)
