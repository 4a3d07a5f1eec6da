"""`board`: manual page and options; the work is in `cli.board_trust`."""

from argparse import ArgumentParser, Namespace

from cli.command_line import Command, as_json, target_of
from cli.exits import usage

WORDS = ("health", "accept", "retire", "check", "forget", "maintenance")


def _options(page: ArgumentParser) -> None:
    page.add_argument("board", metavar="BOARD")
    what = "health (shown if nothing is said), accept, check, retire, forget, maintenance"
    page.add_argument("what", metavar="WHAT", nargs="?", choices=WORDS, default="health", help=what)
    page.add_argument("on_off", metavar="on|off", nargs="?", choices=("on", "off"), help="of maintenance")


def _board(args: Namespace) -> int:
    from cli.board_trust import say, show

    if (args.what == "maintenance") is (args.on_off is None):
        raise usage("maintenance needs on or off, and nothing else does", "see 'boardhand board --help'")
    if args.what == "health":
        return show(target_of(args), args.board, as_json=as_json(args))
    on = None if args.on_off is None else args.on_off == "on"
    return say(target_of(args), args.board, args.what, on, as_json=as_json(args))


BOARD = Command(
    "show whether a board is trusted with work; accept, check, retire or forget it",
    "accept       trust it as it is, whatever its health jobs said; takes a retired board back\n"
    "check        run its health job now, before any other work\n"
    "retire       give it nothing any more, neither jobs nor leases\n"
    "forget       clear what the MQTT server keeps of a retired board that no agent has any more\n"
    "maintenance  on: its agent takes it out of work; off: it gives it back\n"
    'JSON: {"boards": [{board, health, since, why, failures, passed, job, boots_s, evidence}]}; of the others\n'
    "{board, is}.",
    _options,
    _board,
)
