"""How `boardhand learn` is watched: a table on a terminal, lines elsewhere, JSON lines where they are asked for."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from cli.plain_text import shown


class View(Protocol):
    """What is told while an experiment goes on."""

    def take(self, state: dict[str, Any]) -> None:
        """The agent's answer to `state`: what is now, and the lines that are new."""

    def say(self, text: str) -> None:
        """A sentence of ours, for people."""


class JsonLines:
    """One JSON object for each line of the agent's."""

    def take(self, state: dict[str, Any]) -> None:
        for line in state.get("lines", []):
            print(json.dumps(line), flush=True)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)


class PlainLines:
    """One line of text on standard error for each of the agent's."""

    def take(self, state: dict[str, Any]) -> None:
        for line in state.get("lines", []):
            print(line_text(line), file=sys.stderr)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)


@contextmanager
def view_for(*, as_json: bool) -> Iterator[View]:
    """The view that fits where standard error goes. A terminal is as it was when the block ends."""
    if as_json:
        yield JsonLines()
        return
    if not sys.stderr.isatty():
        yield PlainLines()
        return
    from cli.learn_live import LearnScreen, screen_console

    console = screen_console()
    if console is None:
        yield PlainLines()
        return
    screen = LearnScreen(console)
    try:
        with screen:
            yield screen
    finally:
        # The screen is gone, and what went wrong on it is to stay.
        for line in screen.troubles:
            print(line_text(line), file=sys.stderr)


def line_text(line: dict[str, Any]) -> str:
    """One of the agent's lines, for people."""
    return f"{line['at_s']:7.1f} s  {line['percent']:3.0f} %  {shown(line['message'])}"
