"""From the settings of a controller to its driver. Each driver's module, and what it stands on, is imported when a
controller of its kind is configured: pysnmp alone takes a third of a second."""

from typing import TYPE_CHECKING, Protocol

from agent.power.driver import Driver
from agent.power.settings import (
    CommandSettings,
    ControllerSettings,
    QmpSettings,
    SerialCableSettings,
    SnmpSettings,
)

if TYPE_CHECKING:
    from agent.power.drivers.snmp_session import EnginePool


class MakesDrivers(Protocol):
    """What `PowerService` needs: one driver per controller."""

    def __call__(self, name: str, settings: ControllerSettings) -> Driver:
        """A driver that has not touched its device yet."""


class DriverFactory:
    """Makes the drivers that come with boardhand. SNMP engines are shared by all controllers of one factory."""

    def __init__(self) -> None:
        self._engines: EnginePool | None = None

    def __call__(self, name: str, settings: ControllerSettings) -> Driver:
        match settings:
            case SerialCableSettings():
                from agent.power.drivers.serial_cable import SerialCableDriver  # noqa: PLC0415

                return SerialCableDriver(name, settings)
            case CommandSettings():
                from agent.power.drivers.command import CommandDriver  # noqa: PLC0415

                return CommandDriver(name, settings)
            case QmpSettings():
                from agent.power.drivers.qmp import QmpDriver  # noqa: PLC0415

                return QmpDriver(name, settings)
            case SnmpSettings():
                from agent.power.drivers.snmp import SnmpDriver  # noqa: PLC0415
                from agent.power.drivers.snmp_session import EnginePool  # noqa: PLC0415

                if self._engines is None:
                    self._engines = EnginePool()
                return SnmpDriver(name, settings, self._engines)
