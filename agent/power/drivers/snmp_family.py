"""What is known of one family of SNMP devices: which objects hold state, command, name and watts, and what the numbers
mean. The knowledge itself stands in `agent/power/families`, one small file each; `snmp_family_files` reads them.

The numbers differ inside one MIB: rPDU2 says 1 = off and 2 = on in its status, and takes 1 = on and 2 = off as command.
"""

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Literal

from agent.power.driver import Timing
from agent.power.drivers.snmp_oid_template import Column, Index, arcs, dotted
from wire.phases import Power

Value = int | bytes | str | None
"""What a device answers: an integer of any kind, octets, an OID as text, or None where it has no such instance."""
ValueKind = Literal["integer", "gauge", "string"]
"""As what a command is written: INTEGER, Gauge32 (Unsigned32) or OCTET STRING."""

VIRTUAL_DEVICE = "virtual device of its MIB"
SIGN_BIT = 2**31
"""Some agents send -1 as 4294967295."""

DEFAULT_TIMING = Timing(verify_deadline_s=20.0, poll_interval_s=0.02, settle_s=3.0, min_off_s=3.0, attempts=3)
"""For PDUs of which nothing better is known, from those that are. A mains outlet feeds a supply with big capacitors:
2 s without mains is too short for some, 3 s was seen to do. The read-back follows after 1.5-2.5 s on some APC cards
(HA core #155182), and SONiC's lab had to raise its wait to 20 s (sonic-mgmt #13793)."""


class WrongTypeError(ValueError):
    """A device answered with a value that the family's object cannot have."""


@dataclass(frozen=True, slots=True)
class IndexScheme:
    """How outlets are numbered.

    Attributes:
        parts: how many parts an index has: 1 for an outlet's number, 2 for unit and outlet.
        prefix: what a plain number stands behind, on the usual single unit; empty where there is no usual one.
        first: the least number of an outlet.
    """

    parts: int = 1
    prefix: Index = ()
    first: int = 1

    def index(self, outlet: str) -> Index:
        """The index of an outlet as written in a feed.

        Raises:
            ValueError: it cannot be an outlet of this family; the text says what one looks like.
        """
        try:
            parts = arcs(outlet)
        except ValueError:
            parts = ()
        index = (*self.prefix, *parts) if len(parts) == 1 and self.prefix else parts
        if len(index) != self.parts or dotted(parts) != outlet or index[-1] < self.first:
            raise ValueError(f"an outlet of this device is {self.words}")
        return index

    def outlet(self, index: Index) -> str:
        """The outlet as a feed names it, short where it may be."""
        return dotted(index[-1:] if self.prefix and index[:-1] == self.prefix else index)

    @property
    def words(self) -> str:
        """What an outlet looks like, for people."""
        if self.parts == 1:
            return f"a number from {self.first}"
        full = f"{self.parts} numbers with dots, as {dotted((*(1,) * (self.parts - 1), 3))}"
        return f"{full}, or 3 for {dotted((*self.prefix, 3))}" if self.prefix else full


@dataclass(frozen=True, slots=True)
class State:
    """Where the state is read, and what its values mean; one that stands nowhere is unknown.

    Attributes:
        between: on its way, or not to be told; unknown. Named so that a file accounts for all values of its MIB.
        absent: the outlet is not there.
        listed: one string for all outlets, with commas: the first outlet's value stands first.
    """

    column: Column
    on: frozenset[int | str]
    off: frozenset[int | str]
    between: frozenset[int | str] = frozenset()
    absent: frozenset[int | str] = frozenset()
    listed: bool = False

    def power(self, value: Value, index: Index) -> Power | None:
        """What the answer says of the outlet; None where it says that there is no such outlet.

        Raises:
            WrongTypeError: no such object can have this value.
        """
        word = self._word(value, index)
        if word is None or word in self.absent:
            return None
        if word in self.on:
            return Power.ON
        return Power.OFF if word in self.off else Power.UNKNOWN

    def _word(self, value: Value, index: Index) -> int | str | None:
        if value is None or isinstance(value, int):
            if isinstance(value, int) and (self.listed or self._is_text):
                raise WrongTypeError(f"{value} where a text is expected")
            return value
        said = text(value)
        if self.listed:
            values = [part.strip() for part in said.split(",")]
            said = values[index[-1] - 1] if 0 < index[-1] <= len(values) else ""
            if not said:
                return None
        elif self._is_text:
            return said
        try:
            return int(said) if self.listed else _no_number(said)
        except ValueError as problem:
            raise WrongTypeError(f"{said!r} where a number is expected") from problem

    @property
    def _is_text(self) -> bool:
        return any(isinstance(word, str) for word in self.on)


def _no_number(said: str) -> int:
    raise WrongTypeError(f"the text {said!r} where a number is expected")


@dataclass(frozen=True, slots=True)
class Control:
    """What is written where to switch at once.

    Attributes:
        on: column for on, and `on_value` what is written there; `off` likewise. Mostly the same column.
        listed: one string for all outlets, as `State.listed`: it is read, changed in one place and written back.
    """

    on: Column
    off: Column
    on_value: int | str
    off_value: int | str
    kind: ValueKind = "integer"
    listed: bool = False

    def relisted(self, value: Value, index: Index, *, on: bool) -> str | None:
        """The string to write for all outlets, with this one's place changed; None where it has no such place.

        What happens to another outlet between reading and writing is undone by this: there is no better way with
        such a device. Places that say -1 (not there) or -2 (lost) are written back as they were read.

        Raises:
            WrongTypeError: what was read is no such string.
        """
        if value is None:
            return None
        if isinstance(value, int):
            raise WrongTypeError(f"{value} where a text with commas is expected")
        places = [part.strip() for part in text(value).split(",")]
        at = index[-1] - 1
        if not 0 <= at < len(places) or places[at] in {"", "-1"}:
            return None
        places[at] = str(self.on_value if on else self.off_value)
        return ",".join(places)


@dataclass(frozen=True, slots=True)
class Watts:
    """Where active power is read.

    Attributes:
        scale: watts per unit of the value, 0.1 for tenths of a watt.
        digits: where a device says by which power of ten its value has to be divided.
        unmeasured: values that mean that this outlet is not measured. Negative ones, those that are a negative one
            sent without its sign, and words mean it everywhere.
    """

    column: Column
    scale: float = 1.0
    digits: Column | None = None
    unmeasured: frozenset[int] = frozenset()

    def watts(self, value: Value, digits: Value = 0) -> float | None:
        """Watts, or None where this outlet is not measured."""
        if value is None or (isinstance(value, int) and value in self.unmeasured):
            return None
        try:
            number = Decimal(value if isinstance(value, int) else text(value))
        except InvalidOperation:  # ATEN says "N/A" and "not-support"
            return None
        if not number.is_finite() or not 0 <= number < SIGN_BIT or not isinstance(digits, int) or not 0 <= digits <= 9:
            return None
        return float(number * Decimal(str(self.scale)) / 10**digits)


@dataclass(frozen=True, slots=True)
class Family:
    """One family of devices.

    Attributes:
        name: as in `family = "..."`.
        file: name of the file that describes it.
        vendor: who makes them; `models` which ones.
        source: MIB or document from which this is known.
        object_ids: beginnings of the sysObjectID of its members.
        descr: matches the sysDescr of members whose sysObjectID says nothing.
        rank: among families that a device may be as well, the lower one is asked first.
        generic: a standard that devices of any maker may speak, looked for when nothing else fits.
        count: scalar with the number of outlets, for messages.
        recordings: of real devices, with which this was compared: `NAME` or `NAME: what of it`.
        verified_by: what else it was compared with.
        caution: what a user has to know.
    """

    name: str
    state: State
    control: Control
    vendor: str = ""
    models: str = ""
    source: str = ""
    object_ids: tuple[Index, ...] = ()
    descr: re.Pattern[str] | None = None
    rank: int = 1
    generic: bool = False
    index: IndexScheme = field(default_factory=IndexScheme)
    label: Column | None = None
    count: str | None = None
    watts: Watts | None = None
    timing: Timing = DEFAULT_TIMING
    recordings: tuple[str, ...] = ()
    verified_by: str = VIRTUAL_DEVICE
    caution: str = ""
    file: str = ""


def text(value: Value) -> str:
    """Octets as text; a device's NUL and white space at the end are dropped."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return "" if value is None else str(value).rstrip("\0 \t\r\n")
