"""Boards that were learnt, put into settings that a person wrote. No I/O but looking where links of devices lead.

A board that stands there already, known by its outlets, its MAC addresses or its console, gets only the keys that it
lacks. Where the file and what was learnt say different things the file stays, and the difference is told.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.discovery.findings import TomlValue
from agent.discovery.known import tty
from agent.discovery.toml_places import (
    CannotInsertError,
    as_read,
    assignments,
    comment,
    key_text,
    tables_of,
    with_keys,
    with_tables,
)

MAX_NAME_CHARACTERS = 50
"""Of a proposed name; ids may have 63, and a number may have to be added."""


@dataclass(frozen=True, slots=True)
class LearntBoard:
    """One board. `keys` is its table; of these `feed` and `macs` are lists of texts. `remarks` say how it is known."""

    keys: Mapping[str, TomlValue]
    remarks: tuple[str, ...] = ()

    @property
    def outlets(self) -> frozenset[str]:
        return frozenset(_texts(self.keys.get("feed")))

    @property
    def title(self) -> str:
        return " + ".join(_texts(self.keys.get("feed")))


@dataclass(frozen=True, slots=True)
class BoardAdditions:
    """What is to be written: new boards by their names, and what boards that are there lack.

    Attributes:
        notes: where the file stays as it is though something else was learnt, one sentence each.
        same: boards that are there and lack nothing.
    """

    fresh: Mapping[str, LearntBoard] = field(default_factory=dict)
    lacking: Mapping[str, LearntBoard] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    same: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.fresh and not self.lacking


def board_name(feed: Sequence[str], taken: Collection[str]) -> str:
    """A name that says where the board hangs, and that no other has."""
    base = re.sub(r"[^a-z0-9]+", "-", f"board-{feed[0]}".lower()).strip("-")[:MAX_NAME_CHARACTERS].rstrip("-")
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def board_additions(tables: Mapping[str, Any], learnt: Sequence[LearntBoard], taken: Collection[str]) -> BoardAdditions:
    """What of `learnt` the file that reads as `tables` does not have. `taken` are names that boards have elsewhere."""
    there = tables.get("boards", {})
    there = {name: table for name, table in there.items() if isinstance(table, Mapping)} if _is_table(there) else {}
    fresh: dict[str, LearntBoard] = {}
    lacking: dict[str, LearntBoard] = {}
    notes: list[str] = []
    same: list[str] = []
    for board in learnt:
        name, note = _which(board, there)
        if note:
            notes.append(note)
        elif name is None:
            fresh[board_name(_texts(board.keys["feed"]), {*taken, *there, *fresh})] = board
        else:
            notes += _differences(name, there[name], board)
            keys = {key: value for key, value in board.keys.items() if key not in there[name]}
            if keys:
                lacking[name] = replace(board, keys=keys)
            else:
                same.append(name)
    return BoardAdditions(fresh, lacking, tuple(notes), tuple(same))


def with_boards(text: str, additions: BoardAdditions) -> str:
    """`text` with the additions in it: new boards behind the last board, or at the end.

    Raises:
        CannotInsertError: `text` is no TOML, or there is no place, as where boards are an inline table.
    """
    wanted = dict(tables_of(text))
    boards = wanted.get("boards", {})
    if not _is_table(boards):
        raise CannotInsertError("boards is no table in it")
    for name, board in additions.lacking.items():
        boards = {**boards, name: {**boards[name], **_read(board.keys)}}
        wanted["boards"] = boards
        text = with_keys(text, ("boards", name), comment(board.remarks) + assignments(board.keys), wanted)
    if additions.fresh:
        wanted["boards"] = {**boards, **{name: _read(board.keys) for name, board in additions.fresh.items()}}
        added = "\n".join(
            f"{comment(board.remarks)}[boards.{key_text(name)}]\n{assignments(board.keys)}"
            for name, board in additions.fresh.items()
        )
        text = with_tables(text, added, wanted, "boards")
    return text


# --- which board of the file it is --------------------------------------------------------------------------------


def _which(board: LearntBoard, there: Mapping[str, Mapping[str, Any]]) -> tuple[str | None, str]:
    """The board of the file that is this one, None where it is new; or why neither can be said."""
    same = [name for name, table in there.items() if _outlets(table) == board.outlets]
    other = [name for name, table in there.items() if name not in same and _outlets(table) & board.outlets]
    alike = [(name, sign) for name, table in there.items() if name not in same for sign in _shared(board, table)]
    if other:
        return None, f"{board.title}: left out, {_key('feed', other[0])} has one of its outlets; mend that by hand"
    if alike:
        name, sign = alike[0]
        if same or _outlets(there[name]):
            hangs = " + ".join(sorted(_outlets(there[name]))) or "no outlet"
            return None, f"{board.title}: left out, its {sign} is of {name} on {hangs}; mend {_key('feed', name)} there"
        return name, ""
    return (same[0] if same else None), ""


def _differences(name: str, table: Mapping[str, Any], board: LearntBoard) -> Iterator[str]:
    """What stands there and is not what was learnt."""
    macs = {_mac(mac) for mac in _texts(table.get("macs"))}
    more = [mac for mac in _texts(board.keys.get("macs")) if _mac(mac) not in macs]
    if "macs" in table and more:
        yield f"{_key('macs', name)} stays as it is; {', '.join(more)} was heard as well"
    console, learnt = _console(table), board.keys.get("console")
    if console is not None and isinstance(learnt, str) and tty(console) != tty(learnt):
        yield f"{_key('console', name)} stays {console}; its words came by {learnt}"


def _shared(board: LearntBoard, table: Mapping[str, Any]) -> Iterator[str]:
    macs = {_mac(mac) for mac in _texts(table.get("macs"))}
    yield from (f"MAC address {mac}" for mac in _texts(board.keys.get("macs")) if _mac(mac) in macs)
    console, learnt = _console(table), board.keys.get("console")
    if console is not None and isinstance(learnt, str) and tty(console) == tty(learnt):
        yield f"console {learnt}"


def _console(table: Mapping[str, Any]) -> str | None:
    console = table.get("console")
    device = console.get("device") if isinstance(console, Mapping) else console
    return device if isinstance(device, str) else None


def _outlets(table: Mapping[str, Any]) -> frozenset[str]:
    feed = table.get("feed", ())
    entries = feed if isinstance(feed, list) else ()
    names = (entry.get("outlet") if isinstance(entry, Mapping) else entry for entry in entries)
    return frozenset(name for name in names if isinstance(name, str))


def _key(key: str, name: str) -> str:
    return f"boards.{name}.{key}"


def _mac(text: str) -> str:
    return text.lower().replace("-", ":")


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []


def _read(keys: Mapping[str, TomlValue]) -> dict[str, Any]:
    return {key: as_read(value) for key, value in keys.items()}


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)
