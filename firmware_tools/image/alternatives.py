"""What `update-alternatives --install` in packages' scripts would have linked (update-alternatives(1)).

Its records are written as well, so that it goes on from there on the board.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from firmware_tools.image.debs import Deb
from firmware_tools.image.tree import Tree, merged

_COMMAND = re.compile(r"update-alternatives\s+(?:--quiet\s+|--force\s+)?(--install\s[^\n;&|]*)")


@dataclass(frozen=True, slots=True)
class Choice:
    """One `--install`: link, name, the file, its priority, and the slaves as (link, name, file)."""

    link: str
    name: str
    file: str
    priority: int
    slaves: tuple[tuple[str, str, str], ...]


def choices(script: str) -> Iterator[Choice]:
    """The choices that a script installs. Those with shell variables in them are passed over."""
    for found in _COMMAND.finditer(script.replace("\\\n", " ")):
        try:
            words = shlex.split(found[1])
        except ValueError:
            continue
        if len(words) < 5 or "$" in found[1] or "`" in found[1] or not words[4].lstrip("-").isdigit():
            continue
        slaves = []
        for at, word in enumerate(words):
            if word == "--slave" and at + 3 < len(words):
                slaves.append((words[at + 1], words[at + 2], words[at + 3]))
        yield Choice(words[1], words[2], words[3], int(words[4]), tuple(slaves))


def link_all(tree: Tree, debs: Sequence[Deb]) -> None:
    """Link each alternative to the file with the highest priority that is there; of equals to the first by name."""
    by_name: dict[str, list[Choice]] = {}
    for deb in debs:
        for choice in choices(deb.script("postinst")):
            if merged(choice.file.lstrip("/")) in tree:
                by_name.setdefault(choice.name, []).append(choice)
    for name in sorted(by_name):
        offered = sorted(by_name[name], key=lambda choice: (-choice.priority, choice.file))
        best = offered[0]
        _link(tree, best.link, name, best.file)
        for link, slave, file in best.slaves:
            if merged(file.lstrip("/")) in tree:
                _link(tree, link, slave, file)
        tree.file(f"var/lib/dpkg/alternatives/{name}", _record(offered))


def _link(tree: Tree, link: str, name: str, file: str) -> None:
    at = merged(link.lstrip("/"))
    if at not in tree:
        tree.link(at, f"/etc/alternatives/{name}")
    tree.link(f"etc/alternatives/{name}", file)


def _record(offered: Sequence[Choice]) -> str:
    slaves = sorted({(name, link) for choice in offered for link, name, _ in choice.slaves})
    lines = ["auto", offered[0].link]
    for name, link in slaves:
        lines += [name, link]
    lines.append("")
    for choice in sorted(offered, key=lambda one: one.file):
        files = {name: file for _, name, file in choice.slaves}
        lines += [choice.file, str(choice.priority), *(files.get(name, "") for name, _ in slaves)]
    return "\n".join([*lines, "", ""])
