"""udev rules that give consoles and power cables names which stay: `/dev/boards/<board>-console`.

A cable is known by its serial number where that is unique, so that it may move to another port; otherwise by the
port it is plugged into. Syntax: udev(7). Everything in a rule that came out of a device, out of settings or out of a
file goes through `_quoted`, which refuses what could end the string, the line or the literal comparison, so no serial
number can write a rule.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from udev.serial_ports import SerialPort

RULES_FILE_NAME = "70-boardhand-consoles.rules"
"""After 60-serial.rules, which reads the adapter, and before ModemManager's 77 to 80, which open it."""
DEFAULT_GROUP = "dialout"  # Debian's and Ubuntu's group for serial ports

# Letters that mean only themselves in a match: udev compares with fnmatch, takes `|` as "or", expands `$` and `%` in
# assignments, and a quote or line break would end the value. Inner blanks are common in serial numbers and harmless.
_PLAIN = re.compile(r"[A-Za-z0-9_.:,+=@/-]([A-Za-z0-9_.:,+=@/ -]{0,250}[A-Za-z0-9_.:,+=@/-])?")
_BOARD = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # the same as the ids of the contract; this room imports none of ours
_GROUP = re.compile(r"[a-z_][a-z0-9_-]{0,31}")  # useradd(8), NAME_REGEX on Debian

_HEAD = """\
# Written by boardhand; it will be overwritten. Names of the serial cables of a farm.
ACTION=="remove", GOTO="boardhand_end"
SUBSYSTEM!="tty", GOTO="boardhand_end"
SUBSYSTEMS=="usb", ENV{ID_PATH}=="", IMPORT{builtin}="path_id"
SUBSYSTEMS=="usb", ENV{ID_USB_INTERFACE_NUM}=="", IMPORT{builtin}="usb_id"
"""
_TAIL = 'LABEL="boardhand_end"\n'

# What `_rule` and `_comment` write, to read it back.
_TERM = re.compile(r'(KERNELS?|ATTRS\{[A-Za-z]+\}|ENV\{[A-Za-z_.]+\})=="([^"]*)"')
_NAME = re.compile(r'SYMLINK\+="boards/([a-z0-9-]+)-([a-z]+)"')
_COMMENT = re.compile(r"# [a-z0-9-]+, [a-z]+: ([ -~]{1,200})\.")

BY_SERIAL = "by serial number: it may move to another port"
BY_NAME = "by the name that it gives itself, as the settings say: it may move to another port"
BY_PLACE = "by port, as the settings say: it must stay where it is"


class RuleError(ValueError):
    """No safe rule can be written; the text names the board or the port, and what to do."""


class Role(StrEnum):
    """What a serial cable is."""

    CONSOLE = "console"
    CABLE = "cable"
    """A board's power cable."""
    POWER = "power"
    """The port of a controller that feeds several boards; the name before it is the controller's."""


Terms = tuple[tuple[str, str], ...]
"""The comparisons of a rule, as (key, literal value): `("ATTRS{serial}", "A5XK3RJT")`."""


@dataclass(frozen=True, slots=True)
class Named:
    """What meets `terms` is the `role` of `board`."""

    board: str
    role: Role
    terms: Terms
    how: str
    """How it is known and what follows from that, as a clause for people."""

    @property
    def symlink(self) -> str:
        """The name below `/dev`, `boards/rpi4-1-console`."""
        return f"boards/{self.board}-{self.role.value}"


@dataclass(frozen=True, slots=True)
class NamedPort:
    """`port` is the `role` of `board`."""

    board: str
    role: Role
    port: SerialPort

    @property
    def symlink(self) -> str:
        """The name below `/dev`, `boards/rpi4-1-console`."""
        return f"boards/{self.board}-{self.role.value}"

    def known(self) -> Named:
        """The same by what tells the port apart.

        Raises:
            RuleError: nothing about the port can stand in a rule.
        """
        return Named(self.board, self.role, match_terms(self.port), how_known(self.port))


def udev_rules(named: Iterable[NamedPort | Named], *, group: str = DEFAULT_GROUP) -> str:
    """The text of a rules file that names these ports, keeps ModemManager from writing to them, and opens them to
    `group`. The same ports give the same text whatever their order.

    Raises:
        RuleError: a name is no id, a group is no group name, two ports would get one name, one port would get two, or
            a port has nothing that tells it apart.
    """
    known = [entry if isinstance(entry, Named) else entry.known() for entry in named]
    entries = sorted(known, key=lambda entry: entry.symlink)
    checked_group(group)
    _refuse_doubles(entries)
    return _HEAD + "".join(f"{_comment(entry)}\n{_rule(entry, group)}\n" for entry in entries) + _TAIL


def checked_group(group: str) -> str:
    """`group`, if it can be one.

    Raises:
        RuleError: it cannot.
    """
    if _GROUP.fullmatch(group) is None:
        raise RuleError(f"{group!r} is no group name: use lower case letters, digits, '-' and '_'")
    return group


def read_names(text: str) -> dict[str, Named]:
    """What a file that `udev_rules` wrote names, by symlink. Lines that it would not have written are passed over."""
    found: dict[str, Named] = {}
    before = ""
    for line in text.splitlines():
        name, comment = _NAME.search(line), _COMMENT.fullmatch(before)
        before = line
        if name is None or name[2] not in set(Role) or line.startswith("#"):
            continue
        terms = tuple((term[1], term[2]) for term in _TERM.finditer(line))
        if terms and all(_PLAIN.fullmatch(value) for _, value in terms):
            entry = Named(name[1], Role(name[2]), terms, comment[1] if comment is not None else "as it was installed")
            found[entry.symlink] = entry
    return found


def facts(port: SerialPort, properties: Mapping[str, str]) -> dict[str, str]:
    """What a rule's comparisons see of `port`, by key; `properties` are those of udev's database."""
    seen = {"KERNEL": port.name, "KERNELS": port.hardware}
    seen |= {f"ENV{{{key}}}": properties[key] for key in ("ID_BUS", "ID_SERIAL", "ID_PATH") if key in properties}
    if port.usb is not None:
        seen |= {"ATTRS{idVendor}": port.usb.vendor, "ATTRS{idProduct}": port.usb.product}
        seen |= {"ATTRS{serial}": port.usb.serial or "", "ENV{ID_USB_INTERFACE_NUM}": port.usb.interface}
        seen |= {"ENV{ID_PATH}": port.id_path or ""}
    if port.port_number is not None:
        seen |= {"ENV{.ID_PORT}": str(port.port_number)}
    return seen


def selects(terms: Terms, seen: Mapping[str, str]) -> bool:
    """Whether a rule with these comparisons is for the port that `facts` tells of."""
    return all(seen.get(key) == value for key, value in terms)


def how_known(port: SerialPort) -> str:
    """How a rule for `port` knows it, why, and what follows, as a clause."""
    if port.usb is None:
        return "on the board of this host"
    if known_by_serial(port):
        return BY_SERIAL
    if port.usb.serial is None:
        return "by port, since the adapter has no serial number: it must stay where it is"
    if port.serial_is_shared:
        return "by port, since its serial number is not its own: it must stay where it is"
    return "by port, since its serial number cannot stand in a rule: it must stay where it is"


def known_by_serial(port: SerialPort) -> bool:
    """Whether a rule for `port` goes by its serial number, and so follows the adapter to another USB port."""
    return port.has_own_serial and port.usb is not None and _PLAIN.fullmatch(port.usb.serial or "") is not None


def match_terms(port: SerialPort) -> Terms:
    """The comparisons of a udev rule that are true for `port` and for no other port.

    Raises:
        RuleError: nothing about it can stand in a rule.
    """
    if port.usb is None:
        # No adapter that moves: the hardware's own name, and the port's because one chip may carry several.
        terms = [("KERNEL", port.name), ("KERNELS", port.hardware)]
    elif known_by_serial(port):
        # All three ATTRS must be met by one and the same parent, which is the adapter; see udev(7), KERNELS.
        terms = [
            ("ATTRS{idVendor}", port.usb.vendor),
            ("ATTRS{idProduct}", port.usb.product),
            ("ATTRS{serial}", port.usb.serial or ""),
            ("ENV{ID_USB_INTERFACE_NUM}", port.usb.interface),
        ]
    elif port.id_path is None:
        raise RuleError(
            f"{port.name!r} has no serial number of its own and sysfs shows no path to it: use an adapter with a serial"
        )
    else:
        terms = [("ENV{ID_PATH}", port.id_path)]
    if port.usb is not None and port.port_number is not None:
        terms.append(("ENV{.ID_PORT}", f"{port.port_number:d}"))
    for _, value in terms:
        _quoted(port.name, value)
    return tuple(terms)


def _refuse_doubles(entries: list[Named]) -> None:
    terms: dict[Terms, str] = {}
    previous = ""
    for entry in entries:
        if _BOARD.fullmatch(entry.board) is None:
            raise RuleError(f"{entry.board!r} is no board id: use a-z, 0-9 and '-', at most 63 characters")
        if entry.symlink == previous:
            raise RuleError(f"two ports are the {entry.role.value} of board {entry.board}: give it one of them")
        previous = entry.symlink
        other = terms.setdefault(entry.terms, entry.symlink)
        if other != entry.symlink:
            place = ", ".join(value for _, value in entry.terms)
            raise RuleError(f"one port ({place}) would be both {other} and {entry.symlink}: give it to one of them")


def _rule(entry: Named, group: str) -> str:
    terms = [f"{key}=={_quoted(entry.symlink, value)}" for key, value in entry.terms]
    # ModemManager looks at the port for both; at the whole device for the first one, too.
    terms += [f'SYMLINK+="{entry.symlink}"', 'ENV{ID_MM_DEVICE_IGNORE}="1"', 'ENV{ID_MM_PORT_IGNORE}="1"']
    return ", ".join([*terms, f'GROUP="{group}"', 'MODE="0660"'])


def _comment(entry: Named) -> str:
    return f"# {entry.board}, {entry.role.value}: {entry.how}."


def _quoted(name: str, value: str) -> str:
    if _PLAIN.fullmatch(value) is None:
        raise RuleError(f"{name!r} calls itself {value!r}, which cannot stand in a udev rule")
    return f'"{value}"'
