"""A settings file: TOML plus environment through pydantic-settings, with the line of the key that is at fault.

An environment variable beats the file: `BOARDHAND__MQTT__URL` is `url` in table `[mqtt]`. The double underscore keeps
these apart from what the command line reads (`BOARDHAND_MQTT`).
"""

import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from daemon.logs import LogTable

ENV_PREFIX = "BOARDHAND__"
ENV_DELIMITER = "__"
MAX_FILE_BYTES = 4 * 1024 * 1024
"""Two hundred boards are about 60 kB; a file this large is not a settings file."""

Path_ = tuple[str, ...]


class SettingsError(Exception):
    """The settings cannot be used. Its text is one line: `FILE:LINE: key: what is wrong, what to do`."""


class FileSettings(BaseSettings):
    """Base of a daemon's whole settings: one field per top-level table; `[log]` is every daemon's."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER
    )

    log: LogTable = LogTable()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then the file (which comes in as init arguments)."""
        return env_settings, init_settings


S = TypeVar("S", bound=FileSettings)


def load_settings(
    model: type[S],
    path: Path,
    *,
    ignore_tables: Collection[str] = (),
    contradictions: Callable[[S], Iterable[tuple[Path_, str]]] | None = None,
) -> S:
    """The settings in `path`, with the environment over them, checked whole.

    `ignore_tables` belong to another daemon which shares the file. `contradictions` yields `(key path, what is
    wrong)` for parts that are right alone and wrong together.

    Raises:
        SettingsError: the file cannot be read, is no TOML, or a key is unknown, missing, wrong or contradictory.
    """
    text = _read(path)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = where.group(1) if where else str(text.count("\n") + 1)
        problem = str(error).split(" (at ", 1)[0]
        raise SettingsError(f"{path}:{line}: not TOML: {problem}") from None
    mine = {name: value for name, value in tables.items() if name not in ignore_tables}
    _check_environment(model, ignore_tables, os.environ)
    try:
        settings = model(**mine)
    except ValidationError as error:
        raise SettingsError(_explain(error, path, text, mine)) from None
    except SourceError as error:
        raise SettingsError(f"environment: {error}; write nested values as {ENV_PREFIX}TABLE__KEY=value") from None
    for key, problem in contradictions(settings) if contradictions else ():
        lines = locate_keys(text)
        raise SettingsError(f"{path}:{lines.get(nearest(lines, key), 1)}: {'.'.join(key)}: {problem}")
    return settings


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SettingsError(f"{path}: is larger than {MAX_FILE_BYTES} bytes; this is not a settings file")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}:{line}: is not UTF-8 text") from None


def _check_environment(model: type[FileSettings], ignore: Collection[str], environment: Mapping[str, str]) -> None:
    """pydantic-settings passes over variables that it does not know; a typo there would be silent."""
    known = {name.upper() for name in model.model_fields} | {name.upper() for name in ignore}
    for name in sorted(environment):
        if not name.upper().startswith(ENV_PREFIX):
            continue
        table = name[len(ENV_PREFIX) :].split(ENV_DELIMITER, 1)[0].upper()
        if table not in known:
            tables = ", ".join(sorted(known)).lower()
            raise SettingsError(f"environment: {name}: there is no table [{table.lower()}]; known are {tables}")


def _explain(error: ValidationError, path: Path, text: str, data: object) -> str:
    lines = locate_keys(text)
    # A key that nobody knows comes first: it is the misspelt one that another error says is missing.
    first = min(error.errors(include_url=False, include_context=False), key=lambda e: e["type"] != "extra_forbidden")
    wanted = _without_union_tags(tuple(str(part) for part in first["loc"]), data)
    found = nearest(lines, wanted)
    key = ".".join(wanted) or "settings"
    if first["type"] == "extra_forbidden":
        first["msg"] = "there is no such key; correct it or take it out"
    message = re.sub(r"^(Value error|Assertion failed), ", "", first["msg"])
    more = error.error_count() - 1
    rest = f" (and {more} more)" if more else ""
    where = "environment" if _from_environment(wanted) else f"{path}:{lines.get(found, 1)}"
    return f"{where}: {key}: {message}{rest}".replace("\n", " ")


def _from_environment(wanted: Path_) -> bool:
    name = ENV_PREFIX + ENV_DELIMITER.join(wanted)
    return any(key.upper() == name.upper() for key in os.environ)


def _without_union_tags(wanted: Path_, data: object) -> Path_:
    """The path as the user wrote it: the name of a union's branch is in the error's path and not in the data."""
    kept: list[str] = []
    for position, part in enumerate(wanted):
        if isinstance(data, Mapping) and part not in data and position + 1 < len(wanted):
            continue
        kept.append(part)
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
    return tuple(kept)


def nearest(lines: Mapping[Path_, int], wanted: Path_) -> Path_:
    """The longest known key path that is contained, in order, in `wanted`; `()` when there is none."""
    best: Path_ = ()
    for known in lines:
        if len(known) > len(best) and _is_subsequence(known, wanted):
            best = known
    return best


def _is_subsequence(short: Path_, long: Path_) -> bool:
    rest = iter(long)
    return all(part in rest for part in short)


_BARE_OR_QUOTED = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_DOTTED = rf"{_BARE_OR_QUOTED}(?:\s*\.\s*{_BARE_OR_QUOTED})*"
_HEADER = re.compile(rf"^\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(rf"^\s*({_DOTTED})\s*=")


def _split(dotted: str) -> Path_:
    return tuple(part.strip("\"'") for part in re.findall(_BARE_OR_QUOTED, dotted))


def locate_keys(text: str) -> dict[Path_, int]:
    """The line, counted from 1, of each table and key in a TOML text that is known to parse.

    Keys inside inline tables and arrays are found as the key that holds them, which is the line a person looks at.
    A line of a multi-line string that looks like a key may add an entry; it never hides a true one.
    """
    lines: dict[Path_, int] = {}
    table: Path_ = ()
    counts: dict[Path_, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header is not None:
            table = _split(header.group(2))
            if header.group(1) == "[[":
                index = counts.get(table, -1) + 1
                counts[table] = index
                table = (*table, str(index))
            for depth in range(1, len(table) + 1):
                lines.setdefault(table[:depth], number)
            continue
        key = _KEY.match(line)
        if key is not None:
            path = (*table, *_split(key.group(1)))
            for depth in range(len(table) + 1, len(path) + 1):
                lines.setdefault(path[:depth], number)
    return lines
