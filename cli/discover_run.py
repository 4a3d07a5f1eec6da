"""`boardhand discover`, from the parsed command line to its end."""

import asyncio
import json
import sys
import tomllib
from argparse import Namespace
from pathlib import Path

from agent.discovery import mdns
from agent.discovery.findings import Candidate
from agent.discovery.known import known_devices
from cli.discover import Found, Wanted, discover
from cli.discover_local import Place
from cli.discover_snmp import snmp_accesses
from cli.discover_view import document, progress_bars, show
from cli.discover_write import Plan, plan
from cli.exits import Exit, usage
from cli.target import Target, check_id


def run(args: Namespace, target: Target | None, *, as_json: bool) -> int:
    """Look, show, and write where that is asked for.

    Raises:
        CliError: an option is wrong, or the settings cannot be written.
    """
    if args.agent is not None:
        check_id("agent", args.agent)
    if args.write is not None and args.write.is_dir():
        raise usage(f"{args.write} is a folder", "name a settings file")
    wanted = _wanted(args, target)
    with progress_bars() as bars:
        found = asyncio.run(discover(wanted, bars))
    made = None if args.write is None else plan(found, args.write, agent=args.agent)
    known = _known(made)
    if not as_json:
        show(found, known)
    if made is not None and not args.dry_run:
        made.write()
    if as_json:
        _print_json(found, made, known, dry_run=args.dry_run)
    elif made is not None:
        _tell(made, dry_run=args.dry_run)
    return Exit.OK


def _wanted(args: Namespace, target: Target | None) -> Wanted:
    return Wanted(
        target=target,
        networks=args.network,
        snmp=snmp_accesses(args),
        domains=None if args.no_dns else args.domain,
        probe=args.probe_serial,
        by_mdns=not args.no_mdns,
        http_port=args.http_port,
        mdns_group=(mdns.GROUP[0], args.mdns_port),
        place=Place(args.sysfs, args.dev),
        mqtt_listen_s=args.listen,
    )


def _known(made: Plan | None) -> frozenset[str]:
    """What the settings named before."""
    return frozenset() if made is None or made.old is None else known_devices(tomllib.loads(made.old.decode()))


def _print_json(found: Found, made: Plan | None, known: frozenset[str], *, dry_run: bool) -> None:
    names: dict[str, Candidate] = {} if made is None else dict(made.additions.controllers)
    answer = document(found, names, known)
    written: Path | None = made.path if made is not None and made.changes and not dry_run else None
    diff = made.diff() if made is not None else None
    print(json.dumps({**answer, "written": None if written is None else str(written), "diff": diff}))


def _tell(made: Plan, *, dry_run: bool) -> None:
    if not made.changes:
        print(f"{made.path}: nothing new")
    elif dry_run:
        sys.stdout.write(made.diff())
    else:
        controllers = len(made.additions.controllers)
        print(f"{made.path}: added {controllers} controllers and remarks on {len(made.additions.serial_lines)} serial "
              "ports; read it, then 'boardhand check' it")  # fmt: skip
