"""Whether what learn found is so: every row and every "unknown" against the truth that the farm was built by.

Knows nothing of how learn works, and none of its code.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.support.learn_cabling import Board, Truth

BOOT_MOST_S = 90.0
"""Above a board's least boot time: three machines under emulation on two cores, beside somebody else's load."""
ROUNDED_S = 0.06
"""Learn tells tenths."""
SOMETHING, NOTHING = "something is there", "nothing is there"


@dataclass
class Verdict:
    """What is to be said of one run.

    Attributes:
        right: boards whose row is so, in all that it says.
        unknown: board or outlet that cannot be known -> what learn says of it.
        missed: what could have been known and was not, or was left in another state.
        wrong: what was said and is not so.
    """

    right: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.missed and not self.wrong


def judge(truth: Truth, found: Mapping[str, Any]) -> Verdict:
    """Compare. `found` is the last line of `boardhand learn --json`, its consoles' places replaced by ports' names."""
    verdict = Verdict()
    by_feed = {frozenset(board.feed): board for board in truth.boards.values()}
    because = {item["outlet"]: item["because"] for item in found["unknown"]}
    seen: set[str] = set()
    for row in found["rows"]:
        board = by_feed.get(frozenset(row["feed"]))
        if board is None or not board.heard or board.name in seen:
            verdict.wrong.append(f"{', '.join(row['feed'])}: a row of {_heard(row)}, and {_there(truth, row['feed'])}")
            continue
        seen.add(board.name)
        wrong = list(_not_so(truth, board, row))
        verdict.wrong += [f"{board.name} at {', '.join(board.feed)}: {what}" for what in wrong]
        short = list(_short(board, row))
        verdict.missed += [f"{board.name} at {', '.join(board.feed)}: {what}" for what in short]
        if not wrong and not short:
            verdict.right.append(board.name)
    for board in truth.boards.values():
        for outlet in board.feed if board.name not in seen else ():
            told = because.get(outlet)
            if told is None:
                verdict.missed.append(f"{board.name} at {outlet}: no word of it")
            elif board.heard:
                verdict.missed.append(f"{board.name} at {outlet}: unknown, because {told}")
            else:
                _judge_meter(verdict, truth, outlet, told, board.name)
    for outlet in truth.empty:
        _judge_meter(verdict, truth, outlet, because.get(outlet, ""), None)
    if truth.kept in because or any(truth.kept in row["feed"] for row in found["rows"]):
        verdict.wrong.append(f"{truth.kept}: it was to be left alone")
    return verdict


def judge_state(verdict: Verdict, truth: Truth, on: Iterable[str], edges: Mapping[str, int]) -> None:
    """Add what became of the outlets: all as they were found, and the marked one never switched but by us."""
    left, before = set(on), {*truth.found_on, truth.kept}
    verdict.missed += [f"{outlet}: on, and was found off" for outlet in sorted(left - before)]
    verdict.missed += [f"{outlet}: off, and was found on" for outlet in sorted(before - left)]
    if edges.get(truth.kept, 0) != 1:
        verdict.wrong.append(f"{truth.kept}: it was to be left alone, and was switched")


def _heard(row: Mapping[str, Any]) -> str:
    return ", ".join([*row["macs"], *row["consoles"], *row["links"], *row["usb"]]) or "nothing"


def _there(truth: Truth, feed: Iterable[str]) -> str:
    names = [board.name for board in truth.boards.values() if set(board.feed) & set(feed)]
    return f"there hangs {', '.join(names)}" if names else "nothing hangs there"


def _not_so(truth: Truth, board: Board, row: Mapping[str, Any]) -> Iterable[str]:
    for what in ("macs", "consoles", "links"):
        for name in sorted(set(row[what]) - getattr(board, what)):
            yield f"{what}: {name} is not its own"
    for name in row["usb"]:
        yield f"USB {name} is not its own"
    boot_s = row["boot_s"]
    if boot_s is not None and not board.registers:
        yield f"boot time {boot_s} s, and it never says that it is up"
    elif boot_s is not None and not board.boot_s - ROUNDED_S <= boot_s <= board.boot_s + BOOT_MOST_S:
        yield f"boot time {boot_s} s, and true are {board.boot_s} s and little more"
    if truth.metered.issuperset(board.feed):
        # Two outlets share the load of one board while both are on.
        least, most = min(board.watts) / len(board.feed), max(board.watts)
        if any(row[key] is not None and not least <= row[key] <= most for key in ("idle_w", "busy_w")):
            yield f"{row['idle_w']} to {row['busy_w']} W, and it draws {least} to {most} W"


def _short(board: Board, row: Mapping[str, Any]) -> Iterable[str]:
    for what in ("macs", "consoles", "links"):
        for name in sorted(getattr(board, what) - set(row[what])):
            yield f"{what}: {name} is missing"
    if board.registers and row["boot_s"] is None:
        yield "no boot time"


def _judge_meter(verdict: Verdict, truth: Truth, outlet: str, told: str, board: str | None) -> None:
    """Of an outlet of which nothing can be heard: is that said, and what the meter shows?"""
    if "nothing that goes with it was heard" not in told:
        verdict.missed.append(f"{outlet}: {told or 'no word of it'}")
    elif outlet in truth.metered and (SOMETHING if board else NOTHING) not in told:
        verdict.wrong.append(f"{outlet}: {told}; and {board or 'nothing'} hangs there")
    else:
        verdict.unknown[board or outlet] = told
