"""Boards that joined by acceptance, in `joined.toml` in the agent's state folder: tables [boards.NAME] like those that
a person writes, beside whose they stand. What a person wrote goes first.

The file may be edited by hand; comments in it are lost when the next board is accepted.
"""

import json
import logging
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent.settings_table import Key
from daemon.settings_file import MAX_FILE_BYTES, SettingsError
from wire.ids import is_id

if TYPE_CHECKING:
    from agent.settings import AgentSettings, BoardTable

log = logging.getLogger(__name__)

FILE = "joined.toml"
HEAD = """\
# Boards that were accepted ('boardhand join'). The agent writes this file; a table of the same name in its settings
# goes first. To take a board out, take its table out and reload the agent.
"""

Tables = dict[str, dict[str, Any]]
Contradictions = Callable[["AgentSettings"], Iterable[tuple[Key, str]]]


def read(state_dir: Path) -> Tables:
    """The tables as they are stored; none where there is no file.

    Raises:
        SettingsError: the file cannot be read, or is not what we wrote.
    """
    path = state_dir / FILE
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SettingsError(f"{path}: is larger than {MAX_FILE_BYTES} bytes; this is not a list of boards")
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # TOML and UTF-8
        raise SettingsError(f"{path}: {error}; mend it, or take it out") from None
    boards = found.pop("boards", {})
    if found or not isinstance(boards, dict) or not all(isinstance(table, dict) for table in boards.values()):
        raise SettingsError(f"{path}: only tables [boards.NAME] may stand here; mend it, or take it out")
    return boards


def write(state_dir: Path, tables: Tables) -> None:
    """Store the tables: all or none.

    Raises:
        OSError: they cannot be stored; what was there still is.
    """
    path = state_dir / FILE
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(as_toml(tables))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def as_toml(tables: Tables) -> str:
    """The file's text."""
    parts = [HEAD]
    for name, table in sorted(tables.items()):
        lines = "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())
        parts.append(f"[boards.{_key(name)}]\n{lines}")
    return "\n".join(parts)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(key))} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    # A JSON string is a TOML string, but for the escape of what is beyond 16 bits (here not escaped) and for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def added(settings: "AgentSettings", table: "type[BoardTable]", contradictions: Contradictions) -> "AgentSettings":
    """`settings` with the boards that joined. One that does not fit any more is left out, and the log says why: the
    others must not suffer for it.

    Raises:
        SettingsError: as `read`.
    """
    path = settings.agent.state_dir / FILE
    boards: dict[str, BoardTable] = {}
    for name, values in read(settings.agent.state_dir).items():
        if name in settings.boards:
            log.info("board %s joined, and is in the settings now: %s is not asked for it", name, path)
            continue
        try:
            boards[name] = board(table, name, values)
        except ValueError as error:
            log.warning("%s: board %s is left out: %s", path, name, error)
    everything = _with(settings, boards)
    if next(iter(contradictions(everything)), None) is None:
        return everything
    for name, one in boards.items():
        tried = _with(settings, {name: one})
        problem = next(iter(contradictions(tried)), None)
        if problem is None:
            settings = tried
        else:
            log.warning("%s: board %s is left out: %s: %s", path, name, ".".join(problem[0]), problem[1])
    return settings


def board(table: "type[BoardTable]", name: str, values: Mapping[str, object]) -> "BoardTable":
    """One board's table, checked by itself.

    Raises:
        ValueError: it is wrong; says which key.
    """
    if not is_id(name):
        raise ValueError(f"{name!r} is not a name: use a-z, 0-9 and '-', at most 63 characters")
    try:
        return table.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _with(settings: "AgentSettings", boards: "Mapping[str, BoardTable]") -> "AgentSettings":
    return settings.model_copy(update={"boards": {**settings.boards, **boards}}) if boards else settings


def check(settings: "AgentSettings", name: str, one: "BoardTable", contradictions: Contradictions) -> str | None:
    """What stands against board `name` beside the others, with its key; None where nothing does."""
    problem = next(iter(contradictions(_with(settings, {name: one}))), None)
    return None if problem is None else f"{problem[0][-1]}: {problem[1]}"
