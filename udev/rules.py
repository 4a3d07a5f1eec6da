"""udev rules that give consoles and power cables names which stay: `/dev/boards/<board>-console`.

A cable is known by its serial number where that is unique, so that it may move to another port; otherwise by the
port it is plugged into. Syntax: udev(7). Everything in a rule that came out of a device goes through `_quoted`, which
refuses what could end the string, the line or the literal comparison, so no serial number can write a rule.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from udev.serial_ports import SerialPort

HUB_RULES_FILE_NAME = "70-boardhand-hubs.rules"
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
# The ports are folders of the hub's interface, and there once its driver is bound. A hub without them, or a kernel
# before 6.0, is no fault: hence `:`.
_HUBS = """\
# Written by boardhand; it will be overwritten. Lets a group switch the ports of USB hubs.
ACTION=="remove|unbind", GOTO="boardhand_hubs_end"
SUBSYSTEM!="usb", GOTO="boardhand_hubs_end"
# For what the hub says of itself, and for class requests.
ENV{{DEVTYPE}}=="usb_device", ATTR{{bDeviceClass}}=="09", GROUP="{group}", MODE="0664"
# Linux 6.0 and later: the ports' attribute `disable`.
ENV{{DEVTYPE}}=="usb_interface", DRIVER=="hub", RUN+="/bin/sh -c '{disable}'"
# Before Linux 6.0 only: lets the group tell the kernel that a device has lost its power. It then may stop any device.
# ENV{{DEVTYPE}}=="usb_device", RUN+="/bin/sh -c '{remove}'"
LABEL="boardhand_hubs_end"
"""
_TAIL = 'LABEL="boardhand_end"\n'


class RuleError(ValueError):
    """No safe rule can be written; the text names the board or the port, and what to do."""


class Role(StrEnum):
    """What a serial cable is to its board."""

    CONSOLE = "console"
    CABLE = "cable"
    """A serial power cable."""


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


def udev_rules(named: Iterable[NamedPort], *, group: str = DEFAULT_GROUP) -> str:
    """The text of a rules file that names these ports, keeps ModemManager from writing to them, and opens them to
    `group`. The same ports give the same text whatever their order.

    Raises:
        RuleError: a name is no id, a group is no group name, two ports would get one name, one port would get two, or
            a port has nothing that tells it apart.
    """
    if _GROUP.fullmatch(group) is None:
        raise RuleError(f"{group!r} is no group name: use lower case letters, digits, '-' and '_'")
    entries = sorted(named, key=lambda entry: entry.symlink)
    _refuse_doubles(entries)
    return _HEAD + "".join(f"{_comment(entry)}\n{_rule(entry, group)}\n" for entry in entries) + _TAIL


def usb_hub_rules(*, group: str = DEFAULT_GROUP) -> str:
    """The text of a rules file that lets `group` switch the ports of USB hubs: by the kernel's `disable` attribute,
    which udev can only open with chgrp and chmod, and by the hub's node for class requests.

    Raises:
        RuleError: `group` is no group name.
    """
    if _GROUP.fullmatch(group) is None:
        raise RuleError(f"{group!r} is no group name: use lower case letters, digits, '-' and '_'")
    disable, remove = "$sys$devpath/*-port*/disable", "$sys$devpath/remove $sys$devpath/authorized"
    return _HUBS.format(
        group=group,
        disable=f"chgrp {group} {disable}; chmod 0664 {disable}; :",
        remove=f"chgrp {group} {remove}; chmod g+w {remove}; :",
    )


def _refuse_doubles(entries: list[NamedPort]) -> None:
    ports: dict[str, str] = {}
    previous = ""
    for entry in entries:
        if _BOARD.fullmatch(entry.board) is None:
            raise RuleError(f"{entry.board!r} is no board id: use a-z, 0-9 and '-', at most 63 characters")
        if entry.symlink == previous:
            raise RuleError(f"two ports are the {entry.role.value} of board {entry.board}: give it one of them")
        previous = entry.symlink
        other = ports.setdefault(entry.port.name, entry.symlink)
        if other != entry.symlink:
            raise RuleError(f"{entry.port.name!r} would be both {other} and {entry.symlink}: give it to one of them")


def _rule(entry: NamedPort, group: str) -> str:
    terms = [*match_terms(entry.port), f'SYMLINK+="{entry.symlink}"']
    terms += ['ENV{ID_MM_DEVICE_IGNORE}="1"', f'GROUP="{group}"', 'MODE="0660"']
    return ", ".join(terms)


def _comment(entry: NamedPort) -> str:
    usb = entry.port.usb
    if usb is None:
        how = "on the board of this host"
    elif known_by_serial(entry.port):
        how = "by serial number: it may move to another port"
    elif usb.serial is None:
        how = "by port, since the adapter has no serial number: it must stay where it is"
    elif entry.port.serial_is_shared:
        how = "by port, since its serial number is not its own: it must stay where it is"
    else:
        how = "by port, since its serial number cannot stand in a rule: it must stay where it is"
    return f"# {entry.board}, {entry.role.value}: {how}."


def known_by_serial(port: SerialPort) -> bool:
    """Whether a rule for `port` goes by its serial number, and so follows the adapter to another USB port."""
    return port.has_own_serial and port.usb is not None and _PLAIN.fullmatch(port.usb.serial or "") is not None


def match_terms(port: SerialPort) -> list[str]:
    """The comparisons of a udev rule that are true for `port` and for no other port.

    Raises:
        RuleError: nothing about it can stand in a rule.
    """
    if port.usb is None:
        # No adapter that moves: the hardware's own name, and the port's because one chip may carry several.
        return [f"KERNEL=={_quoted(port, port.name)}", f"KERNELS=={_quoted(port, port.hardware)}"]
    several = [] if port.port_number is None else [f'ENV{{.ID_PORT}}=="{port.port_number:d}"']
    if known_by_serial(port):
        # All three ATTRS must be met by one and the same parent, which is the adapter; see udev(7), KERNELS.
        return [
            f"ATTRS{{idVendor}}=={_quoted(port, port.usb.vendor)}",
            f"ATTRS{{idProduct}}=={_quoted(port, port.usb.product)}",
            f"ATTRS{{serial}}=={_quoted(port, port.usb.serial or '')}",
            f"ENV{{ID_USB_INTERFACE_NUM}}=={_quoted(port, port.usb.interface)}",
            *several,
        ]
    if port.id_path is None:
        raise RuleError(
            f"{port.name!r} has no serial number of its own and sysfs shows no path to it: use an adapter with a serial"
        )
    return [f"ENV{{ID_PATH}}=={_quoted(port, port.id_path)}", *several]


def _quoted(port: SerialPort, value: str) -> str:
    if _PLAIN.fullmatch(value) is None:
        raise RuleError(f"{port.name!r} calls itself {value!r}, which cannot stand in a udev rule")
    return f'"{value}"'
