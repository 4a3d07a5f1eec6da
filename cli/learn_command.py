"""`boardhand learn` on the command line: its page and options; the work is in `learn_run`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json, count, positive, target_of


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
    page.add_argument("--write", metavar="FILE", type=Path, help="append the boards to the agent's settings in FILE")
    page.add_argument("--plan", action="store_true", help="say which outlets would be tried, and switch nothing")
    page.add_argument("--stop", action="store_true", help="stop what is under way; everything goes back to what it was")


def _run(args: Namespace) -> int:
    from cli.learn_run import LearnOrder, run

    rules = {"at_once": args.at_once, "listen_s": args.listen_s, "quiet_s": args.quiet_s}
    order = LearnOrder(
        agent=args.agent,
        only=tuple(args.outlet),
        consoles=tuple(args.console),
        also_on=args.also_on,
        rules={name: value for name, value in rules.items() if value is not None},
        do="plan" if args.plan else "stop" if args.stop else "start",
        write=args.write,
    )
    return run(target_of(args), order, as_json=as_json(args))


LEARN = Command(
    "find out by experiment which outlet feeds which board, and which console and MAC are its",
    "Free outlets are switched on and off again and again while the agent listens to everything: DHCP, TFTP, serial\n"
    "ports, USB devices, links, meters, registrations. A board is shown when chance would do the same less than once\n"
    "in 1,000; of everything else is said why it is unknown. Outlets of boards, of keep_outlets and (without\n"
    "--also-on) those that are on are not touched. Ctrl-C stops it; everything goes back to what it was found as.\n"
    "Exit 1: an outlet would not go back.\n"
    "JSON: lines of {at_s, stage, percent, message}, then {rows, unknown, strangers, left, took_s, stopped,\n"
    "unrestored}.",
    _options,
    _run,
)
