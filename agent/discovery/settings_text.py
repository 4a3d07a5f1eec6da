"""Settings as a person would have written them, put into a file that a person wrote. No I/O.

Nothing that stands there is changed, see `agent.discovery.toml_places`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.discovery.findings import Candidate, MqttServer, SerialLine, outlets_text
from agent.discovery.toml_places import (
    CannotInsertError,
    as_read,
    assignments,
    comment,
    key_text,
    line_end_of,
    plain,
    tables_of,
    value_text,
    with_block,
    with_tables,
)

CONSOLES_HEAD = (
    "# Serial ports that no board uses yet. Whose console each is shows when it speaks: write it into its board, as\n"
    "# [boards.NAME.console] with device = what stands here.\n"
)


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
    old = tables_of(text)
    end = line_end_of(text)
    if additions.controllers:
        tables = "\n".join(_table(name, one) for name, one in additions.controllers.items())
        text = with_tables(text, tables, _merged(old, additions.controllers), "controllers", before="boards")
    remarks = "".join(_serial_remarks(additions.serial_lines)).replace("\n", end)
    return with_block(text, len(text), remarks, end) if remarks else text


def new_file(agent: str, state_dir: str, server: MqttServer | None, additions: Additions) -> str:
    """A whole settings file, for where there is none."""
    if server is None:
        said, mqtt = "# Where no other is named: this host.\n", '# url = "mqtt://HOST:1883"\n'
    else:
        said = f"# Found by {plain(server.by)}.\n"
        mqtt = assignments({"url": server.url, **server.login})
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


def _table(name: str, candidate: Candidate) -> str:
    said = [candidate.about, outlets_text(candidate.outlets), *candidate.hints]
    return f"{comment(said)}[controllers.{key_text(name)}]\n{assignments(candidate.keys)}"


def _serial_remarks(lines: Sequence[SerialLine]) -> Iterator[str]:
    if lines:
        yield CONSOLES_HEAD
    for line in lines:
        yield comment(["; ".join([line.about, *line.hints])])
        yield f'#     device = "{plain(line.device)}"\n'


def _merged(old: Mapping[str, Any], controllers: Mapping[str, Candidate]) -> dict[str, Any]:
    there = old.get("controllers", {})
    if not isinstance(there, Mapping):
        raise CannotInsertError("controllers is no table in it")
    fresh = {name: as_read(one.keys) for name, one in controllers.items()}
    return {**old, "controllers": {**there, **fresh}}
