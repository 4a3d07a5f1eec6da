"""`boardhand boards --watch`: boards and the latest events, redrawn in place on a terminal, as lines elsewhere."""

import json
import sys
import time
from collections import deque
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.boards import COLUMNS, cells
from cli.events import EventReader, Seen, messages
from cli.exits import Exit
from cli.farm_view import BoardRow, FarmView
from cli.target import Target

EVENTS_SHOWN = 10
# A burst of messages is drawn once: more often than this a person cannot read. Silence is redrawn too: ages grow.
REDRAW_S = 0.25
STYLES = {
    "on": "green",
    "off": "dim",
    "unknown": "yellow",
    "fault": "bold red",
    "ready": "green",
    "busy": "cyan",
    "sleeping": "blue",
    "maintenance": "magenta",
}


def picture(rows: list[BoardRow], recent: list[Seen], where: str, now: datetime) -> Group:
    """The screen: a table of boards, and below it the latest events."""
    table = Table(title=f"boards at {where}", title_justify="left", expand=True)
    for head in COLUMNS:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells(row, now)))
    lines: list[Text] = []
    for seen in recent:
        lines.extend(Text(f"-- {note}", style="yellow") for note in seen.notes())
        lines.append(Text(seen.line(), no_wrap=True, overflow="ellipsis"))
    if not rows:
        lines.insert(0, Text("no agent has announced a board yet", style="yellow"))
    return Group(table, *lines)


def run(target: Target, *, as_json: bool, for_s: float | None) -> int:
    """Show the farm until Ctrl-C, or for `for_s` seconds."""
    deadline_s = None if for_s is None else time.monotonic() + for_s
    if as_json or not sys.stdout.isatty():
        return _run_lines(target, deadline_s, as_json=as_json)
    return _run_screen(target, deadline_s)


def _topics(target: Target, view: FarmView) -> tuple[str, ...]:
    return (*view.filters(), f"{target.prefix}/event/+")


def _run_screen(target: Target, deadline_s: float | None) -> int:
    view, reader = FarmView(target.prefix), EventReader(target.prefix)
    recent: deque[Seen] = deque(maxlen=EVENTS_SHOWN)
    where = f"{target.host}:{target.port}/{target.prefix}"

    # Drawn by this thread alone: a thread of rich's would read the view while it is being changed.
    with Live(console=Console(), auto_refresh=False, transient=False) as live:
        drawn_s = 0.0
        for message in messages(target, _topics(target, view), deadline_s, tick_s=REDRAW_S):
            if message is not None and not view.feed(message.topic, message.payload):
                seen = reader.take(message)
                if seen is not None:
                    recent.append(seen)
            if time.monotonic() - drawn_s >= REDRAW_S:
                live.update(picture(view.rows(), list(recent), where, datetime.now(UTC)), refresh=True)
                drawn_s = time.monotonic()
        live.update(picture(view.rows(), list(recent), where, datetime.now(UTC)), refresh=True)
    return Exit.OK


def _run_lines(target: Target, deadline_s: float | None, *, as_json: bool) -> int:
    view, reader = FarmView(target.prefix), EventReader(target.prefix)
    known: dict[str, BoardRow] = {}
    for message in messages(target, _topics(target, view), deadline_s):
        if message is None:
            continue
        seen = None if view.feed(message.topic, message.payload) else reader.take(message)
        if seen is not None:
            document = json.loads(seen.event.model_dump_json(exclude_none=True))
            print(json.dumps({"event": document}) if as_json else seen.line(), flush=True)
        for row in view.rows():
            if known.get(row.board) != row:
                known[row.board] = row
                text = "  ".join(cell for cell in cells(row, datetime.now(UTC)) if cell)
                print(json.dumps({"board": row.document()}) if as_json else text, flush=True)
        for gone in known.keys() - {row.board for row in view.rows()}:
            del known[gone]
            print(json.dumps({"gone": gone}) if as_json else f"{gone}  gone", flush=True)
    return Exit.OK
