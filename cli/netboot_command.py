"""`boardhand netboot` on the command line: its manual page and options; the work is in `cli.netboot`."""

from argparse import ArgumentParser, Namespace

from cli.command_line import Command, as_json, count, target_of
from cli.exits import usage

MAX_BOOTS = 10
"""As `wire.netboot.MAX_BOOTS`, which is not imported here: pydantic costs every command 80 ms."""


def _options(page: ArgumentParser) -> None:
    page.add_argument("what", metavar="explain", choices=("explain",), help="what it would be served, and its boots")
    page.add_argument("board", metavar="BOARD")
    page.add_argument("--boots", metavar="N", type=count, default=MAX_BOOTS, help="its last N boots, at most 10 (10)")


def _run(args: Namespace) -> int:
    from cli.netboot import explain

    if args.boots > MAX_BOOTS:
        raise usage(f"--boots {args.boots}: an agent keeps {MAX_BOOTS} boots of a board")
    return explain(target_of(args), args.board, boots=args.boots, as_json=as_json(args))


NETBOOT = Command(
    "explain what a board would be served by netboot, and its last boots",
    "'boardhand netboot explain BOARD' shows the address, files and command line that the board would get now, and\n"
    "its last boots request by request: sizes, times, packets sent again, files asked for in vain, and where a boot\n"
    "stopped with what to check. Secrets are not shown.\n"
    "JSON: {agent, board, served: {…}, boots: [{number, began, diagnosis: {place, what, check}, requests}]}.",
    _options,
    _run,
)
