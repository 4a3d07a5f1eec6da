"""`serial` and `udev rules`: serial cables as sysfs shows them, and rules that give them names which stay."""

import json
from pathlib import Path

from cli.boards import lines
from cli.exits import CliError, Exit, usage
from cli.plain_text import shown
from udev import rules_devices
from udev.rules import DEFAULT_GROUP, NamedPort, Role, RuleError, udev_rules
from udev.serial_ports import SerialPort, serial_ports


def show(sysfs: Path, *, as_json: bool) -> int:
    """List the serial ports of this host."""
    ports = serial_ports(sysfs)
    if as_json:
        print(json.dumps({"ports": [_document(port) for port in ports]}))
        return Exit.OK
    if not ports:
        print(f"no serial ports in {sysfs}")
        return Exit.OK
    heads = ("NODE", "DRIVER", "USB", "SERIAL", "KNOWN BY")
    print("\n".join(lines([_row(port) for port in ports], heads)))
    return Exit.OK


def _row(port: SerialPort) -> tuple[str, ...]:
    usb = port.usb
    known_by = "serial number" if port.has_own_serial else f"port {port.id_path or port.hardware}"
    return (
        port.node,
        shown(port.driver or ""),
        f"{usb.vendor}:{usb.product}" if usb else "",
        shown((usb.serial if usb else None) or ""),
        shown(known_by),
    )


def _document(port: SerialPort) -> dict[str, object]:
    usb = port.usb
    return {
        "name": port.name,
        "node": port.node,
        "driver": port.driver,
        "hardware": port.hardware,
        "vendor": usb.vendor if usb else None,
        "product": usb.product if usb else None,
        "serial": usb.serial if usb else None,
        "own_serial": port.has_own_serial,
        "id_path": port.id_path,
    }


def hub_rules(names: list[str], *, group: str = DEFAULT_GROUP, as_json: bool) -> int:
    """Print a udev rules file that opens USB hubs to the agent's group.

    Raises:
        CliError: there are words behind `hubs`, or the group is none.
    """
    if names:
        raise usage(f"'udev hubs' takes no {names[0]!r}", "the rules are for all hubs")
    try:
        text = rules_devices.hub_rules(group=group)
    except RuleError as error:
        raise CliError(Exit.USAGE, shown(error)) from None
    print(json.dumps({"rules": text}) if as_json else text, end="\n" if as_json else "")
    return Exit.OK


def rules(names: list[str], sysfs: Path, *, group: str = DEFAULT_GROUP, as_json: bool) -> int:
    """Print a udev rules file for `BOARD[:ROLE]=TTY` words.

    Raises:
        CliError: there is no word, one is not of that form, a port is not there, or no safe rule can be written.
    """
    if not names:
        raise usage("'udev rules' needs BOARD=TTY", "see 'boardhand udev --help'")
    ports = {port.name: port for port in serial_ports(sysfs)}
    try:
        text = udev_rules([_named(word, ports) for word in names], group=group)
    except RuleError as error:
        raise CliError(Exit.USAGE, shown(error)) from None
    print(json.dumps({"rules": text}) if as_json else text, end="\n" if as_json else "")
    return Exit.OK


def _named(word: str, ports: dict[str, SerialPort]) -> NamedPort:
    who, equals, tty = word.partition("=")
    board, _, role = who.partition(":")
    if not equals or role not in {"", *Role}:
        raise usage(f"{word!r} is not BOARD=TTY or BOARD:ROLE=TTY", f"roles are {', '.join(Role)}")
    port = ports.get(tty.removeprefix("/dev/"))
    if port is None:
        raise usage(f"there is no serial port {tty!r}", "see 'boardhand serial'")
    return NamedPort(board, Role(role) if role else Role.CONSOLE, port)
