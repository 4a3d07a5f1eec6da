"""Any program that switches an outlet: settings and kind."""

from typing import Annotated, Literal

from pydantic import Field

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.settings import ControllerBase, NonEmpty, TimeoutS

OUTLET_PLACEHOLDER = "{outlet}"


class CommandSettings(ControllerBase):
    """Any program that switches an outlet. Argument lists, never shell strings; `{outlet}` is replaced."""

    driver: Literal["command"]
    on: Annotated[list[NonEmpty], Field(min_length=1)]
    off: Annotated[list[NonEmpty], Field(min_length=1)]
    state: Annotated[list[NonEmpty], Field(min_length=1)] | None = None
    """Prints `on` or `off` (or 1 or 0). Without it the board's power is `unknown` for ever, and a switch whose
    program exits 0 is reported as done with power unknown: it is never claimed as verified."""
    timeout_s: TimeoutS = 10.0
    verify_deadline_s: TimeoutS = 10.0


KIND = DriverKind(
    name="command",
    settings=CommandSettings,
    make="agent.power.drivers.command:make",
    support=lambda: (
        DeviceSupport(
            "any program (`on`, `off`, `state`)",
            read_back="by its `state` program; else power stays unknown",
            verified_by="programs on this host",
        ),
    ),
)
