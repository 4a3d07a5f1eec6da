"""Kinds of power drivers: which settings a `driver = "..."` takes, and how its driver is made.

Kinds that come with boardhand stand in `BUILT_IN`. Others come from installed packages, as entry points of the group
`boardhand.power_drivers`: each names a `DriverKind`. Settings are checked before a driver's own module, and what it
stands on, is imported: pysnmp alone takes a third of a second.
"""

import inspect
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, cast

from pydantic import BeforeValidator, SerializeAsAny

from agent.power.driver import Driver
from agent.power.settings import ControllerBase
from daemon.mqtt_settings import MqttSettings

T = TypeVar("T")

ENTRY_POINT_GROUP = "boardhand.power_drivers"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceSupport:
    """One line of docs/power-devices.md: how well a device is supported, and who says so."""

    device: str
    read_back: str
    verified_by: str
    """What the driver was run against: a virtual device, a recording, a foreign program, real hardware."""
    metering: str = "no"
    discovery: str = "no"
    """How its outlets are found: `describe` of the driver, or by a person."""
    source: str = ""
    """MIB, document or recording from which its protocol is known."""


@dataclass
class DriverContext:
    """What drivers of one agent share: an SNMP engine, an HTTP session, a connection to an MQTT server.

    Attributes:
        mqtt: the agent's own MQTT server, for devices that are reached through it.
        sysfs: root of sysfs; a folder in tests.
    """

    mqtt: MqttSettings | None = None
    sysfs: Path = Path("/sys")
    _shared: dict[Hashable, Any] = field(default_factory=dict)

    def share(self, key: Hashable, make: Callable[[], T]) -> T:
        """The one object of this key; `make` makes it the first time. One with an async `close` is closed at the
        end, after all drivers."""
        if key not in self._shared:
            self._shared[key] = make()
        return cast("T", self._shared[key])

    async def close(self) -> None:
        """Close what was shared, the newest first."""
        while self._shared:
            _, item = self._shared.popitem()
            closing = getattr(item, "close", None)
            if closing is not None and inspect.isawaitable(done := closing()):
                await done


MakeDriver = Callable[[str, Any, DriverContext], Driver]
"""Takes the controller's name, its settings (of the kind's own class) and what is shared. Touches no device."""


@dataclass(frozen=True, slots=True)
class DriverKind:
    """One word that may stand behind `driver =`.

    Attributes:
        name: that word, `[a-z][a-z0-9_]*`.
        settings: its table, derived from `ControllerBase`.
        make: a `MakeDriver`, or where one is found, as `package.module:function`, imported when first needed.
        support: what is said in the docs of the devices behind it.
    """

    name: str
    settings: type[ControllerBase]
    make: MakeDriver | str
    support: Callable[[], Sequence[DeviceSupport]] = tuple

    def driver(self, name: str, settings: ControllerBase, context: DriverContext) -> Driver:
        """The driver of controller `name`."""
        make = self.make
        if isinstance(make, str):
            module, _, function = make.partition(":")
            make = cast("MakeDriver", getattr(import_module(module), function))
        return make(name, settings, context)


BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "command": "agent.power.kinds.command",
        "dli": "agent.power.kinds.dli",
        "hid_relay": "agent.power.kinds.hid_relay",
        "ipmi": "agent.power.kinds.ipmi",
        "netio": "agent.power.kinds.netio",
        "power_cable": "agent.power.kinds.power_cable",
        "qmp": "agent.power.kinds.qmp",
        "redfish": "agent.power.kinds.redfish",
        "rest": "agent.power.kinds.rest",
        "serial_cable": "agent.power.kinds.serial_cable",
        "serial_relay": "agent.power.kinds.serial_relay",
        "shelly": "agent.power.kinds.shelly",
        "snmp": "agent.power.kinds.snmp",
        "tasmota": "agent.power.kinds.tasmota",
        "usb_hub": "agent.power.kinds.usb_hub",
        "ykush": "agent.power.kinds.ykush",
    }
)
"""Word -> module with its `KIND`."""


def known_kinds() -> list[str]:
    """All words that may stand behind `driver =`: ours, and those of installed packages."""
    return sorted({*BUILT_IN, *_from_outside()})


def find_kind(name: str) -> DriverKind:
    """The kind of this word.

    Raises:
        ValueError: nobody knows the word, or what the entry point names is no kind; the text says what to do.
    """
    outside = _from_outside()  # also for ours, so that a clash is said
    if name in BUILT_IN:
        kind = import_module(BUILT_IN[name]).KIND
    elif name in outside:
        try:
            kind = outside[name].load()
        except Exception as problem:  # foreign code: whatever it raises on import is its word about itself
            raise ValueError(
                f"driver {name!r} of {_origin(outside[name])} cannot be loaded: {type(problem).__name__}: {problem}"
            ) from problem
    else:
        raise ValueError(
            f"there is no driver {name!r}; known are {', '.join(known_kinds())}; others are installed as packages"
        )
    if not isinstance(kind, DriverKind) or kind.name != name:
        raise ValueError(f"driver {name!r}: its entry point must name a DriverKind of this name, and names {kind!r}")
    if not issubclass(kind.settings, ControllerBase):
        raise ValueError(f"driver {name!r}: its settings must be derived from ControllerBase")  # noqa: TRY004  # as above
    return kind


@cache
def _from_outside() -> Mapping[str, EntryPoint]:
    """Word -> entry point. A word that is taken stays with who has it, and that is said."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in BUILT_IN:
            _log.warning("driver %r of %s is not used: boardhand has its own", point.name, _origin(point))
        elif point.name in found and found[point.name].value != point.value:
            other = _origin(found[point.name])
            _log.warning("driver %r of %s is not used: %s has it", point.name, _origin(point), other)
        else:
            found[point.name] = point
    return found


def _origin(point: EntryPoint) -> str:
    return f"{point.value} (package {point.dist.name if point.dist else 'unknown'})"


def _controller_settings(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    name = value.get("driver")
    if not isinstance(name, str):
        raise ValueError(f"needs driver, one of {', '.join(known_kinds())}")  # noqa: TRY004  # pydantic takes these
    return find_kind(name).settings.model_validate(dict(value))


ControllerSettings = Annotated[SerializeAsAny[ControllerBase], BeforeValidator(_controller_settings)]
"""A `[controllers.NAME]` table, checked by the class that its `driver` names."""
