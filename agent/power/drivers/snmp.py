"""PDUs and PoE switches over SNMP. What families there are stands in `agent/power/families`; how one is picked in
`snmp_detection`; the talking in `snmp_session`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.snmp_detection import (
    SYS_DESCR,
    SYS_OBJECT_ID,
    Identity,
    last_resorts,
    suspects,
)
from agent.power.drivers.snmp_engine import EnginePool
from agent.power.drivers.snmp_family import DEFAULT_TIMING, Family, Value, WrongTypeError, text
from agent.power.drivers.snmp_family_files import families
from agent.power.drivers.snmp_oid_template import Column, Index
from agent.power.drivers.snmp_session import SnmpSession
from agent.power.errors import ConfigurationError, PowerError, RefusedError
from agent.power.kinds.snmp import SnmpSettings
from wire.phases import Power

MAX_OUTLETS = 512
"""A device that names more outlets than this walks in circles."""
COUNT_UP_BY = 24
"""Where outlets are scalars, no walk finds them: so many are asked for at once until none of them is there."""
REQUESTS_PER_CALL = 6
"""A call may have to find the family first, or to read many outlets."""
BY_SETTINGS = "set in the settings"
CALL_MARGIN_S = 15.0
"""For making an engine, and for a name server. An engine takes up to a second, several on a busy host, and they are
made one after the other. A device that is silent is known by the session long before."""


class SnmpDriver:
    """One device. An outlet is its index in the family's table, as `3` or `1.1.3`."""

    def __init__(self, name: str, settings: SnmpSettings, engines: EnginePool) -> None:
        self._name = name
        self._session = SnmpSession(name, settings, engines)
        self._family = settings.described_family()
        self._why = BY_SETTINGS
        self._spelling: dict[Index, str] = {}
        self._digits: dict[str, int] = {}
        self._call_timeout_s = settings.timeout_s * (settings.retries + 1) * REQUESTS_PER_CALL + CALL_MARGIN_S

    @property
    def timing(self) -> Timing:
        timing = DEFAULT_TIMING if self._family is None else self._family.timing
        return replace(timing, call_timeout_s=self._call_timeout_s)

    @property
    def reads_back(self) -> bool:
        return True

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        family = await self._known_family()
        index = self._index(family, outlet)
        control = family.control
        column, value = (control.on, control.on_value) if on else (control.off, control.off_value)
        oid = column.at(index)
        if oid is not None and control.listed:
            (read,) = await self._session.get(oid, outlet=outlet)
            try:
                relisted = control.relisted(read, index, on=on)
            except WrongTypeError as problem:
                raise self._wrong_type(column, problem, outlet) from problem
            oid, value = (None, value) if relisted is None else (oid, relisted)
        if oid is None or not await self._session.set(oid, value, control.kind, outlet=outlet):
            raise await self._missing(family, index, outlet, for_command=True)

    async def get(self, outlet: str) -> Power:
        answer = (await self.get_many([outlet]))[outlet]
        if isinstance(answer, PowerError):
            raise answer
        return answer

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        """As `ReadsMany.get_many`: one question for 24 outlets."""
        family = await self._known_family()
        found: dict[str, Power | PowerError] = {}
        places: dict[str, tuple[Index, str | None]] = {}
        for outlet in outlets:
            try:
                index = self._index(family, outlet)
            except ConfigurationError as problem:
                found[outlet] = problem
            else:
                places[outlet] = (index, family.state.column.at(index))
        oids = list(dict.fromkeys(oid for _, oid in places.values() if oid is not None))
        only = outlets[0] if len(outlets) == 1 else None
        values = await self._session.get_each(oids, outlet=only) if oids else {}
        missing: ConfigurationError | None = None
        for outlet, (index, oid) in places.items():
            power = self._power(family, index, values.get(oid) if oid is not None else None, outlet)
            if power is None:
                missing = missing or await self._missing(family, index, outlet)
                power = ConfigurationError(missing.problem, controller=self._name, outlet=outlet, do=missing.do)
            found[outlet] = power
        return found

    async def read(self, outlet: str) -> float | None:
        return (await self.read_many([outlet]))[outlet]

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        """As `ReadsMany.read_many`: one question for 24 outlets."""
        family = await self._known_family()
        watts = family.watts
        if watts is None:
            return dict.fromkeys(outlets)
        oids: dict[str, str] = {}
        digits: dict[str, str] = {}
        for outlet in outlets:
            try:
                index = self._index(family, outlet)
            except ConfigurationError:
                continue  # `get_many` says what is wrong with it
            oids |= _named(outlet, watts.column.at(index))
            digits |= _named(outlet, watts.digits.at(index) if watts.digits else None)
        asked = dict.fromkeys([*oids.values(), *(oid for oid in digits.values() if oid not in self._digits)])
        values = await self._session.get_each(list(asked)) if asked else {}
        self._digits |= {oid: said for oid in digits.values() if isinstance(said := values.get(oid), int)}
        return {
            outlet: watts.watts(
                self._value(values.get(oids.get(outlet, ""))),
                self._digits.get(digits[outlet]) if outlet in digits else 0,
            )
            for outlet in outlets
        }

    async def identify(self) -> str:
        """As `Identifies.identify`."""
        family = await self._known_family()
        if self._why != BY_SETTINGS:
            return f"{family.name}: {self._why}"
        return f"{family.name}: {BY_SETTINGS}; the device says {await self._identity()}"

    async def describe(self) -> list[OutletDescription]:
        family = await self._known_family()
        found = await self._listed_outlets(family)
        labels = family.label
        oids = {index: labels.at(index) for index, _ in found} if labels is not None else {}
        names = await self._session.get_each([oid for oid in oids.values() if oid is not None])
        return [
            OutletDescription(family.index.outlet(index), text(self._value(names.get(oids.get(index) or ""))), power)
            for index, power in found
        ]

    async def close(self) -> None:
        self._session.close()

    # --- which family ----------------------------------------------------------------------------------------------

    async def _known_family(self) -> Family:
        if self._family is None:
            self._family, self._why = await self._detect()
        return self._family

    async def _identity(self) -> Identity:
        return Identity.of(*await self._session.get(SYS_OBJECT_ID, SYS_DESCR))

    async def _detect(self) -> tuple[Family, str]:
        identity = await self._identity()
        likely = suspects(identity, families().values())
        for column_of in (_control_of, _state_of):
            for suspect in likely:
                column = column_of(suspect.family)
                if await self._answers(suspect.family, column):
                    return suspect.family, suspect.why + (f", and {column} is there" if len(likely) > 1 else "")
        rest = last_resorts(families().values(), likely)
        found = await self._find_by_control([family for family in rest if family.generic or len(likely) != 1])
        if found is not None:
            return found, f"{found.control.on} is there; it says {identity}"
        if len(likely) == 1:  # what it says of itself is clear; that it shows no outlets is said when one is asked for
            return likely[0].family, likely[0].why
        raise ConfigurationError(
            f"no known family of devices: it says {identity}, and has none of their control tables",
            controller=self._name,
            do='check host; set family, or describe the device with family = "custom"; a community or user that '
            "may only see part of the MIB looks the same",
        )

    async def _find_by_control(self, candidates: Sequence[Family]) -> Family | None:
        for at in range(0, len(candidates), COUNT_UP_BY):
            part = candidates[at : at + COUNT_UP_BY]
            answers = await self._session.get_next(*(family.control.on.start for family in part))
            for family, (oid, value) in zip(part, answers, strict=True):
                if value is not None and family.control.on.holds(oid, family.index.parts):
                    return family
        return None

    async def _answers(self, family: Family, column: Column) -> bool:
        ((oid, value),) = await self._session.get_next(column.start)
        return value is not None and column.holds(oid, family.index.parts)

    # --- outlets ---------------------------------------------------------------------------------------------------

    def _index(self, family: Family, outlet: str) -> Index:
        try:
            index = family.index.index(outlet)
        except ValueError as problem:
            raise ConfigurationError(
                str(problem), controller=self._name, outlet=outlet, do="correct the feed"
            ) from problem
        known = self._spelling.setdefault(index, outlet)
        if known != outlet:
            raise ConfigurationError(
                f"{outlet} and {known} are the same outlet",
                controller=self._name,
                outlet=outlet,
                do=f"write {known} everywhere, so that no two boards are given one outlet",
            )
        return index

    def _power(self, family: Family, index: Index, value: Value | PowerError, outlet: str) -> Power | PowerError | None:
        if isinstance(value, PowerError):
            value.outlet = outlet
            return value
        try:
            return family.state.power(value, index)
        except WrongTypeError as problem:
            return self._wrong_type(family.state.column, problem, outlet)

    @staticmethod
    def _value(answer: Value | PowerError) -> Value:
        """What is not essential (names, watts) is left out where the device fails at it."""
        return None if isinstance(answer, PowerError) else answer

    async def _listed_outlets(self, family: Family) -> list[tuple[Index, Power]]:
        """Outlets that the device says are there."""
        column = family.state.column
        rows: list[tuple[Index, Value]] = []
        if family.state.listed:
            (value,) = await self._session.get(str(column.templates[0]))
            rows = [((*family.index.prefix, at + 1), value) for at in range(len(text(value).split(",")))]
        elif column.is_table:
            for oid, value in await self._session.walk(column.start, MAX_OUTLETS):
                index = column.index_of(oid)
                if index is not None and len(index) == family.index.parts:
                    rows.append((index, value))
        else:
            rows = await self._count_up(family)
        powers = ((index, self._power(family, index, value, family.index.outlet(index))) for index, value in rows)
        return [
            (index, Power.UNKNOWN if isinstance(power, PowerError) else power)
            for index, power in powers
            if power is not None
        ]

    async def _count_up(self, family: Family) -> list[tuple[Index, Value]]:
        rows: list[tuple[Index, Value]] = []
        for first in range(family.index.first, MAX_OUTLETS, COUNT_UP_BY):
            indices = [(*family.index.prefix, number) for number in range(first, first + COUNT_UP_BY)]
            oids = {oid: index for index in indices if (oid := family.state.column.at(index)) is not None}
            values = await self._session.get_each(list(oids))
            there = [(index, self._value(values[oid])) for oid, index in oids.items()]
            rows += [(index, value) for index, value in there if value is not None]
            if all(value is None for _, value in there):
                break
        return rows

    # --- errors ----------------------------------------------------------------------------------------------------

    def _wrong_type(self, column: Column, problem: WrongTypeError, outlet: str) -> RefusedError:
        return RefusedError(
            f"the device's answer cannot be used: {column} is {problem}",
            controller=self._name,
            outlet=outlet,
            do="check family, or update the device's firmware",
        )

    async def _missing(
        self, family: Family, index: Index, outlet: str, *, for_command: bool = False
    ) -> ConfigurationError:
        """Why an outlet is not there: its number, the family, or the right to write."""
        column = family.state.column
        oid = column.at(index)
        if for_command and oid is not None:
            (value,) = await self._session.get(oid, outlet=outlet)
            if isinstance(self._power(family, index, value, outlet), Power):
                return ConfigurationError(
                    f"the device has this outlet and takes no command for it ({family.control.on} is not there)",
                    controller=self._name,
                    outlet=outlet,
                    do="use a community or user that may write, unless this model or outlet cannot switch at all",
                )
        if not await self._answers(family, column):
            if self._why != BY_SETTINGS:
                self._family = None  # another device may have taken its place: found out at the next call
            identity = await self._identity()
            better = next((one.family.name for one in suspects(identity, families().values())), family.name)
            do = "check the model"
            if better != family.name:
                by_settings = self._why == BY_SETTINGS
                do = f'set family = "{better}", or leave it out' if by_settings else "ask again: it is detected anew"
            return ConfigurationError(
                f"the device does not answer as {family.name} ({self._why}): it has no {column}; it says {identity}",
                controller=self._name,
                outlet=outlet,
                do=f"{do}; a community or user that may only see part of the MIB looks the same",
            )
        count = None if family.count is None else (await self._session.get(family.count, outlet=outlet))[0]
        return ConfigurationError(
            "the device has no such outlet" + (f": it has {count}" if isinstance(count, int) else ""),
            controller=self._name,
            outlet=outlet,
            do="correct the feed or family",
        )


def _named(outlet: str, oid: str | None) -> dict[str, str]:
    return {} if oid is None else {outlet: oid}


def _control_of(family: Family) -> Column:
    return family.control.on


def _state_of(family: Family) -> Column:
    return family.state.column


def make(name: str, settings: SnmpSettings, context: DriverContext) -> SnmpDriver:
    """The driver of one device; SNMP engines are shared by all of one agent."""
    return SnmpDriver(name, settings, context.share(EnginePool, EnginePool))
