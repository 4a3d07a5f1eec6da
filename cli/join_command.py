"""`join`: manual page and options; the work is in `cli.join`."""

from argparse import ArgumentParser, Namespace

from cli.command_line import Command, as_json, target_of
from cli.exits import usage
from cli.lease_commands import duration

WORDS = ("list", "open", "close", "accept", "refuse")


def _options(page: ArgumentParser) -> None:
    page.add_argument("what", metavar="WHAT", nargs="?", choices=WORDS, default="list", help=", ".join(WORDS))
    page.add_argument("mac", metavar="MAC", nargs="?", help="of accept and refuse: which one")
    page.add_argument("--agent", metavar="NAME", help="this agent only; needed where several heard it, or would open")
    page.add_argument("--all", action="store_true", help="list: those that were refused, too")
    page.add_argument("--for", dest="for_s", metavar="TIME", type=duration, help="open: 10m, 2h; at most a day (10m)")
    page.add_argument("--name", metavar="BOARD", help="accept: its name (the proposed one)")
    page.add_argument("--feed", metavar="CONTROLLER:OUTLET", action="append", help="accept: its outlet; or several")
    page.add_argument("--profile", metavar="PROFILE", help="accept: what it boots (the joining profile)")
    page.add_argument("--address", metavar="IP", help="accept: its address (the first that is free)")
    page.add_argument("--label", metavar="KEY=VALUE", action="append", default=[], help="accept: for jobs to ask for")
    page.add_argument("--trust-mac", action="store_true", help="accept: its MAC address is proof enough")
    page.add_argument("--undo", action="store_true", help="refuse: take it back")


def _join(args: Namespace) -> int:
    from cli.join import accept, refuse, show, switch

    if (args.what in {"accept", "refuse"}) is (args.mac is None):
        raise usage("accept and refuse need a MAC address, and nothing else does", "see 'boardhand join --help'")
    target, agent, json = target_of(args), args.agent, as_json(args)
    if args.what == "list":
        return show(target, agent, everybody=args.all, as_json=json)
    if args.what in {"open", "close"}:
        return switch(target, agent, is_open=args.what == "open", for_s=args.for_s or 600.0, as_json=json)
    if args.what == "refuse":
        return refuse(target, agent, args.mac, undo=args.undo, as_json=json)
    wishes = {key: getattr(args, key) for key in ("name", "feed", "profile", "address")}
    wishes |= {"labels": args.label or None, "trust_mac": args.trust_mac or None}
    return accept(target, agent, args.mac, wishes, as_json=json)


JOIN = Command(
    "show boards that nobody knows, and make them boards of the farm",
    "list    who was heard by DHCP, TFTP or registration and is no board: what each said, and a name for it\n"
    "open    unknown boards get an address and the joining profile for a time; close: not any more\n"
    "accept  make one a board: --feed says which outlet it is on ('boardhand learn' finds out). The agent keeps it\n"
    "        in joined.toml in its state folder, beside what a person wrote\n"
    "refuse  hide it, and give it nothing even while joining is open\n"
    'JSON: {"agents": [{agent, open, until, strangers: [{mac, name, said, …}], free_outlets}], silent}; of accept\n'
    "{agent, board, settings, live, do}; of the others the agent's word.",
    _options,
    _join,
)
