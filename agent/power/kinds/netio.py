"""NETIO power sockets by their JSON protocol: settings and kind."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.kinds.http_settings import HttpDeviceSettings, at_most_one
from agent.power.settings import NonEmpty


class NetioSettings(HttpDeviceSettings):
    """A NETIO device whose JSON API is switched on, with an account that may write. An outlet is its number from 1."""

    driver: Literal["netio"]
    read_username: NonEmpty | None = None
    """The account for reading, where it is another one than that for writing."""
    read_password_file: Path | None = None
    read_password_env: NonEmpty | None = None

    @model_validator(mode="after")
    def _reader(self) -> Self:
        given = at_most_one("read_password", self.read_password_file, self.read_password_env)
        if given != (self.read_username is not None):
            raise ValueError("read_username needs read_password_file or read_password_env, and they need read_username")
        if self.read_username is not None and ":" in self.read_username:
            raise ValueError("HTTP allows no colon in read_username (RFC 7617, section 2)")
        return self


KIND = DriverKind(
    name="netio",
    settings=NetioSettings,
    make="agent.power.drivers.netio:make",
    support=lambda: (
        DeviceSupport(
            "NETIO 4x, PowerPDU, PowerBOX, PowerDIN, PowerCable by JSON",
            read_back="`State` of netio.json, all outlets in one question",
            verified_by="virtual device speaking its JSON, which curl switches too",
            metering="watts, where the device has `Load`",
            discovery="`describe`",
            source="wiki.netio-products.com, JSON API; NETIO application note AN21",
        ),
    ),
)
