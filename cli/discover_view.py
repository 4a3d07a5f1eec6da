"""`boardhand discover`: what was found, as a tree for people and as JSON."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.text import Text
from rich.tree import Tree

from agent.discovery.findings import Candidate, Problem, SerialLine, outlets_text
from agent.discovery.known import tty
from cli.discover import Found, ProgressOf
from cli.discover_local import OLD_CABLE
from cli.hubs import Shown, child_text
from cli.plain_text import shown

PLAIN_COLUMNS = 200
"""Of a line where the output is no terminal: it is for grep, so that lines are not broken."""


@contextmanager
def progress_bars() -> Iterator[ProgressOf]:
    """Bars on standard error while it is a terminal; nothing else."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _what: lambda _done, _count: None
        return
    with Progress(console=console, transient=True) as bars:

        def begun(what: str) -> Callable[[int, int], None]:
            bar = bars.add_task(what, total=None, visible=False)
            return lambda done, count: bars.update(bar, completed=done, total=count, visible=True)

        yield begun


def show(found: Found, known: Collection[str]) -> None:
    """The tree on standard output, what hindered on standard error. `known` are identities in the settings."""
    trunk = Tree("found")
    as_controllers = {one.keys["hub"]: one for one in found.local.candidates if "hub" in one.keys}
    hubs = _branch(trunk, "USB hubs", found.local.hubs)
    for hub in found.local.hubs:
        _hub(hubs, hub, as_controllers.get(str(hub.view.hub.id)), known)
    lines = _branch(trunk, "serial ports", found.lines)
    for line in found.lines:
        _line(lines, line, known)
    for title, candidates in (
        ("relay boards", [one for one in found.local.candidates if "hub" not in one.keys]),
        ("power cables", found.cables),
        ("PDUs and PoE switches", found.pdus),
        ("plugs", found.plugs),
    ):
        branch = _branch(trunk, title, candidates)
        for one in candidates:
            _candidate(branch, one, known)
    others = _branch(trunk, "other SNMP devices", found.others)
    for other in found.others:
        others.add(_text(f"{other.address}  {other.about}"))
    servers = _branch(trunk, "MQTT servers", found.servers)
    for server in found.servers:
        servers.add(_text(f"{server.url}  by {server.by}"))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_COLUMNS
    console.print(trunk, soft_wrap=False)
    if found.lines and not any(OLD_CABLE in line.hints for line in found.lines):
        console.print(_text(f"any serial port {OLD_CABLE}"))
    for problem in found.hindrances:
        print(f"boardhand: {shown(problem)}", file=sys.stderr)


def document(found: Found, names: dict[str, Candidate], known: Collection[str]) -> dict[str, Any]:
    """The same as one JSON document. `names` are those that would be, or were, written."""
    by_candidate = {id(one): name for name, one in names.items()}
    return {
        "hubs": [_hub_document(hub) for hub in found.local.hubs],
        "controllers": [_candidate_document(one, by_candidate.get(id(one)), known) for one in found.candidates],
        "serial_ports": [
            {"device": line.device, "about": line.about, "hints": list(line.hints), "known": tty(line.device) in known}
            for line in found.lines
        ],
        "other_devices": [{"address": other.address, "about": other.about} for other in found.others],
        "mqtt_servers": [{"url": server.url, "by": server.by} for server in found.servers],
        "problems": [_problem_document(problem) for problem in found.hindrances],
    }


def _branch(trunk: Tree, title: str, things: Sequence[object]) -> Tree:
    return trunk.add(_text(f"{title}: {len(things)}" if things else f"{title}: none"))


def _hub(branch: Tree, hub: Shown, controller: Candidate | None, known: Collection[str]) -> None:
    one = hub.view.hub
    what = "root hub" if one.is_root else f"{one.vendor}:{one.product} {one.label}".strip()
    mark = "" if controller is None else _mark(controller, known)
    leaf = branch.add(_text(f"{'  ' * hub.depth}{one.id}  {what}{mark}"))
    width = max((len(socket.truth.word) for socket in hub.sockets), default=0)
    for socket in hub.sockets:
        there = ", ".join(child_text(child) for child in socket.children) or "-"
        leaf.add(_text(f"{socket.port.number:>2}  {socket.truth.word:<{width}}  {there}"))
    if controller is not None and controller.unwritten:
        leaf.add(_text(f"not written: {controller.unwritten}"))


def _line(branch: Tree, line: SerialLine, known: Collection[str]) -> None:
    mark = "  (in the settings)" if tty(line.device) in known else ""
    leaf = branch.add(_text(f"{line.device}{mark}"))
    leaf.add(_text(line.about))
    for hint in line.hints:
        leaf.add(_text(hint))


def _candidate(branch: Tree, one: Candidate, known: Collection[str]) -> None:
    leaf = branch.add(_text(f"{one.about}{_mark(one, known)}"))
    for text in (outlets_text(one.outlets), *one.hints, f"not written: {one.unwritten}" if one.unwritten else ""):
        if text:
            leaf.add(_text(text))


def _mark(one: Candidate, known: Collection[str]) -> str:
    return "" if one.identities.isdisjoint(known) else "  (in the settings)"


def _hub_document(hub: Shown) -> dict[str, Any]:
    one = hub.view.hub
    return {
        "id": str(one.id),
        "root": one.is_root,
        "depth": hub.depth,
        "vendor": one.vendor,
        "product": one.product,
        "label": one.label,
        "serial": one.own_serial,
        "ports": [
            {
                "port": socket.port.number,
                "power": socket.power,
                "truth": socket.truth.word,
                "why": socket.truth.why,
                "children": [child_text(child, behind=True) for child in socket.children],
            }
            for socket in hub.sockets
        ],
    }


def _candidate_document(one: Candidate, name: str | None, known: Collection[str]) -> dict[str, Any]:
    return {
        "name": name,
        "settings": dict(one.keys),
        "about": one.about,
        "outlets": list(one.outlets),
        "hints": list(one.hints),
        "known": not one.identities.isdisjoint(known),
        "unwritten": one.unwritten or None,
    }


def _problem_document(problem: Problem) -> dict[str, str | None]:
    return {"where": problem.where, "what": problem.what, "do": problem.do or None}


def _text(text: str) -> Text:
    return Text(shown(text))
