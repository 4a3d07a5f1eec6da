"""`udev show` and `udev install`: the rules for this host, from its settings, its devices and what was installed."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.exits import CliError, Exit, usage
from cli.plain_text import shown
from cli.udev_host import RULES_FOLDER, UdevHost
from udev.rules import DEFAULT_GROUP, RULES_FILE_NAME, Named, Role, RuleError, read_names, udev_rules
from udev.rules_devices import DEVICE_RULES_FILE_NAME, HUB_RULES_FILE_NAME, device_rules, farm_devices, hub_rules
from udev.rules_plan import OWN_LINKS, Plan, Seen, Wanted, make_plan, own_name
from udev.usb_hubs import usb_hubs


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    words: Sequence[str] = ()
    """`BOARD[:ROLE]=TTY`."""
    settings: Path | None = None
    group: str = DEFAULT_GROUP
    fresh: bool = False
    """Names that were installed and are not asked for go."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The files that this host should have, and what a person should know about them."""

    files: dict[str, str]
    names: list[Named]
    notices: list[str]
    seen: Seen
    before: dict[str, Named] = field(default_factory=dict)


def rules_for(host: UdevHost, asked: Asked) -> Rules:
    """The rules as they should be.

    Raises:
        CliError: the settings are wrong, or no safe rule can be written for what they name.
    """
    seen = host.seen()
    there = host.effective(RULES_FILE_NAME)
    before = read_names(there[1]) if there is not None else {}
    notices: list[str] = []
    wanted = list(_from_words(asked.words))
    insisted = {(want.board, want.role) for want in wanted}
    if asked.settings is not None:
        wanted += [w for w in _from_settings(asked.settings, notices) if (w.board, w.role) not in insisted]
    try:
        plan: Plan = make_plan(wanted, seen, before, fresh=asked.fresh)
        files = {
            RULES_FILE_NAME: udev_rules(plan.names, group=asked.group),
            HUB_RULES_FILE_NAME: hub_rules(group=asked.group),
            DEVICE_RULES_FILE_NAME: device_rules(group=asked.group),
        }
    except RuleError as error:
        raise CliError(Exit.USAGE, shown(error)) from None
    return Rules(files, plan.names, notices + plan.notices, seen, before)


def show(host: UdevHost, asked: Asked, *, as_json: bool) -> int:
    """Print what `install` would write."""
    rules = rules_for(host, asked)
    if as_json:
        print(json.dumps({"files": rules.files, "names": _documents(rules), "notices": rules.notices}))
        return Exit.OK
    for name, text in rules.files.items():
        print(f"# --- /{RULES_FOLDER / name}\n{text}")
    _tell(rules)
    return Exit.OK


def install(host: UdevHost, asked: Asked, *, as_json: bool) -> int:
    """Write the rules that are not there yet, have udev read them, and have it look again at what they are for.

    Raises:
        CliError: a file cannot be written, or udev does not take them.
    """
    rules = rules_for(host, asked)
    files = {}
    for name, text in rules.files.items():
        there = host.effective(name)
        if there is None or there[1] != text:  # what the Debian package brought may be just right
            host.write(name, text)
            there = (host.file(name), text)
        files[name] = str(there[0])
    concerned = _concerned(host, rules) if host.live else []
    if host.live:
        _apply(host, concerned)
    if as_json:
        print(
            json.dumps(
                {
                    "ok": True,
                    "files": list(files.values()),
                    "names": _documents(rules),
                    "triggered": [str(path) for path in concerned],
                    "notices": rules.notices,
                }
            )
        )
        return Exit.OK
    for path in files.values():
        print(path)
    for entry in rules.names:
        print(f"/dev/{entry.symlink}  {entry.how}")
    if host.live:
        print(f"udev has read them and looked at {len(concerned)} devices again; 'boardhand udev check' says how it is")
    else:
        print(f"they count when the system in {host.root} runs")
    _tell(rules)
    return Exit.OK


def _apply(host: UdevHost, concerned: list[Path]) -> None:
    commands = [["udevadm", "control", "--reload"]]
    if concerned:
        # "change": the device stays what it is, nobody's open port is disturbed.
        commands.append(["udevadm", "trigger", "--action=change", *map(str, concerned)])
        commands.append(["udevadm", "settle", "--timeout=60"])
    for command in commands:
        done = host.run(command)
        if done.returncode:
            words = shown(" ".join((done.stderr or done.stdout).split()))
            raise CliError(
                Exit.FAILED,
                f"the rules are written, and {' '.join(command[:2])} failed: {words}",
                "start systemd-udevd and run this again; a container has no udev: install the rules on its host",
            )


def _concerned(host: UdevHost, rules: Rules) -> list[Path]:
    """The folders in sysfs of what the rules are for, or were for until now."""
    found: dict[Path, None] = {}
    for entry in [*rules.names, *rules.before.values()]:
        for port in rules.seen.selected(entry.terms):
            found[(host.sysfs / "class" / "tty" / port.name).resolve()] = None
    for hub in usb_hubs(host.sysfs):
        found[hub.folder] = None
        found.update({port.folder.parent: None for port in hub.ports})
    for device in farm_devices(host.sysfs):
        found.update(dict.fromkeys(device.nodes.values()))
    return list(found)


def _tell(rules: Rules) -> None:
    for notice in rules.notices:
        print(f"boardhand: {shown(notice)}", file=sys.stderr)


def _documents(rules: Rules) -> list[dict[str, object]]:
    return [
        {
            "name": f"/dev/{entry.symlink}",
            "board": entry.board,
            "role": entry.role,
            "known": entry.how,
            "ports": [port.node for port in rules.seen.selected(entry.terms)],
        }
        for entry in rules.names
    ]


def _from_words(words: Sequence[str]) -> Iterator[Wanted]:
    for word in words:
        who, equals, device = word.partition("=")
        board, _, role = who.partition(":")
        if not equals or not device or role not in {"", *Role}:
            raise usage(f"{word!r} is not BOARD=TTY or BOARD:ROLE=TTY", f"roles are {', '.join(Role)}")
        if own_name(device) is not None:
            raise usage(f"{word!r}: that is our own name", "say which port it is: see 'boardhand serial'")
        yield Wanted(board, Role(role) if role else Role.CONSOLE, device, insisted=True)


def _from_settings(path: Path, notices: list[str]) -> Iterator[Wanted]:
    """The serial ports that an agent's settings name: consoles, and controllers on serial ports."""
    from agent.console.settings import PlaceKind
    from agent.settings import load
    from daemon.settings_file import SettingsError

    try:
        settings = load(path)
    except SettingsError as error:
        raise CliError(Exit.USAGE, shown(error)) from None
    for name, board in settings.boards.items():
        if board.console is not None and board.console.place.kind is PlaceKind.TTY:
            yield from _if_serial(name, Role.CONSOLE, board.console.place.path, notices)
    fed = defaultdict(set)
    for name, board in settings.boards.items():
        for outlet in board.outlets:
            fed[outlet.partition(":")[0]].add(name)
    for name, controller in settings.controllers.items():
        device = getattr(controller, "device", None)
        if isinstance(device, str):
            boards = fed[name]
            one = next(iter(boards)) if len(boards) == 1 else None
            yield from _if_serial(one or name, Role.CABLE if one else Role.POWER, device, notices)


def _if_serial(name: str, role: Role, device: str, notices: list[str]) -> Iterator[Wanted]:
    if not device.startswith("/dev/") or device.startswith("/dev/pts/"):
        notices.append(f"{name}: {device} is no device of udev's: no rule for it")
        return
    if device.startswith(OWN_LINKS):
        own = own_name(device)
        if own is None:
            roles = ", ".join(f"-{each}" for each in Role)
            raise usage(f"{name}: {device} is none of our names", f"they end with {roles}")
        name, role = own
    yield Wanted(name, role, device)
