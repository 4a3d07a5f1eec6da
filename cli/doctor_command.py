"""`boardhand doctor` on the command line; the work is in `cli.doctor`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json


def _options(page: ArgumentParser) -> None:
    page.add_argument("settings", metavar="FILE", nargs="*", type=Path, help="settings (those in /etc/boardhand)")
    page.add_argument("--user", metavar="NAME", help="judge access as this user (the daemon's, or boardhand, or you)")
    page.add_argument("--quiet", action="store_true", help="show only what is not well")


def _run(args: Namespace) -> int:
    from cli.doctor.run import run

    return run(args.settings, args.user, quiet=args.quiet, as_json=as_json(args))


DOCTOR = Command(
    "look at all that agent and broker need of this host, and say what mends it",
    "Settings, privileges, ports and who has them, devices, folders and secrets, clock, MQTT server with the daemons'\n"
    "own credentials, firewall, board network, NFS. It changes nothing; best run as root, on the daemon's host. '?'\n"
    "is what it could not look at, and why. Exit 0 when nothing is wrong, 1 when something is.\n"
    "JSON: {ok, wrong, unseen, findings: [{check, subject, verdict: ok|wrong|unseen, what, mend}]}.",
    _options,
    _run,
)
