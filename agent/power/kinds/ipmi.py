"""Servers with a BMC that speaks IPMI 2.0 over LAN: settings and kind. Needs the extra `boardhand[ipmi]`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.kinds.http_settings import at_most_one
from agent.power.settings import ControllerBase, NonEmpty, TimeoutS


class IpmiSettings(ControllerBase):
    """A BMC. The one outlet, the chassis, is called `1`."""

    driver: Literal["ipmi"]
    host: NonEmpty
    port: Annotated[int, Field(ge=1, le=65535)] = 623
    username: Annotated[str, Field(min_length=1, max_length=16)]
    """IPMI 2.0 allows 16 characters."""
    password_file: Path | None = None
    password_env: NonEmpty | None = None
    privilege: Literal["operator", "administrator"] = "operator"
    """What the session asks for; switching the chassis needs operator."""
    timeout_s: TimeoutS = 10.0
    """For one command with its login: a slow BMC needs some seconds to compute its keys."""

    @model_validator(mode="after")
    def _account(self) -> Self:
        if not at_most_one("password", self.password_file, self.password_env):
            raise ValueError("needs password_file or password_env")
        return self


KIND = DriverKind(
    name="ipmi",
    settings=IpmiSettings,
    make="agent.power.drivers.ipmi:make",
    support=lambda: (
        DeviceSupport(
            "BMC by IPMI 2.0 over LAN (RMCP+); extra `boardhand[ipmi]`",
            read_back="Get Chassis Status",
            verified_by="pyghmi's own BMC over RMCP+ on loopback",
            metering="watts, where the BMC has DCMI",
            discovery="one outlet",
            source="IPMI 2.0 sections 28.2, 28.3, 20.1; DCMI 1.5 section 6.6.1",
        ),
    ),
)
