"""Which family a device belongs to, from what it says of itself. No I/O: the driver asks, this decides.

Order: the sysObjectID's longest known beginning; where it says nothing (empty, or net-snmp's own, which every second
maker leaves in), sysDescr; then standards that anybody may speak. Families that fit equally well are told apart by
asking for their control column.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.power.drivers.snmp_family import Family, Value, text
from agent.power.drivers.snmp_oid_template import arcs

SYS_DESCR = "1.3.6.1.2.1.1.1.0"
SYS_OBJECT_ID = "1.3.6.1.2.1.1.2.0"
"""RFC 3418, system group."""
MEANINGLESS = ((1, 3, 6, 1, 4, 1, 8072, 3, 2), (0, 0))
"""Beginnings of a sysObjectID that tell nothing of the device: net-snmp's, and zeroDotZero."""
MAX_DESCR_CHARACTERS = 80
"""So much of sysDescr stands in messages."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device says of itself; empty where it says nothing."""

    object_id: str = ""
    descr: str = ""

    @classmethod
    def of(cls, object_id: Value, descr: Value) -> "Identity":
        """From the answers to sysObjectID and sysDescr."""
        return cls(object_id if isinstance(object_id, str) else "", " ".join(text(descr).split()))

    def __str__(self) -> str:
        short = self.descr[:MAX_DESCR_CHARACTERS] + ("..." if len(self.descr) > MAX_DESCR_CHARACTERS else "")
        said = [f"sysObjectID {self.object_id}"] if self.object_id else []
        said += [f"sysDescr {short!r}"] if short else []
        return ", ".join(said) or "neither sysObjectID nor sysDescr"


@dataclass(frozen=True, slots=True)
class Suspect:
    """A family that the device may be of, and why that is thought."""

    family: Family
    why: str


def suspects(identity: Identity, families: Iterable[Family]) -> list[Suspect]:
    """Families that fit, the likeliest first; empty where what the device says fits none."""
    known = list(families)
    object_id = arcs(identity.object_id) if identity.object_id else ()
    if object_id and not any(object_id[: len(empty)] == empty for empty in MEANINGLESS):
        fitting = [(-length, family.rank, family) for family in known if (length := _fits(family, object_id))]
        fitting.sort(key=lambda one: one[:2])
        if fitting:
            return [Suspect(family, f"sysObjectID {identity.object_id}") for _, _, family in fitting]
    return [
        Suspect(family, f"sysDescr {identity.descr[:MAX_DESCR_CHARACTERS]!r}")
        for family in sorted(known, key=lambda family: family.rank)
        if family.descr is not None and family.descr.search(identity.descr)
    ]


def last_resorts(families: Iterable[Family], asked: Sequence[Suspect]) -> list[Family]:
    """Families to look for by their control column alone: standards first, then all others."""
    tried = {suspect.family.name for suspect in asked}
    left = [family for family in families if family.name not in tried]
    return sorted(left, key=lambda family: (not family.generic, family.rank))


def _fits(family: Family, object_id: tuple[int, ...]) -> int:
    """How long the longest beginning of the family is that fits; 0 for none."""
    return max((len(start) for start in family.object_ids if object_id[: len(start)] == start), default=0)
