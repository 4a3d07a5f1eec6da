"""Text put between the lines of a TOML file that a person wrote. No I/O.

Nothing that stands there is changed. Where something may go is guessed from the lines, and every guess is proved:
TOML's own reading of the result must be that of the old text with the new values in it, and nothing else. So a
multi-line string that looks like a table misleads nobody.
"""

import re
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent.discovery.findings import TomlValue

COMMENT_COLUMNS = 110
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_HEADER = re.compile(r"\s*\[\[?\s*[\"']?([A-Za-z0-9_-]+)")
_SILENT = re.compile(r"\s*(#.*)?")


class CannotInsertError(ValueError):
    """There is no place for the new values in this text; says why."""


def tables_of(text: str) -> dict[str, Any]:
    """What TOML reads in it.

    Raises:
        CannotInsertError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise CannotInsertError(f"it is no TOML: {problem}") from None


def line_end_of(text: str) -> str:
    """How its lines end."""
    return "\r\n" if "\r\n" in text else "\n"


def with_tables(text: str, addition: str, wanted: Mapping[str, Any], kind: str, *, before: str | None = None) -> str:
    """`text` with `addition`, which are tables `[kind.NAME]`: behind the last one of that kind, or before the first one
    of kind `before`, or at the end. It must then read as `wanted`.

    Raises:
        CannotInsertError: none of these is a place, as where `kind` is an inline table.
    """
    end = line_end_of(text)
    for place in _table_places(text, kind, before):
        fresh = with_block(text, place, addition.replace("\n", end), end)
        if _reads_as(fresh, wanted):
            return fresh
    raise CannotInsertError(f"{kind} cannot be added to it: write yours as tables, [{kind}.NAME]")


def with_keys(text: str, path: Sequence[str], addition: str, wanted: Mapping[str, Any]) -> str:
    """`text` with `addition`, which are lines `key = value`, in the table `path`: at its end, or right below its head.
    It must then read as `wanted`.

    Raises:
        CannotInsertError: the table is not written as `[path]`.
    """
    end = line_end_of(text)
    for place in _key_places(text, tuple(path)):
        before, after = text[:place], text[place:]
        gap = "" if before.endswith("\n") else end
        fresh = before + gap + addition.replace("\n", end) + after
        if _reads_as(fresh, wanted):
            return fresh
    raise CannotInsertError(f"{'.'.join(path)} takes no more keys: write it as a table, [{'.'.join(path)}]")


def with_block(text: str, place: int, addition: str, end: str) -> str:
    """`text` with `addition` at `place`, between blank lines."""
    before, after = text[:place], text[place:]
    gap = end if before else ""
    if before and not before.endswith("\n"):
        gap += end
    behind = end if after and not after.startswith(("\n", "\r\n")) else ""
    return before + gap + addition + behind + after


def assignments(keys: Mapping[str, TomlValue]) -> str:
    """`key = value` lines."""
    return "".join(f"{key_text(key)} = {value_text(value)}\n" for key, value in keys.items())


def value_text(value: TomlValue) -> str:
    """A value in TOML's words (TOML 1.0.0: basic strings, integers, floats, booleans, arrays, inline tables)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value)) + '"'
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key_text(key)} = {value_text(one)}" for key, one in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return "[" + ", ".join(map(value_text, value)) + "]"


def as_read(value: TomlValue) -> Any:
    """`value` as TOML reads what `value_text` writes."""
    if isinstance(value, Mapping):
        return {key: as_read(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_read(one) for one in value]
    return value


def key_text(name: str) -> str:
    """A key, in quotes where it needs them."""
    return name if _BARE_KEY.fullmatch(name) else value_text(name)


def plain(text: str) -> str:
    """`text` as it may stand in a comment: one line, nothing that steers a terminal or ends the comment."""
    return "".join(char if char.isprintable() else "?" for char in text)


def comment(texts: Iterable[str]) -> str:
    """Comment lines, a paragraph for each text that is not empty."""
    return "".join(f"{line}\n" for text in texts if text for line in _wrapped(text))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        plain(text), COMMENT_COLUMNS, initial_indent="# ", subsequent_indent="#   ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    number = ord(char)
    if 0xD800 <= number <= 0xDFFF:  # half a pair is no character: TOML has no word for it
        return "\N{REPLACEMENT CHARACTER}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


# --- places: guesses, the best first ----------------------------------------------------------------------------------


def _table_places(text: str, kind: str, before: str | None) -> Iterator[int]:
    lines, starts = _lines(text)
    headers = [(at, found[1]) for at, line in enumerate(lines) if (found := _HEADER.match(line))]
    ours = [position for position, (_, name) in enumerate(headers) if name == kind]
    if ours:
        until = headers[ours[-1] + 1][0] if ours[-1] + 1 < len(headers) else len(lines)
        yield starts[_behind_words(lines, until)]
    first = next((at for at, name in headers if name == before), None)
    if first is not None:
        yield starts[_behind_words(lines, first)]
    yield len(text)


def _key_places(text: str, path: tuple[str, ...]) -> Iterator[int]:
    lines, starts = _lines(text)
    headers = [at for at, line in enumerate(lines) if _HEADER.match(line)]
    for position, at in enumerate(headers):
        if _path_of(lines[at]) == path:
            until = headers[position + 1] if position + 1 < len(headers) else len(lines)
            yield starts[_behind_words(lines, until)]
            yield starts[at + 1]


def _lines(text: str) -> tuple[list[str], list[int]]:
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    return lines, starts


def _path_of(header: str) -> tuple[str, ...]:
    """The keys of `[a.b]`; nothing for what is no head of a table."""
    try:
        table: Any = tomllib.loads(header)
    except tomllib.TOMLDecodeError:
        return ()
    path = []
    while isinstance(table, dict) and len(table) == 1:
        ((key, table),) = table.items()
        path.append(key)
    return tuple(path) if table == {} else ()


def _behind_words(lines: Sequence[str], at: int) -> int:
    """Before the blank lines and comments right above line `at`: those belong to what follows."""
    while at > 0 and _SILENT.fullmatch(lines[at - 1].rstrip("\r\n")):
        at -= 1
    return at


# --- proof ------------------------------------------------------------------------------------------------------------


def _reads_as(text: str, wanted: Mapping[str, Any]) -> bool:
    """Compared as words, so that nan is itself, with the tables in one order."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return repr(found) == repr(_ordered(wanted, found))


def _ordered(wanted: Any, like: Any) -> Any:
    if isinstance(wanted, Mapping) and isinstance(like, Mapping):
        keys = [key for key in like if key in wanted] + [key for key in wanted if key not in like]
        return {key: _ordered(wanted[key], like.get(key)) for key in keys}
    return wanted
