"""What is different between two settings, key by key, and which of it a running agent can take up.

No I/O. `apply(old, diff(old, new)) == new`; with only some of the changes, what lies between the two.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from agent.settings import AgentSettings
from daemon.settings_file import Path_

NAMED_TABLES = ("profiles", "circuits", "controllers", "boards")
"""`[boards.NAME]` and the like: entries come and go by themselves."""
_CONNECTION = "the agent has one connection to the MQTT server, and its will stands there"
_SERVERS = "its sockets, leases and workers are made at the start"
RESTART: Mapping[Path_, str] = {
    ("agent", "name"): "everything that was said of the agent and its boards carries it",
    ("agent", "state_dir"): "the journal and the outbox in it are in use",
    ("agent", "outbox_max_events"): "the outbox is in use",
    ("agent", "meter_every_s"): "what was metered so far goes by it",
    ("mqtt",): _CONNECTION,
    ("netboot",): _SERVERS,
    ("dns",): "the names that were told to the DNS server go by it",
    ("roots",): "boards run from what is exported",
    ("pdu_listener",): _SERVERS,
    ("consoles",): "all consoles and who looks at them go by it",
    ("flash",): "images and scratch files are where it says",
    ("log",): "the log is set up before anything else",
}
"""Keys, or whole tables, that only a restart takes up, and why. The longest one that fits counts."""
LIVE = frozenset({("netboot", "joining"), ("netboot", "joining_profile"), ("netboot", "mqtt_for_boards")})
"""Exceptions from the above."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key that is another now.

    Attributes:
        key: the path of the table or key.
        old: what stood there; None where it was absent.
        new: what stands there now; None where it is absent. Whether it was removed says `removed`.
        added: an entry of a named table is new.
        removed: an entry of a named table is gone.
    """

    key: Path_
    old: Any
    new: Any
    added: bool = False
    removed: bool = False

    @property
    def name(self) -> str:
        """The key as it is written."""
        return ".".join(self.key)

    @property
    def what(self) -> str:
        """`added`, `removed` or `changed`."""
        return "added" if self.added else "removed" if self.removed else "changed"

    @property
    def restart(self) -> str | None:
        """Why only a restart takes it up; None where it can be taken up now."""
        if self.key in LIVE:
            return None
        found = [path for path in RESTART if self.key[: len(path)] == path]
        return RESTART[max(found, key=len)] if found else None


def diff(old: AgentSettings, new: AgentSettings) -> list[Change]:
    """All keys that are different, in the order of the settings' tables."""
    changes: list[Change] = []
    for table in AgentSettings.model_fields:
        before, after = getattr(old, table), getattr(new, table)
        if before == after:
            continue
        if table in NAMED_TABLES:
            changes += _entries(table, before, after)
        else:
            changes += _keys((table,), before, after)
    return changes


def _entries(table: str, before: Mapping[str, BaseModel], after: Mapping[str, BaseModel]) -> Iterator[Change]:
    for name in [*before, *(name for name in after if name not in before)]:
        key = (table, name)
        if name not in after:
            yield Change(key, before[name], None, removed=True)
        elif name not in before:
            yield Change(key, None, after[name], added=True)
        elif before[name] != after[name]:
            yield from _keys(key, before[name], after[name])


def _keys(key: Path_, before: Any, after: Any) -> Iterator[Change]:
    """One level of keys: what is below them is taken up together. A table of another kind (a controller with another
    driver) is changed as a whole."""
    if not isinstance(before, BaseModel) or type(before) is not type(after):
        yield Change(key, before, after)
        return
    for name in type(before).model_fields:
        one, other = getattr(before, name), getattr(after, name)
        if one != other:
            yield Change((*key, name), one, other)


def apply(settings: AgentSettings, changes: Iterable[Change]) -> AgentSettings:
    """`settings` with these changes."""
    tables: dict[str, Any] = {}
    for change in changes:
        table, *rest = change.key
        if not rest:
            tables[table] = change.new
        elif table in NAMED_TABLES:
            entries = tables.setdefault(table, dict(getattr(settings, table)))
            _apply_entry(entries, rest, change)
        else:
            standing = tables.get(table, getattr(settings, table))
            tables[table] = standing.model_copy(update={rest[0]: change.new})
    return settings.model_copy(update=tables)


def _apply_entry(entries: dict[str, Any], rest: list[str], change: Change) -> None:
    name = rest[0]
    if change.removed:
        del entries[name]
    elif len(rest) == 1:
        entries[name] = change.new
    else:
        entries[name] = entries[name].model_copy(update={rest[1]: change.new})


def touched(changes: Iterable[Change], table: str) -> dict[str, set[str]]:
    """The entries of a named table that are different: name -> the keys that are; none for one that came or went, or
    is of another kind."""
    found: dict[str, set[str]] = {}
    for change in changes:
        if change.key[0] == table:
            found.setdefault(change.key[1], set()).update(change.key[2:3])
    return found
