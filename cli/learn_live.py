"""`boardhand learn` on a terminal: one row for each outlet, redrawn in place, and below it how far it is.

The whole screen is drawn each time, from its upper left corner and by one write: so nothing flickers, and a terminal
that changed its size in between is right again with the next picture.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cli.plain_text import shown

LINES_SHOWN = 6
"""Of the agent's latest lines, where there is room below the table."""
TROUBLES_KEPT = 50
OUTLET_MOST, NOW_WIDTH, GAP = 24, 10, 2
"""Columns."""
VERDICT_LEAST = 14
HEADS = ("OUTLET", "NOW", "SEEN", "VERDICT")

_NOW = {
    "rising": "going on", "falling": "going off", "retreating": "going off", "broken": "broken",
    "restoring": "going back", "restored": "as found", "lost": "LOST",
}  # fmt: skip
_STYLES = {"board": "green", "open": "yellow", "fault": "bold red", "on": "cyan", "": "dim"}
_RANK = {"on": 0, "fault": 1, "open": 2, "": 3, "board": 4}
"""Which rows stay where there are more than the terminal has: the lowest first."""
_NAMES = {"board": "known", "open": "open", "fault": "in trouble", "on": "on", "": "waiting"}


class Row(NamedTuple):
    """One outlet. `kind` says how it is shown: on, board, open, fault or nothing."""

    outlet: str
    now: str
    seen: str
    verdict: str
    kind: str


def rows_of(state: dict[str, Any]) -> list[Row]:
    """The table, of the agent's answer to `state`."""
    boards = {outlet: row for row in state.get("rows", []) for outlet in row["feed"]}
    because = {item["outlet"]: item["because"] for item in state.get("unknown", [])}
    return [_row(place, boards.get(place["outlet"]), because) for place in state.get("outlets", [])]


def _row(place: dict[str, Any], board: dict[str, Any] | None, because: dict[str, str]) -> Row:
    outlet, at = place["outlet"], place["at"]
    listens = place.get("listens_s") is not None
    now = f"on {place['listens_s']:.0f} s" if at == "listening" and listens else _NOW.get(at, "")
    if not now:
        now = "off" if place["tries"] else "waits"
    kind = "board" if board is not None else "open" if place["tries"] else ""
    verdict = ""
    if at in {"broken", "lost"}:
        kind, verdict = "fault", because.get(outlet, "would not go back to what it was")
    elif board is not None:
        others = [other for other in board["feed"] if other != outlet]
        verdict = " ".join([f"board, {board['confidence'] * 100:.2f} %", *(f"with {other}" for other in others)])
    elif place["tries"] and not listens:
        verdict = f"open: {because.get(outlet, '')}"
    if listens and kind != "fault":
        kind = "on"
    return Row(shown(outlet), now, _seen(place), shown(verdict), kind)


def _seen(place: dict[str, Any]) -> str:
    """What is heard now; what was heard in an earlier try stands in brackets."""
    heard = place.get("heard", [])
    now = [_sign(one) for one in heard if one["now"]]
    watts = place.get("watts")
    if watts is not None and place.get("listens_s") is not None:
        now.insert(0, f"{watts:.1f} W")
    before = [_sign(one) for one in heard if not one["now"]]
    return ", ".join(now + ([f"({', '.join(before)})"] if before else []))


def _sign(one: dict[str, Any]) -> str:
    kind, name, words = one["kind"], shown(one["name"]), shown(one["words"])
    if kind == "console":
        return f"console {name.rpartition('/')[2]}" + (f" {words}" if words else "")
    if kind != "mac":
        return f"{kind} {name}"
    short = name[-8:]  # the maker's half says little
    if words.startswith(("registers", "fetches")):
        return f"{short} {words}"
    return f"{short} neighbour" if _is_address(words) else f"DHCP {short}" + (f" {words}" if words else "")


def _is_address(words: str) -> bool:
    try:
        ip_address(words)
    except ValueError:
        return False
    return True


def cut(rows: list[Row], most: int) -> tuple[list[Row], str]:
    """At most `most` lines of rows, in their order, those that matter most now; and what the last line says of the
    rest, if there is a rest."""
    if len(rows) <= most:
        return rows, ""
    ranked = sorted(range(len(rows)), key=lambda at: (_RANK[rows[at].kind], at))
    kept = set(ranked[: max(0, most - 1)])
    rest = Counter(row.kind for at, row in enumerate(rows) if at not in kept)
    text = ", ".join(f"{rest[kind]} {_NAMES[kind]}" for kind in _RANK if rest[kind])
    return [row for at, row in enumerate(rows) if at in kept], f"… {rest.total()} more: {text}"


def picture(state: dict[str, Any], latest: list[str], note: str, gone_s: float, size: tuple[int, int]) -> list[Text]:
    """The lines of the screen, no more and no longer than `size` (columns, lines). `gone_s`: since it began."""
    width, height = size
    rows = rows_of(state)
    room = max(1, height - 2 - bool(note))
    kept, rest = cut(rows, room)
    lines = [
        _line(HEADS, _widths(kept, width), "bold"),
        *(_line(row[:4], _widths(kept, width), _STYLES[row.kind]) for row in kept),
    ]
    if rest:
        lines.append(Text(rest, style="dim"))
    free = height - len(lines) - 1 - bool(note)
    if free > 1 and latest:
        lines += [Text(), *(Text(text, style="dim") for text in latest[-min(LINES_SHOWN, free - 1) :])]
    if note:
        lines.append(Text(note, style="bold yellow"))
    lines.append(Text(_foot(rows, state, gone_s), style="bold"))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines[-height:] if height < len(lines) else lines


def _widths(rows: list[Row], width: int) -> tuple[int, int, int, int]:
    outlet = min(OUTLET_MOST, max([len(HEADS[0]), *(len(row.outlet) for row in rows)]))
    free = max(0, width - outlet - NOW_WIDTH - 3 * GAP)
    verdict = min(max(VERDICT_LEAST, free * 2 // 5), free)
    return outlet, NOW_WIDTH, free - verdict, verdict


def _line(cells: tuple[str, ...], widths: tuple[int, ...], style: str) -> Text:
    line = Text(style=style, no_wrap=True, overflow="ellipsis")
    for at, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = Text(cell)
        text.truncate(width, overflow="ellipsis", pad=at < len(cells) - 1)
        line.append_text(text)
        if at < len(cells) - 1:
            line.append(" " * GAP)
    return line


def _foot(rows: list[Row], state: dict[str, Any], gone_s: float) -> str:
    kinds = Counter(row.kind for row in rows)
    left_s = state.get("left_s")
    left = "time left unknown" if left_s is None else f"about {clock(left_s)} left"
    known = len(state.get("rows", []))
    boards = f"{known} board{'' if known == 1 else 's'} found"
    return f"{len(rows)} outlets, {kinds['on']} on, {boards}; {clock(gone_s)} gone, {left}; Ctrl-C stops"


def clock(seconds: float) -> str:
    """`1:07`, `2:03:00`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def screen_console() -> Console | None:
    """Standard error, if it is a terminal that can be drawn on."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return console if console.is_terminal and not console.is_dumb_terminal else None


class LearnScreen:
    """A `View` that draws. A context manager: what the terminal showed before is there again when it is left."""

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self.troubles: deque[dict[str, Any]] = deque(maxlen=TROUBLES_KEPT)
        """Lines that say that something went wrong."""
        self._console = console
        self._now = now
        self._live = Live(console=console, screen=True, auto_refresh=False, transient=True)
        self._state: dict[str, Any] = {}
        self._latest: deque[str] = deque(maxlen=LINES_SHOWN)
        self._note = ""
        self._begun_s = now()
        self._drawn: list[Text] = []
        self._size = (0, 0)

    def __enter__(self) -> Self:
        self._live.start()
        self._draw()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def take(self, state: dict[str, Any]) -> None:
        """See `View`."""
        for line in state.get("lines", []):
            self._latest.append(f"{line['at_s']:7.1f} s  {shown(line['message'])}")
            if line["stage"] == "trouble":
                self.troubles.append(line)
        self._state = state
        if "took_s" in state:
            self._begun_s = self._now() - state["took_s"]
        self._draw()

    def say(self, text: str) -> None:
        """See `View`."""
        self._note = text
        self._draw()

    def _draw(self) -> None:
        size = (self._console.width, self._console.height)
        lines = picture(self._state, list(self._latest), self._note, self._now() - self._begun_s, size)
        if lines != self._drawn or size != self._size:
            self._drawn, self._size = lines, size
            self._live.update(Group(*lines), refresh=True)
