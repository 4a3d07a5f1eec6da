"""Digital Loggers power controllers by their REST API: settings and kind."""

from typing import Literal

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.kinds.http_settings import HttpDeviceSettings


class DliSettings(HttpDeviceSettings):
    """A Digital Loggers power controller whose REST-style API is allowed (Setup, External APIs). An outlet is the
    number that is printed beside it, from 1; the API itself counts from 0."""

    driver: Literal["dli"]


KIND = DriverKind(
    name="dli",
    settings=DliSettings,
    make="agent.power.drivers.dli:make",
    support=lambda: (
        DeviceSupport(
            "Digital Loggers Web Power Switch Pro, EPCR and others with the REST API",
            read_back="`physical_state`, all outlets in one question",
            verified_by="virtual device speaking its REST API, which curl switches too",
            metering="no: its meters are per bus",
            discovery="`describe`",
            source="digital-loggers.com/rest.html; answers to several outlets as read by MeshCentral",
        ),
    ),
)
