"""Shelly devices of the second generation and later: settings and kind."""

from typing import Literal

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.kinds.http_settings import HttpDeviceSettings


class ShellySettings(HttpDeviceSettings):
    """A Shelly device, Gen 2 or later. An outlet is the id of a switch, from 0. The account's name is `admin`."""

    driver: Literal["shelly"]


KIND = DriverKind(
    name="shelly",
    settings=ShellySettings,
    make="agent.power.drivers.shelly:make",
    support=lambda: (
        DeviceSupport(
            "Shelly Gen 2, 3 and 4 (Plus, Pro, Mini) by HTTP RPC",
            read_back="`Switch.GetStatus`",
            verified_by="virtual plug speaking its RPC, which curl switches too",
            metering="watts, where the device has `apower`",
            discovery="`describe`",
            source="shelly-api-docs.shelly.cloud: gen2/ComponentsAndServices/Switch, General/RPCProtocol, "
            "General/CommonErrors, General/Authentication; field names as in aioshelly",
        ),
    ),
)
