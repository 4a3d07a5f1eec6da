"""Every command with its options as plain data, read from the parser itself, for completions and the manual page."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.command_line import build


@dataclass(frozen=True, slots=True)
class Option:
    """One option, or one positional argument where `flags` is empty.

    Attributes:
        value: what stands for its value in the manual; empty where it takes none.
        files: its value is the name of a file or a folder.
    """

    flags: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str
    files: bool = False
    required: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """One command: `words` as typed after `boardhand`, none for the whole."""

    words: tuple[str, ...]
    summary: str
    description: str
    options: tuple[Option, ...]
    arguments: tuple[Option, ...]
    commands: tuple["Page", ...]
    epilog: str = ""


def tree() -> Page:
    """The whole command line."""
    return _page(build(), (), "")


def pages(page: Page) -> Iterator[Page]:
    """`page` and all below it, in the order of the manual."""
    yield page
    for command in page.commands:
        yield from pages(command)


def _page(parser: argparse.ArgumentParser, words: tuple[str, ...], summary: str) -> Page:
    options, arguments, commands = [], [], []
    for action in parser._actions:  # noqa: SLF001  # argparse tells its options to nobody else
        if action.help == argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            named = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            commands += [_page(below, (*words, name), named.get(name, "")) for name, below in action.choices.items()]
        elif action.option_strings:
            options.append(_option(action))
        else:
            arguments.append(_option(action))
    about, end = parser.description or "", parser.epilog or ""
    return Page(words, summary, about, tuple(options), tuple(arguments), tuple(commands), end)


def _option(action: argparse.Action) -> Option:
    takes_one = action.nargs != 0
    metavar = action.metavar if isinstance(action.metavar, str) else None
    choices = tuple(map(str, action.choices)) if action.choices is not None and takes_one else ()
    value = metavar or "|".join(choices) or action.dest.upper()
    return Option(
        tuple(action.option_strings),
        value if takes_one else "",
        choices,
        (action.help or "").replace("%%", "%"),
        files=action.type is Path or (metavar or "") in {"FILE", "DIR"},
        required=bool(action.required) if action.option_strings else action.nargs not in {"?", "*"},
    )
