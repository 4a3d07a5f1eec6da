"""Tables of a family's file, read with errors that name file and key."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from agent.power.drivers.snmp_oid_template import Column, Index, OidTemplate, arcs

T = TypeVar("T")


class FamilyError(ValueError):
    """A family is described wrongly; the text names file and key."""


class FamilyTable:
    """One table of a family, which knows where it stands and which keys were asked for."""

    def __init__(self, table: Mapping[str, Any], where: str, path: str = "") -> None:
        self._table = table
        self._where = where
        self._path = path
        self._asked: set[str] = set()

    def wrong(self, key: str, problem: str) -> FamilyError:
        return FamilyError(f"{self._where}: {self._path}{key} {problem}")

    def done(self, *also: str) -> None:
        """Refuse keys that nobody asked for: they are typos."""
        for key in self._table:
            if key not in self._asked and key not in also:
                raise self.wrong(str(key), f"is no such key; known are {', '.join(sorted({*self._asked, *also}))}")

    def peek(self, key: str) -> Any:
        return self._table.get(key)

    def optional(self, key: str, kind: type[T], default: T) -> T:
        self._asked.add(key)
        return default if key not in self._table else cast("T", self.needed(key, kind))

    def needed(self, key: str, *kinds: type) -> Any:
        self._asked.add(key)
        if key not in self._table:
            raise self.wrong(key, "is missing")
        value = self._table[key]
        if float in kinds and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.wrong(key, f"must be {' or '.join(kind.__name__ for kind in kinds)}, and is {value!r}")
        return value

    def items(self, key: str, *kinds: type, needed: bool = False) -> list[Any]:
        """A list; a single value stands for a list of one."""
        self._asked.add(key)
        if key not in self._table and not needed:
            return []
        value = self.needed(key, list, *kinds)
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, kinds) and not isinstance(item, bool) for item in items):
            raise self.wrong(key, f"must hold {' or '.join(kind.__name__ for kind in kinds)} only")
        return items

    def table(self, key: str, *, needed: bool = False) -> "FamilyTable":
        if needed or key in self._table:
            return FamilyTable(self.needed(key, Mapping), self._where, f"{self._path}{key}.")
        self._asked.add(key)
        return FamilyTable({}, self._where, f"{self._path}{key}.")

    def oid(self, value: str, key: str) -> Index:
        try:
            return arcs(value)
        except ValueError as problem:
            raise self.wrong(key, f"is wrong: {problem}") from problem

    def column(self, key: str, mib: str = "mib", *, hole: bool = True) -> Column:
        """A column: one template, or a list of tables with a range of outlets each."""
        value = self.needed(key, str, list)
        pieces = [{"oid": value}] if isinstance(value, str) else value
        templates = []
        for piece in pieces:
            if not (
                isinstance(piece, Mapping) and isinstance(piece.get("oid"), str) and {*piece} <= {"oid", "outlets"}
            ):
                raise self.wrong(key, 'must be an OID, or a list of tables with outlets = "1-8" and oid')
            try:
                templates.append(OidTemplate.parse(piece["oid"], str(piece.get("outlets", ""))))
            except ValueError as problem:
                raise self.wrong(key, f"is wrong: {problem}") from problem
        if not templates or any((template.offset is not None) != hole for template in templates):
            raise self.wrong(key, "needs {outlet} where the outlet's number goes" if hole else "must be one whole OID")
        return Column(tuple(templates), self.optional(mib, str, ""))
