"""`boardhand learn` on the command line: its page and options; the work is in `learn_run`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json, count, positive, target_of
from cli.exits import usage


def _options(page: ArgumentParser) -> None:
    page.add_argument("--agent", metavar="NAME", help="whose outlets, where several agents are online")
    page.add_argument("--outlet", metavar="CONTROLLER:OUTLET", action="append", default=[], help="these alone")
    page.add_argument("--at-once", metavar="N", type=count, default=1, help="how many may be on together (1)")
    page.add_argument("--also-on", action="store_true", help="also outlets that are on: what runs there goes off")
    page.add_argument(
        "--console", metavar="PLACE", action="append", default=[], help="listen there too: unix:/…, tcp:…"
    )
    page.add_argument("--listen-s", metavar="S", type=positive, help="how long a board may be silent at first (240)")
    page.add_argument("--quiet-s", metavar="S", type=positive, help="a board that falls silent so long is up (45)")
    page.add_argument("--write", metavar="FILE", type=Path, help="add the boards to the agent's settings in FILE")
    page.add_argument("--dry-run", action="store_true", help="with --write: show what would change, and change nothing")
    page.add_argument("--plan", action="store_true", help="say which outlets would be tried, and switch nothing")
    page.add_argument("--stop", action="store_true", help="stop what is under way; everything goes back to what it was")
    page.add_argument("--last", action="store_true", help="start nothing: follow what is under way, or show the last")


def _run(args: Namespace) -> int:
    from cli.learn_run import LearnOrder, run

    if args.dry_run and args.write is None:
        raise usage("--dry-run needs --write FILE", "name the settings that it is about")
    orders = [name for name in ("plan", "stop", "last") if getattr(args, name)]
    if len(orders) > 1:
        raise usage(f"--{orders[0]} and --{orders[1]}: one of them", "see 'boardhand learn --help'")
    rules = {"at_once": args.at_once, "listen_s": args.listen_s, "quiet_s": args.quiet_s}
    order = LearnOrder(
        agent=args.agent,
        only=tuple(args.outlet),
        consoles=tuple(args.console),
        also_on=args.also_on,
        rules={name: value for name, value in rules.items() if value is not None},
        do=orders[0] if orders else "start",
        write=args.write,
        dry_run=args.dry_run,
    )
    return run(target_of(args), order, as_json=as_json(args))


LEARN = Command(
    "find out by experiment which outlet feeds which board, and which console and MAC are its",
    "Free outlets are switched on and off again and again while the agent listens to everything: DHCP, TFTP, serial\n"
    "ports, USB devices, links, meters, registrations. A board is shown when chance would do the same less than once\n"
    "in 1,000; of everything else is said why it is unknown. Outlets of boards, of keep_outlets and (without\n"
    "--also-on) those that are on are not touched. Ctrl-C stops it; everything goes back to what it was found as.\n"
    "With --write the boards go into the agent's settings, with remarks, and nothing that stands there is changed: a\n"
    "board that is there gets the keys that it lacks. Exit 1: an outlet would not go back; 130: it was stopped.\n"
    "JSON: lines of {at_s, stage, percent, message}, then {rows, unknown, strangers, left, took_s, stopped, restored,\n"
    "unrestored}, with --write also {written, diff}.",
    _options,
    _run,
)
