"""Settings as a person would have written them, put into a file that a person wrote. No I/O.

Nothing that stands there is changed: text is only put between it. Where it may go is guessed from the lines, and every
guess is proved: TOML's own reading of the result must be that of the old text with the new tables in it, and nothing
else. So a multi-line string that looks like a table misleads nobody.
"""

import re
import textwrap
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.discovery.findings import Candidate, MqttServer, SerialLine, TomlValue, outlets_text

COMMENT_COLUMNS = 110
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_HEADER = re.compile(r"\s*\[\[?\s*[\"']?([A-Za-z0-9_-]+)")
_SILENT = re.compile(r"\s*(#.*)?")
CONSOLES_HEAD = (
    "# Serial ports that no board uses yet. Whose console each is shows when it speaks: write it into its board, as\n"
    "# [boards.NAME.console] with device = what stands here.\n"
)


class CannotInsertError(ValueError):
    """There is no place for the new tables in this text; says why."""


@dataclass(frozen=True, slots=True)
class Additions:
    """What is to be written: controllers by their names, and serial lines as remarks."""

    controllers: Mapping[str, Candidate]
    serial_lines: Sequence[SerialLine] = ()

    @property
    def empty(self) -> bool:
        return not self.controllers and not self.serial_lines


def named(candidates: Sequence[Candidate], taken: Collection[str]) -> dict[str, Candidate]:
    """Those that can be written, by names of which none is `taken`: the stem, or the stem and a number."""
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        if candidate.unwritten or not candidate.keys:
            continue
        name, number = candidate.stem, 1
        while name in found or name in taken:
            number += 1
            name = f"{candidate.stem}-{number}"
        found[name] = candidate
    return found


def missing(found: Additions, text: str, known: Collection[str]) -> Additions:
    """Of `found`, what `text` does not have: `known` are the identities of the devices that it names. A serial line
    that it speaks of anywhere, if only in a comment, was seen by a person."""
    return Additions(
        {name: one for name, one in found.controllers.items() if one.identities.isdisjoint(known)},
        [line for line in found.serial_lines if f'"{plain(line.device)}"' not in text],
    )


def inserted(text: str, additions: Additions) -> str:
    """`text` with the additions in it: controllers behind the last controller, or before the boards, or at the end.

    Raises:
        CannotInsertError: `text` is no TOML, or none of these is a place, as where controllers are an inline table.
    """
    try:
        old = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise CannotInsertError(f"it is no TOML: {problem}") from None
    end = "\r\n" if "\r\n" in text else "\n"
    remarks = "".join(_serial_remarks(additions.serial_lines)).replace("\n", end)
    if additions.controllers:
        tables = "\n".join(_table(name, one) for name, one in additions.controllers.items()).replace("\n", end)
        wanted = _merged(old, additions.controllers)
        for place in _places(text):
            fresh = _with(text, place, tables, end)
            if _reads_as(fresh, wanted):
                text = fresh
                break
        else:
            raise CannotInsertError("controllers cannot be added to it: write yours as tables, [controllers.NAME]")
    if remarks:
        text = _with(text, len(text), remarks, end)
    return text


def new_file(agent: str, state_dir: str, server: MqttServer | None, additions: Additions) -> str:
    """A whole settings file, for where there is none."""
    if server is None:
        said, mqtt = "# Where no other is named: this host.\n", '# url = "mqtt://HOST:1883"\n'
    else:
        said = f"# Found by {plain(server.by)}.\n"
        mqtt = "".join(f"{key} = {value_text(value)}\n" for key, value in {"url": server.url, **server.login}.items())
    head = (
        "# Written by 'boardhand discover'; it is yours now. docs/settings.md says what else there is.\n\n"
        f"[agent]\nname = {value_text(agent)}\nstate_dir = {value_text(state_dir)}\n\n"
        f"{said}[mqtt]\n{mqtt}"
    )
    boards = (
        "\n# Boards are not found by looking: say which outlet feeds which.\n"
        '# [boards.my-board]\n# feed = ["CONTROLLER:OUTLET"]\n'
    )
    return inserted(head, additions) + boards


def value_text(value: TomlValue) -> str:
    """A value in TOML's words (TOML 1.0.0, basic strings, integers, booleans)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return '"' + "".join(map(_escaped, value)) + '"'


def plain(text: str) -> str:
    """`text` as it may stand in a comment: one line, nothing that steers a terminal or ends the comment."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    number = ord(char)
    if 0xD800 <= number <= 0xDFFF:  # half a pair is no character: TOML has no word for it
        return "\N{REPLACEMENT CHARACTER}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _table(name: str, candidate: Candidate) -> str:
    said = [candidate.about, outlets_text(candidate.outlets), *candidate.hints]
    comment = "".join(f"{line}\n" for text in said if text for line in _comment(text))
    return f"{comment}[controllers.{_key(name)}]\n" + "".join(
        f"{_key(key)} = {value_text(value)}\n" for key, value in candidate.keys.items()
    )


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        plain(text), COMMENT_COLUMNS, initial_indent="# ", subsequent_indent="#   ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _serial_remarks(lines: Sequence[SerialLine]) -> Iterator[str]:
    if lines:
        yield CONSOLES_HEAD
    for line in lines:
        yield from (f"{text}\n" for text in _comment("; ".join([line.about, *line.hints])))
        yield f'#     device = "{plain(line.device)}"\n'


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else value_text(name)


def _places(text: str) -> Iterator[int]:
    """Where tables may go, as offsets, the best first. Guesses: `inserted` proves each."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    headers = [(at, found[1]) for at, line in enumerate(lines) if (found := _HEADER.match(line))]
    ours = [position for position, (_, name) in enumerate(headers) if name == "controllers"]
    if ours:
        until = headers[ours[-1] + 1][0] if ours[-1] + 1 < len(headers) else len(lines)
        yield starts[_behind_words(lines, until)]
    boards = next((at for at, name in headers if name == "boards"), None)
    if boards is not None:
        yield starts[_behind_words(lines, boards)]
    yield len(text)


def _behind_words(lines: Sequence[str], at: int) -> int:
    """Before the blank lines and comments right above line `at`: those belong to what follows."""
    while at > 0 and _SILENT.fullmatch(lines[at - 1].rstrip("\r\n")):
        at -= 1
    return at


def _with(text: str, place: int, addition: str, end: str) -> str:
    before, after = text[:place], text[place:]
    gap = end if before else ""
    if before and not before.endswith("\n"):
        gap += end
    behind = end if after and not after.startswith(("\n", "\r\n")) else ""
    return before + gap + addition + behind + after


def _merged(old: Mapping[str, Any], controllers: Mapping[str, Candidate]) -> dict[str, Any]:
    there = old.get("controllers", {})
    if not isinstance(there, Mapping):
        raise CannotInsertError("controllers is no table in it")
    fresh = {name: dict(one.keys) for name, one in controllers.items()}
    return {**old, "controllers": {**there, **fresh}}


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
