"""What `boardhand learn` found, as a table and as settings."""

import json
import re
from collections.abc import Iterable
from typing import Any

from cli.boards import lines
from cli.plain_text import shown

COLUMNS = ("FEED", "CONSOLE", "MACS", "USB", "BOOT", "IDLE", "BUSY", "SURE", "EVIDENCE")
HIDDEN = 20
"""More that was heard and belongs to nobody is counted, not shown."""


def table(found: dict[str, Any]) -> list[str]:
    """The result for people."""
    told = [
        (
            " + ".join(row["feed"]),
            ", ".join(map(shown, row["consoles"])) or "-",
            ", ".join(row["macs"]) or "-",
            ", ".join(map(shown, row["usb"])) or "-",
            _number(row["boot_s"], "s"),
            _number(row["idle_w"], "W"),
            _number(row["busy_w"], "W"),
            f"{row['confidence'] * 100:.2f} %",
            shown(row["evidence"]),
        )
        for row in found.get("rows", [])
    ]
    text = list(lines(told, COLUMNS)) if told else ["no board was found beyond doubt"]
    text += [f"{shown(item['outlet'])}: unknown, because {shown(item['because'])}" for item in found.get("unknown", [])]
    strangers = found.get("strangers", [])
    text += [f"{item['kind']} {shown(item['name'])}: nobody's, {shown(item['because'])}" for item in strangers[:HIDDEN]]
    if len(strangers) > HIDDEN:
        text.append(f"and {len(strangers) - HIDDEN} more that were heard and belong to no board")
    if found.get("stopped"):
        text.append(f"stopped before its end: {shown(found['stopped'])}")
    return text


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f} {unit}"


def board_name(feed: Iterable[str], taken: Iterable[str]) -> str:
    """A name that says where the board hangs, and that no other has."""
    base = re.sub(r"[^a-z0-9]+", "-", f"board-{next(iter(feed))}".lower()).strip("-")[:50]
    name, number = base, 1
    while name in set(taken):
        number += 1
        name = f"{base}-{number}"
    return name


def stanzas(rows: list[dict[str, Any]], text: str) -> str:
    """`[boards.X]` tables for the agent's settings, behind `text`, which stands there already."""
    taken = set(re.findall(r"^\s*\[boards\.\"?([a-z0-9-]+)", text, re.MULTILINE))
    out: list[str] = []
    for row in rows:
        name = board_name(row["feed"], taken)
        taken.add(name)
        out.append(f"\n# Learnt: {_comment(row['evidence'])}")
        if row["boot_s"] is not None:
            out.append(f"# It was up {row['boot_s']:g} s after its power came.")
        out += [f"[boards.{name}]", f"feed = {json.dumps(row['feed'])}"]
        if len(row["feed"]) > 1:
            out.append('feed_is = "parallel"')
        if row["macs"]:
            out.append(f"macs = {json.dumps(row['macs'])}")
        if row["consoles"]:
            out.append(f"console = {json.dumps(row['consoles'][0])}")
        for key, value in (("watts_idle", row["idle_w"]), ("watts_busy", row["busy_w"])):
            if value is not None:
                out.append(f"{key} = {value:g}")
    return "\n".join(out) + "\n"


def _comment(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())
