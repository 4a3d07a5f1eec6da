"""`boardhand netboot` on the command line: its manual page and options; the work is in `cli.netboot`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json, count, target_of
from cli.exits import usage

MAX_BOOTS = 10
"""As `wire.netboot.MAX_BOOTS`, which is not imported here: pydantic costs every command 80 ms."""


def _options(page: ArgumentParser) -> None:
    page.add_argument(
        "what",
        metavar="explain|advice",
        choices=("explain", "advice"),
        help="what BOARD would be served, and its boots; or what another DHCP server has to say",
    )
    page.add_argument("board", metavar="BOARD", nargs="?", help="with explain")
    page.add_argument("--settings", metavar="FILE", type=Path, help="with advice: the agent's settings file")
    page.add_argument("--syntax", choices=("dnsmasq", "isc"), default="dnsmasq", help="with advice (dnsmasq)")
    page.add_argument("--boots", metavar="N", type=count, default=MAX_BOOTS, help="its last N boots, at most 10 (10)")


def _run(args: Namespace) -> int:
    if args.what == "advice":
        return _advise(args)
    from cli.netboot import explain

    if args.board is None:
        raise usage("'netboot explain' needs the name of a board")
    if args.boots > MAX_BOOTS:
        raise usage(f"--boots {args.boots}: an agent keeps {MAX_BOOTS} boots of a board")
    return explain(target_of(args), args.board, boots=args.boots, as_json=as_json(args))


def _advise(args: Namespace) -> int:
    from cli.netboot_advice import tell

    if args.settings is None:
        raise usage("'netboot advice' needs --settings FILE, the agent's settings")
    if args.board is not None:
        raise usage(f"'netboot advice' is about all boards of the settings file: leave out {args.board!r}")
    return tell(args.settings, args.syntax, as_json=as_json(args))


NETBOOT = Command(
    "explain what a board would be served by netboot and its last boots; advise another DHCP server",
    "'boardhand netboot explain BOARD' shows the address, files and command line that the board would get now, and\n"
    "its last boots request by request: sizes, times, packets sent again, files asked for in vain, and where a boot\n"
    "stopped with what to check. Secrets are not shown.\n"
    "JSON: {agent, board, served: {…}, boots: [{number, began, diagnosis: {place, what, check}, requests}]}.\n\n"
    "'boardhand netboot advice --settings FILE' prints what another DHCP server has to say for that file's boards to\n"
    "boot from its agent, in the words of dnsmasq or ISC dhcpd: all of it for [netboot] dhcp = 'off'; for 'proxy' the\n"
    "addresses, and the boot file of U-Boot.\n"
    "JSON: {syntax, lines}.",
    _options,
    _run,
)
