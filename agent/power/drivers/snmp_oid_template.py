"""OIDs with a hole for the outlet.

A template is a dotted OID in which one part is `{outlet}`, `{outlet+K}` or `{outlet-K}`:
`1.3.6.1.4.1.20677.2.6.2.{outlet+1}.0`.
An outlet's index may have several parts (unit, bank, outlet: `1.1.3`); they all go into the hole, and K is added to the
last. A column whose OIDs follow no one rule is a list of templates, each for a range of outlets.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_ARC = 2**32 - 1
"""RFC 2578, section 3.5: a sub-identifier is at most this."""
MAX_ARCS = 128
"""RFC 2578, section 3.5: an OID has at most this many."""

Index = tuple[int, ...]

_TEMPLATE = re.compile(r"(?P<head>\d+(?:\.\d+)*)(?:\.\{outlet(?P<offset>[+-]\d{1,9})?\}(?P<tail>(?:\.\d+)*))?")
_RANGE = re.compile(r"(?P<first>\d{1,9})-(?P<last>\d{1,9})?")


def arcs(dotted: str) -> Index:
    """`1.3.6` as (1, 3, 6).

    Raises:
        ValueError: it is no dotted OID.
    """
    parts = dotted.removeprefix(".").split(".")
    if not all(part.isascii() and part.isdigit() and int(part) <= MAX_ARC for part in parts) or len(parts) > MAX_ARCS:
        raise ValueError(f"{dotted!r} is no OID: it needs numbers with dots between them, as 1.3.6.1")
    return tuple(int(part) for part in parts)


def dotted(oid: Iterable[int]) -> str:
    """(1, 3, 6) as `1.3.6`."""
    return ".".join(map(str, oid))


@dataclass(frozen=True, slots=True)
class OidTemplate:
    """One OID with at most one hole.

    Attributes:
        head: what stands before the hole; all of it where there is none.
        offset: what is added to the last part of the index; None where there is no hole.
        tail: what stands behind the hole.
        first: the least outlet (last part of its index) that this template is for; `last` the greatest.
    """

    head: Index
    offset: int | None = None
    tail: Index = ()
    first: int = 0
    last: int = MAX_ARC

    @classmethod
    def parse(cls, text: str, outlets: str = "") -> "OidTemplate":
        """Read a template, and the range of its outlets as `1-8` or `9-`.

        Raises:
            ValueError: it is none; says what one looks like.
        """
        match = _TEMPLATE.fullmatch(text.strip().removeprefix("."))
        if match is None:
            raise ValueError(f"{text!r} is no OID; write numbers with dots, and {{outlet}} where the outlet goes")
        first, last = 0, MAX_ARC
        if outlets:
            span = _RANGE.fullmatch(outlets.strip())
            if span is None:
                raise ValueError(f"{outlets!r} is no range of outlets; write 1-8, or 9- for all from 9 on")
            first, last = int(span["first"]), int(span["last"] or MAX_ARC)
            if first > last:
                raise ValueError(f"{outlets!r} is a range of no outlets: its end is before its start")
        head = arcs(match["head"])
        if "{" not in text:
            return cls(head, None, (), first, last)
        tail = arcs(match["tail"][1:]) if match["tail"] else ()
        return cls(head, int(match["offset"] or 0), tail, first, last)

    def __str__(self) -> str:
        if self.offset is None:
            return dotted(self.head)
        hole = "{outlet" + (f"{self.offset:+d}" if self.offset else "") + "}"
        return ".".join([dotted(self.head), hole, *map(str, self.tail)])

    def covers(self, index: Index) -> bool:
        """Whether this template is for the outlet."""
        return self.first <= index[-1] <= self.last and 0 <= index[-1] + (self.offset or 0) <= MAX_ARC

    def at(self, index: Index) -> str:
        """The instance of the outlet; the template has to cover it."""
        if self.offset is None:
            return dotted(self.head)
        return dotted((*self.head, *index[:-1], index[-1] + self.offset, *self.tail))

    def index_of(self, oid: Index) -> Index | None:
        """The outlet whose instance this is, None where it is none of this template."""
        cut = len(oid) - len(self.tail)
        if self.offset is None or cut <= len(self.head) or oid[: len(self.head)] != self.head or oid[cut:] != self.tail:
            return None
        hole = oid[len(self.head) : cut]
        index = (*hole[:-1], hole[-1] - self.offset)
        return index if index[-1] >= 0 and self.covers(index) else None


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity of all outlets.

    Attributes:
        templates: which OID it has, by ranges of outlets.
        mib_object: its name in the MIB, for messages.
    """

    templates: tuple[OidTemplate, ...]
    mib_object: str = ""

    def at(self, index: Index) -> str | None:
        """The instance of the outlet, None where the column has none for it."""
        return next((template.at(index) for template in self.templates if template.covers(index)), None)

    def index_of(self, oid: str) -> Index | None:
        """The outlet whose instance this is, None where it is none of this column."""
        parts = arcs(oid)
        return next((index for template in self.templates if (index := template.index_of(parts)) is not None), None)

    @property
    def is_table(self) -> bool:
        """Whether all instances follow one rule, so that a walk finds them."""
        return len(self.templates) == 1 and self.templates[0].offset is not None

    @property
    def start(self) -> str:
        """An OID after which GETNEXT finds the column's first instance."""
        template = self.templates[0]
        if self.is_table:
            return dotted(template.head)
        return template.at((template.first,)).rpartition(".")[0]

    def holds(self, oid: str, parts: int) -> bool:
        """Whether the OID is an instance of this column, of an outlet whose index has so many parts."""
        if self.templates[0].offset is None:
            return oid == dotted(self.templates[0].head)
        index = self.index_of(oid)
        return index is not None and len(index) == parts

    def __str__(self) -> str:
        return self.mib_object or str(self.templates[0])
