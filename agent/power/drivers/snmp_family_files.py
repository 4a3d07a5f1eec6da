"""Reads families: our own from `agent/power/families`, one TOML file each, and a user's from a file or the settings.

The format is described in `agent/power/families/README.md`.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from agent.power.driver import Timing
from agent.power.drivers.snmp_family import (
    DEFAULT_TIMING,
    VIRTUAL_DEVICE,
    Control,
    Family,
    IndexScheme,
    State,
    ValueKind,
    Watts,
)
from agent.power.drivers.snmp_family_table import FamilyError, FamilyTable
from agent.power.drivers.snmp_oid_template import dotted

FOLDER = Path(__file__).parent.parent / "families"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_INDEX_PARTS = 6
MAX_TIMING_S = 3600
"""An hour: more is a typo."""
MAX_SCALE = 1e6
"""No device counts in more than megawatts."""
_KINDS = ("integer", "gauge", "string")


def family_names() -> list[str]:
    """Names of all families that come with boardhand."""
    return sorted(families())


@cache
def families() -> Mapping[str, Family]:
    """All families that come with boardhand, by name."""
    found = [family for file in sorted(FOLDER.glob("*.toml")) for family in families_of_file(file)]
    return MappingProxyType({family.name: family for family in found})


def families_of_file(file: Path) -> list[Family]:
    """The family that a file describes, called as the file; or several, where it has a table `variants`, whose values
    stand in its OIDs as `{variant}`.

    Raises:
        FamilyError: it cannot be read, or describes none.
    """
    try:
        text = file.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as problem:
        raise FamilyError(f"{file}: cannot be read: {problem.strerror}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise FamilyError(f"{file}: is no TOML: {problem}") from problem
    variants = FamilyTable(table, str(file)).optional("variants", dict, {file.stem: ""})
    found = []
    for name, arc in variants.items():
        if NAME.fullmatch(name) is None or not isinstance(arc, str):
            raise FamilyError(f"{file}: {name!r} cannot be the name of a family; use [a-z0-9-]")
        described = tomllib.loads(text.replace("{variant}", arc))
        described.pop("variants", None)
        found.append(replace(parse_family(name, described, str(file)), file=file.stem))
    return found


def family_of_file(file: Path) -> Family:
    """The one family of a user's file.

    Raises:
        FamilyError: it cannot be read, or describes none, or several.
    """
    found = families_of_file(file)
    if len(found) != 1:
        raise FamilyError(f"{file}: describes {len(found)} families; leave variants out")
    return found[0]


def parse_family(name: str, table: Mapping[str, Any], where: str) -> Family:
    """The family that a table describes.

    Raises:
        FamilyError: the text begins with `where` and names the key.
    """
    top = FamilyTable(table, where)
    detect, index = top.table("detect"), top.table("index")
    descr = detect.optional("descr", str, "")
    try:
        pattern = re.compile(descr) if descr else None
    except re.error as problem:
        raise detect.wrong("descr", f"is no regular expression: {problem}") from problem
    scheme = _index(index)
    family = Family(
        name=name,
        vendor=top.optional("vendor", str, ""),
        models=top.optional("models", str, ""),
        source=top.optional("source", str, ""),
        caution=top.optional("caution", str, ""),
        recordings=tuple(top.items("recordings", str)),
        verified_by=top.optional("verified_by", str, VIRTUAL_DEVICE),
        object_ids=tuple(detect.oid(oid, "object_ids") for oid in detect.items("object_ids", str)),
        descr=pattern,
        rank=detect.optional("rank", int, 1),
        generic=detect.optional("generic", bool, False),
        index=scheme,
        state=_state(top.table("state", needed=True)),
        control=_control(top.table("control", needed=True)),
        label=top.table("name").column("oid") if "name" in table else None,
        count=dotted(top.oid(top.optional("count", str, ""), "count")) if "count" in table else None,
        watts=_watts(top.table("watts")) if "watts" in table else None,
        timing=_timing(top.table("timing")),
    )
    top.done("detect", "index", "state", "control", "name", "watts", "timing")
    detect.done()
    return family


def _index(table: FamilyTable) -> IndexScheme:
    parts = table.optional("parts", int, 1)
    prefix_text = table.optional("prefix", str, "")
    prefix = table.oid(prefix_text, "prefix") if prefix_text else ()
    first = table.optional("first", int, 1)
    if not 1 <= parts <= MAX_INDEX_PARTS:
        raise table.wrong("parts", f"must be from 1 to {MAX_INDEX_PARTS}")
    if prefix and len(prefix) != parts - 1:
        raise table.wrong("prefix", f"must have {parts - 1} parts, one less than the index")
    if first < 0:
        raise table.wrong("first", "must not be negative")
    table.done()
    return IndexScheme(parts, prefix, first)


def _state(table: FamilyTable) -> State:
    state = State(
        column=table.column("oid", hole=not table.peek("listed")),
        on=frozenset(table.items("on", int, str, needed=True)),
        off=frozenset(table.items("off", int, str, needed=True)),
        between=frozenset(table.items("between", int, str)),
        absent=frozenset(table.items("absent", int, str)),
        listed=table.optional("listed", bool, False),
    )
    groups = (state.on, state.off, state.between, state.absent)
    if len(frozenset().union(*groups)) != sum(map(len, groups)):
        raise table.wrong("on", "one value stands in two of on, off, between and absent")
    if len({type(value) for group in groups for value in group}) > 1:
        raise table.wrong("on", "values must be all numbers or all texts")
    table.done()
    return state


def _control(table: FamilyTable) -> Control:
    listed = table.optional("listed", bool, False)
    if table.peek("oid") is not None:
        on = off = table.column("oid", hole=not listed)
    else:
        on = table.column("on_oid", "on_mib", hole=not listed)
        off = table.column("off_oid", "off_mib", hole=not listed)
    on_value, off_value = table.needed("on", int, str), table.needed("off", int, str)
    kind = table.optional("type", str, "string" if isinstance(on_value, str) else "integer")
    if kind not in _KINDS:
        raise table.wrong("type", f"must be one of {', '.join(_KINDS)}")
    if not listed and any(isinstance(value, str) != (kind == "string") for value in (on_value, off_value)):
        raise table.wrong("type", f"is {kind}, and on and off are not")
    if on == off and on_value == off_value:
        raise table.wrong("on", "is the same as off")
    table.done()
    return Control(on, off, on_value, off_value, cast("ValueKind", kind), listed)


def _watts(table: FamilyTable) -> Watts:
    scale = table.optional("scale", float, 1.0)
    if not 0 < scale <= MAX_SCALE:
        raise table.wrong("scale", "must be above 0: watts per unit of the value")
    digits = table.column("digits_oid", "digits_mib") if table.peek("digits_oid") else None
    watts = Watts(table.column("oid"), scale, digits, frozenset(table.items("unmeasured", int)))
    table.done()
    return watts


def _timing(table: FamilyTable) -> Timing:
    table.optional("reason", str, "")
    given: dict[str, Any] = {}
    for key in (item.name for item in fields(Timing) if table.peek(item.name) is not None):
        given[key] = table.needed(key, int if key == "attempts" else float)
        if not 0 < given[key] <= MAX_TIMING_S:
            raise table.wrong(key, f"must be above 0 and at most {MAX_TIMING_S}")
    table.done()
    return replace(DEFAULT_TIMING, **given)
