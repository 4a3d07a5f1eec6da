"""`boardhand mqtt-acl` on the command line: its manual page and options; the work is in `cli.mqtt_acl`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json


def _options(page: ArgumentParser) -> None:
    page.add_argument("settings", metavar="FILE", nargs="+", type=Path, help="settings of every agent and broker")
    page.add_argument("--operator", metavar="USER", action="append", default=[], help="may do what a person may")
    page.add_argument("--looks-only", metavar="USER", action="append", default=[], help="hears, and says nothing")
    page.add_argument(
        "--no-nameless-boards", action="store_true", help="boards must log in, each with its own name as user"
    )


def _run(args: Namespace) -> int:
    from cli.mqtt_acl import Wanted, run

    wanted = Wanted(args.settings, args.operator, args.looks_only, nameless_boards=not args.no_nameless_boards)
    return run(wanted, as_json=as_json(args))


MQTT_ACL = Command(
    "print an access list for Mosquitto, made from the settings",
    "Each agent may speak for itself and its boards alone, boards may register and work, and only the broker and\n"
    "operators may ask for power. The users are those in the [mqtt] tables; an agent without one is refused. Boards\n"
    "give no user name unless their images do. Save it where mosquitto.conf has 'acl_file', and make the passwords\n"
    "with mosquitto_passwd.\n"
    "JSON: {acl, users: [{user, roles, boards}]}.",
    _options,
    _run,
)
