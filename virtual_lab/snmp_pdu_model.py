"""The words in which the models of virtual PDUs are written: values, instances, columns.

A model (`virtual_lab.pdu_models`) is a function from `Columns` to instances. It is written from the vendor's MIB, not
from our driver's family data, so that one checks the other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

Oid = tuple[int, ...]
ENTERPRISES: Oid = (1, 3, 6, 1, 4, 1)
SYSTEM: Oid = (1, 3, 6, 1, 2, 1, 1)


class Gauge(int):
    """A Gauge32 or Unsigned32, which share their tag (RFC 2578, section 7.1.11)."""


class Counter32(int):
    """A Counter32."""


class Counter64(int):
    """A Counter64; SNMPv1 cannot carry it."""


class TimeTicks(int):
    """TimeTicks, hundredths of a second."""


class IpAddress(bytes):
    """An IpAddress, four octets."""


class Opaque(bytes):
    """An Opaque."""


Value = int | str | bytes | Oid
"""What an instance holds: a plain int is an INTEGER, str and bytes are OCTET STRINGs, a tuple is an OID."""


class Act(Enum):
    """What a written value makes an outlet do."""

    ON = auto()
    OFF = auto()
    REBOOT = auto()
    DELAYED_ON = auto()
    DELAYED_OFF = auto()
    DELAYED_REBOOT = auto()
    CANCEL = auto()
    NOTHING = auto()
    """Accepted without effect: idle, none, identify."""


class RefusedSetError(Exception):
    """A SET that the PDU answers with `status` (a name of RFC 3416, section 3). `at` counts bindings from 0."""

    def __init__(self, status: str, at: int = 0) -> None:
        super().__init__(status)
        self.status = status
        self.at = at


class Outlets(Protocol):
    """The outlets behind the tables; `virtual_lab.snmp_pdu.VirtualPdu`."""

    on: dict[str, bool]
    refusing: set[str]
    missing: set[str]
    idle: set[str]
    unswitched: frozenset[str]
    sets: list[tuple[str, int]]
    wrong_index: bool
    wrong_type: bool

    def name(self, outlet: str) -> str: ...
    def watts(self, outlet: str) -> int: ...
    def pending(self, outlet: str) -> bool | None: ...
    def seconds_left(self, outlet: str) -> int | None: ...
    def act(self, outlet: str, act: Act, after_s: float = 0.0) -> None: ...
    def carry_out(self, actions: list[Callable[[], None]]) -> None: ...


Write = Callable[[Value], Callable[[], None]]
"""Given a value of the right type, either raises RefusedSetError or returns what the SET does."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of an object.

    Attributes:
        write: None where the object is read-only.
        accepts: the exact type that a SET must carry; anything else is answered wrongType.
        outlet: the outlet it belongs to, None for the device's own objects.
    """

    read: Callable[[], Value]
    write: Write | None = None
    accepts: type = int
    outlet: str | None = None


Instances = dict[Oid, Instance]
Column = Callable[[str], Instance]
"""Makes the instance of one outlet."""


@dataclass(frozen=True, slots=True)
class PduModel:
    """A device of one family.

    Attributes:
        sys_object_id: what sysObjectID.0 holds.
        sys_descr: what sysDescr.0 holds; in the words of a real device where one was seen.
        build: makes its tables.
    """

    name: str
    sys_object_id: Oid
    sys_descr: str
    build: Callable[["Columns"], Instances]


class Columns:
    """Makes columns and scalars over the outlets of one PDU."""

    def __init__(self, outlets: Outlets) -> None:
        self.outlets = outlets
        self._last: dict[str, int] = {}

    # --- shapes ------------------------------------------------------------------------------------------------

    def table(
        self, entry: Oid, columns: Mapping[int, Column], index: Callable[[int], Oid] = lambda n: (n,)
    ) -> Instances:
        """A table: `entry`, column, index of the outlet (counted from 1)."""
        return {
            (*entry, number, *index(int(outlet))): make(outlet)
            for number, make in columns.items()
            for outlet in self.outlets.on
        }

    def objects(self, place: Callable[[int], Oid], column: Column) -> Instances:
        """One object per outlet at a place that is no table's."""
        return {place(int(outlet)): column(outlet) for outlet in self.outlets.on}

    def count(self) -> Instance:
        return Instance(lambda: len(self.outlets.on))

    @staticmethod
    def fixed(value: Value) -> Instance:
        return Instance(lambda: value)

    # --- columns to read -----------------------------------------------------------------------------------------

    def same(self, value: Value) -> Column:
        """The same value in every row."""
        return lambda outlet: Instance(lambda: value, outlet=outlet)

    def number(self, offset: int = 0) -> Column:
        return lambda outlet: Instance(lambda: int(outlet) + offset, outlet=outlet)

    def name(self) -> Column:
        return lambda outlet: Instance(lambda: self.outlets.name(outlet), outlet=outlet)

    def text(self, make: Callable[[int], str]) -> Column:
        return lambda outlet: Instance(lambda: make(int(outlet)), outlet=outlet)

    def state(self, *, on: int, off: int, pending_on: int | None = None, pending_off: int | None = None) -> Column:
        """The outlet's state; the pending values, where given, while a command has not been carried out yet."""

        def make(outlet: str) -> Instance:
            return Instance(lambda: self._state(outlet, on, off, pending_on, pending_off), outlet=outlet)

        return make

    def _state(self, outlet: str, on: int, off: int, pending_on: int | None, pending_off: int | None) -> int:
        target = self.outlets.pending(outlet)
        if target is True and pending_on is not None:
            return pending_on
        if target is False and pending_off is not None:
            return pending_off
        return on if self.outlets.on[outlet] else off

    def pending(self, *, yes: int, no: int) -> Column:
        return lambda outlet: Instance(lambda: no if self.outlets.pending(outlet) is None else yes, outlet=outlet)

    def switchable(self, *, yes: int, no: int) -> Column:
        return lambda outlet: Instance(lambda: no if outlet in self.outlets.unswitched else yes, outlet=outlet)

    def watts(self, make: Callable[[int], Value] = lambda watts: watts) -> Column:
        """The outlet's draw; `make` turns watts into the device's unit and type."""
        return lambda outlet: Instance(lambda: make(self.outlets.watts(outlet)), outlet=outlet)

    # --- columns to command --------------------------------------------------------------------------------------

    def command(self, acts: Mapping[int, Act], reads: Column | None = None, kind: type[int] = int) -> Column:
        """A column whose values are commands. It reads as `reads`, or else as the last command written."""
        if_on = next(value for value, act in acts.items() if act is Act.ON)
        if_off = next(value for value, act in acts.items() if act is Act.OFF)

        def make(outlet: str) -> Instance:
            def last() -> Value:
                return kind(self._last.get(outlet, if_on if self.outlets.on[outlet] else if_off))

            def write(value: Value) -> Callable[[], None]:
                self._note(outlet, value)
                if not isinstance(value, int) or value not in acts:
                    raise RefusedSetError("wrongValue")

                def carry_out() -> None:
                    self._last[outlet] = value
                    self.outlets.act(outlet, acts[value])

                return carry_out

            return Instance(
                last if reads is None else reads(outlet).read, self._unless_fixed(outlet, write), kind, outlet
            )

        return make

    def seconds(self, act: Act, *, only_now: bool = False) -> Column:
        """A column that takes the seconds until the act: 0 is now, -1 cancels; it reads as what is left, or -1."""

        def make(outlet: str) -> Instance:
            def left() -> int:
                target = self.outlets.pending(outlet)
                seconds = self.outlets.seconds_left(outlet)
                mine = target is not None and target == (act is Act.ON)
                return -1 if seconds is None or not mine else seconds

            def write(value: Value) -> Callable[[], None]:
                self._note(outlet, value)
                if not isinstance(value, int) or value < -1 or (only_now and value > 0):
                    raise RefusedSetError("wrongValue")
                if value < 0:
                    return lambda: self.outlets.act(outlet, Act.CANCEL)
                return lambda: self.outlets.act(outlet, act, after_s=float(value))

            return Instance(left, self._unless_fixed(outlet, write), int, outlet)

        return make

    def _unless_fixed(self, outlet: str, write: Write) -> Write | None:
        return None if outlet in self.outlets.unswitched else write

    def _note(self, outlet: str, value: Value) -> None:
        """Count the SET; an outlet that is told to refuse answers genErr."""
        self.outlets.sets.append((outlet, value if isinstance(value, int) else -1))
        if outlet in self.outlets.refusing:
            raise RefusedSetError("genErr")


def oid(text: str) -> Oid:
    """An OID from its dotted text."""
    return tuple(int(part) for part in text.split("."))
