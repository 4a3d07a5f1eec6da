"""`boardhand udev` on the command line: its manual page and options; the work is in `cli.udev_rules` and beside it."""

from argparse import SUPPRESS, ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json
from cli.exits import usage

_WHAT = ("install", "check", "show", "rules", "hubs")


def _options(page: ArgumentParser) -> None:
    page.add_argument("what", metavar="install|check|show|rules|hubs", choices=_WHAT)
    names = "as board-1=ttyUSB0, board-1:cable=ttyACM1, board-2=/dev/serial/by-path/…"
    page.add_argument("names", metavar="BOARD[:ROLE]=TTY", nargs="*", help=names)
    page.add_argument("--settings", metavar="FILE", type=Path, help="an agent's: names for all serial ports in it")
    page.add_argument("--group", metavar="GROUP", default="dialout", help="may use the devices (dialout)")
    page.add_argument("--user", metavar="USER", help="check: is the agent's user in that group?")
    page.add_argument("--fresh", action="store_true", help="drop names that were installed and are not given now")
    page.add_argument("--root", metavar="DIR", type=Path, default=Path("/"), help="a system's root, for images (/)")
    page.add_argument("--sysfs", metavar="DIR", type=Path, default=Path("/sys"), help=SUPPRESS)


def _run(args: Namespace) -> int:
    from cli.udev_host import UdevHost
    from cli.udev_rules import Asked, install, show

    if args.what in {"rules", "hubs"}:
        return _print_one_file(args)
    if not args.root.is_dir():
        raise usage(f"{args.root} is no folder", "name the root of the system that gets the rules")
    root = args.root.resolve()
    host = UdevHost(root, args.sysfs, live=root == Path("/"))
    asked = Asked(args.names, args.settings, args.group, args.fresh)
    if args.what == "check":
        from cli.udev_check import check

        return check(host, asked, args.user, as_json=as_json(args))
    return (install if args.what == "install" else show)(host, asked, as_json=as_json(args))


def _print_one_file(args: Namespace) -> int:
    from cli.serial_cables import hub_rules, rules

    if args.what == "hubs":
        return hub_rules(args.names, group=args.group, as_json=as_json(args))
    return rules(args.names, args.sysfs, group=args.group, as_json=as_json(args))


UDEV = Command(
    "give serial cables names that stay, and open devices to the agent: install, check or show udev rules",
    "'install' writes rules to /etc/udev/rules.d, has udev read them, and look again at the devices that they are\n"
    "for: names as /dev/boards/BOARD-console for the ports that --settings or words name (those installed before\n"
    "stay), access for --group to them, to USB hubs, HID relays, SD muxes and boards in DFU or fastboot, and no\n"
    "ModemManager on consoles. 'check' tells, device by device, whether all of it stands, and the command that mends\n"
    "it; exit 1 if something does not. 'show' prints the files. 'rules' prints one file for words alone, 'hubs' that\n"
    "for hubs.\n"
    'JSON: {"files", "names": [{name, board, role, known, ports}], "notices"}; check {"ok", "findings": [{what,\n'
    'device, ok, state, do}], "notices"}; rules and hubs {"rules": text}.',
    _options,
    _run,
)
