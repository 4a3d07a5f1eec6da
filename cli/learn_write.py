"""`boardhand learn --write`: boards that were found go into the agent's settings; nothing there is changed."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.discovery.board_text import BoardAdditions, LearntBoard, board_additions, with_boards
from agent.discovery.findings import TomlValue
from agent.discovery.toml_places import CannotInsertError
from agent.presence.observations import USB_PATH
from cli.exits import CliError, Exit, usage
from cli.settings_change import SettingsChange, read_text

WITHOUT_TRYING = "'boardhand learn --last --write FILE' writes it without trying again"


@dataclass(frozen=True, slots=True)
class BoardPlan(SettingsChange):
    """What would be written, and what of it is new."""

    additions: BoardAdditions

    def told(self, *, done: bool) -> str:
        """One line for people. `done`: it is written."""
        fresh, lacking = self.additions.fresh, self.additions.lacking
        parts = [f"{len(fresh)} board{'s' if len(fresh) > 1 else ''} added: {', '.join(fresh)}"] if fresh else []
        parts += [f"{name} got {', '.join(board.keys)}" for name, board in lacking.items()]
        if not parts:
            return f"{self.path}: nothing new"
        said = "; ".join(parts)
        if not done:
            return f"{self.path}: would be written: {said}"
        return f"{self.path}: {said}; read it, then 'boardhand agent reload'"


def check(path: Path) -> None:
    """Whether boards can be written to `path`: known before an hour of listening, not after it.

    Raises:
        CliError: they cannot.
    """
    if not path.is_file():
        raise usage(f"--write {path}: there is no such file", "name the agent's settings file")
    path = path.resolve()
    _, text, _ = read_text(path)
    _inserted(path, text, BoardAdditions(fresh={"x": LearntBoard({"feed": ["x:1"]})}))
    if not os.access(path.parent, os.W_OK | os.X_OK):
        where = f"--write {path}: {path.parent} cannot be written to"
        raise CliError(Exit.USAGE, where, "run it as who may, or write to another file")


def plan(path: Path, rows: Sequence[dict[str, Any]], taken: Collection[str]) -> BoardPlan:
    """What `path` would become with the boards of `rows`. `taken` are names of boards elsewhere in the farm.

    Raises:
        CliError: it cannot be read, is no TOML, or has no place for boards.
    """
    path = path.resolve()  # a link stays one
    old, text, tables = read_text(path)
    additions = board_additions(tables, [learnt(row) for row in rows], taken)
    new = text if additions.empty else _inserted(path, text, additions)
    return BoardPlan(path, old, new.encode(), additions)


def learnt(row: dict[str, Any]) -> LearntBoard:
    """A row of what was found, as settings."""
    keys: dict[str, TomlValue] = {"feed": list(row["feed"])}
    if len(row["feed"]) > 1:
        keys["feed_is"] = "parallel"
    if row["macs"]:
        keys["macs"] = list(row["macs"])
    if row["consoles"]:
        keys["console"] = row["consoles"][0]
    if len(row["usb"]) == 1 and USB_PATH.fullmatch(row["usb"][0]):
        keys["usb"] = row["usb"][0]
    if len(row["links"]) == 1:
        keys["link"] = row["links"][0]
    keys |= {key: value for key, value in row.get("table", {}).items() if isinstance(value, str)}
    for key, value in (("watts_idle", row["idle_w"]), ("watts_busy", row["busy_w"])):
        if value is not None:
            keys[key] = int(value) if value == int(value) else value
    remarks = [f"Learnt: {row['evidence']}."]
    if row["boot_s"] is not None:
        remarks.append(f"It was up {row['boot_s']:g} s after its power came.")
    if len(row["consoles"]) > 1:
        remarks.append(f"It speaks on {', '.join(row['consoles'][1:])} as well.")
    if len(row["usb"]) > 1:
        remarks.append(f"With it come the USB devices {', '.join(row['usb'])}.")
    return LearntBoard(keys, tuple(remarks))


def _inserted(path: Path, text: str, additions: BoardAdditions) -> str:
    try:
        return with_boards(text, additions)
    except CannotInsertError as problem:
        raise CliError(Exit.USAGE, f"{path}: {problem}", "or write to another file, and copy from there") from None
