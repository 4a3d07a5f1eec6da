"""`udev check`: whether the rules are installed and do what they say, device by device."""

import grp
import json
import os
import pwd
import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.boards import lines
from cli.exits import Exit, usage
from cli.plain_text import shown
from cli.udev_host import NO_PROGRAM, UdevHost
from cli.udev_rules import Asked, Rules, rules_for
from udev.rules import Named
from udev.rules_devices import farm_devices
from udev.serial_ports import SerialPort
from udev.usb_hubs import usb_hubs

_MM_FLAGS = ("ID_MM_DEVICE_IGNORE", "ID_MM_PORT_IGNORE")
_GROUP_MAY = stat.S_IRGRP | stat.S_IWGRP


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    stands: bool
    state: str
    """What was found, as a clause."""
    do: str = ""
    """The command that mends it."""
    device: str = ""


def findings(host: UdevHost, asked: Asked, user: str | None = None) -> tuple[list[Finding], list[str]]:
    """What is and whether it is as it should be, for `user` if one is named; and what a person should know.

    Raises:
        CliError: the settings are wrong, no safe rule can be written for what they name, or there is no such user.
    """
    rules = rules_for(host, asked)
    mend = _install_command(host, asked)
    found = [*_files(host, rules, mend), *_verify(host, rules)]
    if host.live:
        found += _udev(rules)
        found += [finding for entry in rules.names for finding in _name(host, rules, entry, asked.group, mend)]
        found += [*_hubs(host, asked.group, mend), *_devices(host, asked.group, mend)]
        found += _user(asked.group, user)
    return found, rules.notices


def check(host: UdevHost, asked: Asked, user: str | None, *, as_json: bool) -> int:
    """Compare what is with what should be. Exit 1 if something does not stand."""
    found, notices = findings(host, asked, user)
    good = all(finding.stands for finding in found)
    if as_json:
        documents = [
            {
                "what": f.what,
                "device": f.device or None,
                "ok": f.stands,
                "state": f.state,
                "do": None if f.stands else f.do or None,
            }
            for f in found
        ]
        print(json.dumps({"ok": good, "findings": documents, "notices": notices}))
        return Exit.OK if good else Exit.FAILED
    rows = [("ok" if f.stands else "WRONG", shown(f.what), shown(f.device), shown(f.state)) for f in found]
    print("\n".join(lines(rows, ("", "WHAT", "DEVICE", "STATE"))))
    for notice in notices:
        print(f"note: {shown(notice)}")
    for command in dict.fromkeys(f.do for f in found if not f.stands and f.do):
        print(f"to mend it: {shown(command)}")
    return Exit.OK if good else Exit.FAILED


def _install_command(host: UdevHost, asked: Asked) -> str:
    words = ["boardhand", "udev", "install", *asked.words]
    words += ["--settings", str(asked.settings)] if asked.settings is not None else []
    words += ["--group", asked.group] if asked.group != Asked().group else []
    words += ["--fresh"] if asked.fresh else []
    words += ["--root", str(host.root)] if not host.live else []
    return shlex.join(words)


def _files(host: UdevHost, rules: Rules, mend: str) -> Iterator[Finding]:
    for name, text in rules.files.items():
        path, there = host.effective(name) or (host.file(name), None)
        state = "is not installed" if there is None else "as it should be" if there == text else "differs"
        yield Finding(str(path), there == text, state, mend)


def _verify(host: UdevHost, rules: Rules) -> Iterator[Finding]:
    """The checker that udev itself has: systemd 254 and later."""
    files = [str(found[0]) for name in rules.files if (found := host.effective(name)) is not None]
    listing = host.run(["udevadm", "--help"])
    if not files or listing.returncode == NO_PROGRAM or not re.search(r"^\s+verify\b", listing.stdout, re.MULTILINE):
        return
    done = host.run(["udevadm", "verify", *files])
    words = " ".join((done.stderr or done.stdout).split()) if done.returncode else "accepts them"
    yield Finding(
        "udevadm verify", done.returncode == 0, words, "tell the makers of boardhand: a rule of ours is wrong"
    )


def _udev(rules: Rules) -> Iterator[Finding]:
    """Whether udev's database could be asked at all: without it nothing is known of ModemManager's flags."""
    if rules.seen.ports and not rules.seen.properties:
        do = "apt-get install udev; in a container: run this on its host, whose udev makes the nodes"
        yield Finding("udev", stands=False, state="udevadm tells of no serial port", do=do)


def _name(host: UdevHost, rules: Rules, entry: Named, group: str, mend: str) -> Iterator[Finding]:
    link = f"/dev/{entry.symlink}"
    ports = rules.seen.selected(entry.terms)
    if not ports:
        yield Finding(link, stands=True, state="nothing that it names is plugged in now")
        return
    if len(ports) > 1:
        nodes = " and ".join(port.node for port in ports)
        do = f"boardhand udev install {entry.board}:{entry.role}={ports[0].name}, if that is the one"
        yield Finding(link, stands=False, state=f"{nodes} answer to it", do=do)
        return
    (port,) = ports
    properties = rules.seen.properties.get(port.name, {})
    wrong, do = _link_fault(host, link, port, mend)
    faults = [wrong] if wrong else []
    access = _closed(host.dev / port.name, group)
    faults += [access] if access else []
    asked = bool(rules.seen.properties)
    missing = [flag for flag in _MM_FLAGS if asked and properties.get(flag) != "1"]
    faults += [f"ModemManager may open it: {' and '.join(missing)} not set"] if missing else []
    state = "; ".join(faults) or f"name, access and ModemManager flags stand; {entry.how}"
    yield Finding(link, not faults, state, do or mend, port.node)


def _link_fault(host: UdevHost, link: str, port: SerialPort, mend: str) -> tuple[str, str]:
    """What is wrong with a name, and what mends it; empty if nothing is."""
    path = host.dev / link.removeprefix("/dev/")
    leads_to = host.resolve(link) if path.is_symlink() else None
    if leads_to == port.name:
        return "", ""
    folder = f"/sys/class/tty/{port.name}"
    tried = host.run(["udevadm", "test", "--action=change", folder])
    links = re.search(r"^\s*DEVLINKS=(.*)$", tried.stdout + "\n" + tried.stderr, re.MULTILINE)
    fault = "the name is not there" if leads_to is None else f"the name leads to {leads_to}"
    if links is not None and link in links[1].split():
        return f"{fault}, though the rules give it", f"udevadm trigger --action=change --settle {folder}"
    return fault, mend


def _closed(node: Path, group: str) -> str:
    """Why the group may not read and write a node, as a clause; empty if it may."""
    try:
        found = node.stat()
    except OSError as error:
        return f"{node}: {error.strerror}"
    owner = _group_name(found.st_gid)
    if owner != group and (found.st_mode & 0o006) != 0o006:
        return f"{node} belongs to group {owner}"
    if found.st_mode & _GROUP_MAY != _GROUP_MAY:
        return f"{node} has mode {stat.S_IMODE(found.st_mode):04o}"
    return ""


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _hubs(host: UdevHost, group: str, mend: str) -> Iterator[Finding]:
    for hub in usb_hubs(host.sysfs):
        node = host.dev / f"bus/usb/{hub.bus:03d}/{hub.device:03d}"
        faults = [_closed(node, group), *(_closed(port.disable, group) for port in hub.ports if port.switchable)]
        found = [fault for fault in faults if fault]
        ports = sum(port.switchable for port in hub.ports)
        good = f"open, with {ports} ports" if ports else "open; this kernel has no attribute that switches its ports"
        state = f"{found[0]}" + (f", and {len(found) - 1} more" if len(found) > 1 else "") if found else good
        yield Finding(f"hub {hub.id}", not found, state, mend, hub.name)


def _devices(host: UdevHost, group: str, mend: str) -> Iterator[Finding]:
    for device in farm_devices(host.sysfs):
        faults = [fault for node in device.nodes if (fault := _closed(host.dev / node, group))]
        nodes = ", ".join(f"/dev/{node}" for node in device.nodes)
        yield Finding(device.what, not faults, "; ".join(faults) or f"open: {nodes}", mend, device.name)


def _user(group: str, user: str | None) -> Iterator[Finding]:
    """Whether the agent's user is in the group. Its primary group counts as well."""
    try:
        members = grp.getgrnam(group)
    except KeyError:
        yield Finding(f"group {group}", stands=False, state="there is no such group", do=f"groupadd --system {group}")
        return
    if user is None:
        return
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise usage(f"there is no user {user!r}", "name the one that the agent runs as") from None
    belongs = account.pw_uid == 0 or members.gr_gid in os.getgrouplist(user, account.pw_gid)
    state = f"may use what {group} may" if belongs else f"is not in group {group}"
    yield Finding(f"user {user}", belongs, state, f"usermod -aG {group} {user}, then start its agent anew")
