"""A QEMU machine switched through QMP: settings and kind."""

from pathlib import Path
from typing import Literal

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.settings import ControllerBase, TimeoutS


class QmpSettings(ControllerBase):
    """A QEMU machine, switched through its QMP socket; the one outlet is called `1`."""

    driver: Literal["qmp"]
    socket: Path
    timeout_s: TimeoutS = 5.0


KIND = DriverKind(
    name="qmp",
    settings=QmpSettings,
    make="agent.power.drivers.qmp:make",
    support=lambda: (DeviceSupport("QEMU machine", read_back="`query-status`", verified_by="QEMU"),),
)
