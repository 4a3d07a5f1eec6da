"""Servers with a BMC that speaks Redfish: settings and kind. Needs the extra `boardhand[redfish]`."""

from typing import Literal

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.kinds.http_settings import HttpDeviceSettings


class RedfishSettings(HttpDeviceSettings):
    """A Redfish service. An outlet is the id of a system: the last part of its path below /redfish/v1/Systems/."""

    driver: Literal["redfish"]


KIND = DriverKind(
    name="redfish",
    settings=RedfishSettings,
    make="agent.power.drivers.redfish:make",
    support=lambda: (
        DeviceSupport(
            "BMC by Redfish; extra `boardhand[redfish]`",
            read_back="`PowerState`; PoweringOn and PoweringOff are unknown",
            verified_by="virtual service with the DMTF's schema; OpenStack's sushy-emulator, once by hand",
            metering="watts, where the system's chassis has Power",
            discovery="`describe`",
            source="DMTF DSP0266, DSP2046 (ComputerSystem, Chassis, Power)",
        ),
    ),
)
