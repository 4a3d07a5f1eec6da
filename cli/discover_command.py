"""`boardhand discover` on the command line: its manual page and options; the work is in `cli.discover`."""

from argparse import SUPPRESS, ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json, positive, target_of
from cli.exits import usage

AUTH_PROTOCOLS = ("md5", "sha", "sha224", "sha256", "sha384", "sha512")
PRIV_PROTOCOLS = ("des", "aes", "aes192", "aes256")
USUAL = {"auth_protocol": "sha", "priv_protocol": "aes"}
"""What each device of SNMP version 3 knows."""


def _snmp_options(page: ArgumentParser) -> None:
    page.add_argument("--community-file", metavar="FILE", type=Path, help="holds the SNMP community, for PDUs")
    page.add_argument("--community-env", metavar="VAR", help="the same from an environment variable")
    page.add_argument("--snmp-version", choices=("1", "2c"), default="2c", help="with a community (2c)")
    page.add_argument("--snmp-user", metavar="NAME", help="ask with SNMP version 3 as this user, before any community")
    for what, protocols in (("auth", AUTH_PROTOCOLS), ("priv", PRIV_PROTOCOLS)):
        usual = USUAL[f"{what}_protocol"]
        page.add_argument(f"--{what}-protocol", choices=protocols, help=f"the user's, with a key ({usual})")
        page.add_argument(f"--{what}-key-file", metavar="FILE", type=Path, help=f"holds the user's {what} key")
        page.add_argument(f"--{what}-key-env", metavar="VAR", help="the same from an environment variable")


def _options(page: ArgumentParser) -> None:
    page.add_argument(
        "--network", metavar="NET", action="append", default=[], help="look for PDUs and plugs there, 10.0.0.0/24"
    )
    _snmp_options(page)
    page.add_argument("--domain", metavar="NAME", action="append", default=[], help="ask DNS there for MQTT servers")
    page.add_argument(
        "--probe-serial", metavar="TTY", action="append", nargs="?", const="*", default=[],
        help="ask whether it is boardhand's power cable; without TTY, those that look like one",
    )  # fmt: skip
    page.add_argument("--no-mqtt", action="store_true", help="do not listen for plugs at the MQTT server")
    page.add_argument("--no-dns", action="store_true", help="do not ask DNS for MQTT servers")
    page.add_argument("--no-mdns", action="store_true", help="do not ask by multicast DNS")
    page.add_argument("--write", metavar="FILE", type=Path, help="add what is new to these settings")
    page.add_argument("--dry-run", action="store_true", help="with --write: show what would change, and change nothing")
    page.add_argument("--agent", metavar="NAME", help="the agent's name, in settings that are not there yet")
    page.add_argument("--listen", metavar="SECONDS", type=positive, default=2.0, help="for plugs on MQTT (2)")
    page.add_argument("--sysfs", type=Path, default=Path("/sys"), help=SUPPRESS)
    page.add_argument("--dev", type=Path, default=Path("/dev"), help=SUPPRESS)
    for name, port in (("--mdns-port", 5353), ("--snmp-port", 161), ("--http-port", 80)):
        page.add_argument(name, type=int, default=port, help=SUPPRESS)


def _run(args: Namespace) -> int:
    from cli.discover_run import run

    if args.dry_run and args.write is None:
        raise usage("--dry-run needs --write FILE", "name the settings that it is about")
    target = None if args.no_mqtt else target_of(args)
    return run(args, target, as_json=as_json(args))


DISCOVER = Command(
    "find hubs, serial ports, relays, cables, PDUs, plugs and MQTT servers, and write settings",
    "Looks at this host and listens to the MQTT server; PDUs, PoE switches and plugs are looked for where --network\n"
    "says. It switches nothing, and writes to no serial port without --probe-serial: what hangs there may be a board,\n"
    "and an old power cable takes letters for commands. 'boardhand discover --write boardhand.toml' adds what is new,\n"
    "with remarks, and changes nothing that stands there; --dry-run shows it as a diff.\n"
    "JSON: {hubs, controllers: [{name, settings, about, outlets, hints, known, unwritten}], serial_ports,\n"
    "other_devices, mqtt_servers, problems: [{where, what, do}], written, diff}.",
    _options,
    _run,
)
