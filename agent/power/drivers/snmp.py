"""PDUs over SNMP. Which columns and numbers a family has stands in `snmp_families`; the talking in `snmp_session`."""

from dataclasses import replace
from typing import Any

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.snmp_families import FAMILIES, Family
from agent.power.drivers.snmp_session import SYS_OBJECT_ID, EnginePool, SnmpSession
from agent.power.errors import ConfigurationError
from agent.power.kinds.snmp import SnmpSettings
from wire.phases import Power

MAX_OUTLETS = 256
"""A device that names more outlets than this walks in circles."""
DETECTION_REQUESTS = 5
"""A call may have to find the family first: sysObjectID, then each family's control column."""
CALL_MARGIN_S = 3.0
"""For making an engine, and for a name server."""


class SnmpDriver:
    """One PDU. An outlet is its index in the family's table, as `3`."""

    def __init__(self, name: str, settings: SnmpSettings, engines: EnginePool) -> None:
        self._name = name
        self._session = SnmpSession(name, settings, engines)
        self._settings = settings
        self._family: Family | None = None if settings.family == "auto" else FAMILIES[settings.family]
        requests = DETECTION_REQUESTS if self._family is None else 1
        self._call_timeout_s = settings.timeout_s * (settings.retries + 1) * requests + CALL_MARGIN_S

    @property
    def timing(self) -> Timing:
        family = self._family or next(iter(FAMILIES.values()))
        return replace(family.timing, call_timeout_s=self._call_timeout_s)

    @property
    def reads_back(self) -> bool:
        return True

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        family = await self._known_family()
        self._check(outlet)
        value = family.on if on else family.off
        await self._session.set_integer(family.control.at(outlet), value, outlet=outlet)

    async def get(self, outlet: str) -> Power:
        family = await self._known_family()
        self._check(outlet)
        (value,) = await self._session.get(family.state.at(outlet), outlet=outlet)
        if value is None:
            raise await self._no_such_outlet(family, outlet)
        return family.states.get(_integer(value), Power.UNKNOWN)

    async def read(self, outlet: str) -> float | None:
        family = await self._known_family()
        self._check(outlet)
        if family.watts is None:
            return None
        (value,) = await self._session.get(family.watts.at(outlet), outlet=outlet)
        watts = -1 if value is None else _integer(value)
        return float(watts) if watts >= 0 else None  # PDUs say -1 for an outlet that they do not measure

    async def describe(self) -> list[OutletDescription]:
        family = await self._known_family()
        columns = (family.state.oid, family.label.oid)
        found: list[OutletDescription] = []
        at = columns
        while len(found) < MAX_OUTLETS:
            (state_oid, state), (label_oid, label) = await self._session.get_next(*at)
            outlet = state_oid.removeprefix(family.state.oid + ".")
            if state is None or outlet == state_oid:
                break
            name = str(label) if label is not None and label_oid == family.label.at(outlet) else ""
            found.append(OutletDescription(outlet, name, family.states.get(_integer(state), Power.UNKNOWN)))
            at = (state_oid, family.label.at(outlet))
        return found

    async def close(self) -> None:
        self._session.close()

    async def _known_family(self) -> Family:
        if self._family is None:
            self._family = await self._detect()
        return self._family

    async def _detect(self) -> Family:
        (object_id,) = await self._session.get(SYS_OBJECT_ID)
        for family in FAMILIES.values():
            ((oid, value),) = await self._session.get_next(family.control.oid)
            if value is not None and oid.startswith(family.control.oid + "."):
                return family
        raise ConfigurationError(
            f"no known family of PDUs (sysObjectID {object_id}): it has none of their control tables",
            controller=self._name,
            do=f"check host; set family to one of {', '.join(FAMILIES)} if it is one of them; a community that may "
            "only see part of the MIB looks the same",
        )

    def _check(self, outlet: str) -> None:
        if not outlet.isascii() or not outlet.isdigit() or outlet.startswith("0"):
            raise ConfigurationError(
                "an outlet of a PDU is a number from 1", controller=self._name, outlet=outlet, do="correct the feed"
            )

    async def _no_such_outlet(self, family: Family, outlet: str) -> ConfigurationError:
        (count,) = await self._session.get(family.count, outlet=outlet)
        has = "" if count is None else f": it has {count}"
        return ConfigurationError(
            f"the PDU has no such outlet{has}", controller=self._name, outlet=outlet, do="correct the feed or family"
        )


def _integer(value: Any) -> int:
    """An INTEGER as int; -1 for anything else, which no family has as a state."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return -1


def make(name: str, settings: SnmpSettings, context: DriverContext) -> SnmpDriver:
    """The driver of one PDU; SNMP engines are shared by all of one agent."""
    return SnmpDriver(name, settings, context.share(EnginePool, EnginePool))
