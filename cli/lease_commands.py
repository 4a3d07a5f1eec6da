"""`reserve`, `extend`, `release`, `hand-over` and `leases`: manual pages and options; the work is in `cli.leases`."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from cli.command_line import Command, as_json, positive, target_of

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
MAX_S = 366 * 86400


def duration(text: str) -> float:
    """`2h`, `90m`, `1.5h`, `3d` in seconds.

    Raises:
        ArgumentTypeError: it is none, or not between a second and a year.
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhdw])", text)
    seconds = float(match[1]) * UNITS_S[match[2]] if match is not None else 0.0
    if not 1 <= seconds <= MAX_S:
        raise ArgumentTypeError(f"{text!r} is no time to hold a board: write 30m, 2h, or 3d")
    return seconds


def _for(page: ArgumentParser) -> None:
    page.add_argument("--for", dest="for_s", metavar="TIME", type=duration, default=7200.0, help="30m, 2h, 3d (2h)")


def _who(page: ArgumentParser) -> None:
    page.add_argument("--holder", metavar="NAME", help="in this name (yours on this machine)")


def _lease(page: ArgumentParser) -> None:
    page.add_argument("lease", metavar="LEASE|BOARD")
    _who(page)
    page.add_argument("--force", action="store_true", help="whoever holds it (operators)")


def _reserve_options(page: ArgumentParser) -> None:
    what = "a board, or labels: arch=arm64 'memory_mb>=2048'"
    page.add_argument("what", metavar="BOARD|LABEL=VALUE", nargs="+", help=what)
    _for(page)
    page.add_argument("--comment", metavar="TEXT", default="", help="what for; others see it")
    page.add_argument("--wait", action="store_true", help="queue when all are taken, and return with the board")
    page.add_argument("--wait-s", metavar="S", type=positive, help="as --wait, and leave the queue after this time")
    page.add_argument("--wake", action="store_true", help="switch a sleeping board on")
    end = page.add_mutually_exclusive_group()
    end.add_argument("--off", dest="off", action="store_true", default=None, help="switch it off when it is given back")
    end.add_argument("--leave-on", dest="off", action="store_false", help="do not (what [broker.leases] says)")
    _who(page)


def _reserve(args: Namespace) -> int:
    from cli.leases import Wish, reserve

    wait = args.wait or args.wait_s is not None
    wish = Wish(args.what, args.for_s, args.comment, wait, args.wait_s, args.wake, args.off)
    return reserve(target_of(args), wish, args.holder, as_json=as_json(args))


def _extend_options(page: ArgumentParser) -> None:
    _lease(page)
    _for(page)


def _extend(args: Namespace) -> int:
    from cli.leases import extend

    return extend(target_of(args), args.lease, args.for_s, args, as_json=as_json(args))


def _release(args: Namespace) -> int:
    from cli.leases import release

    return release(target_of(args), args.lease, args, as_json=as_json(args))


def _hand_over_options(page: ArgumentParser) -> None:
    _lease(page)
    page.add_argument("to", metavar="NAME", help="whose it is from now on")


def _hand_over(args: Namespace) -> int:
    from cli.leases import hand_over

    return hand_over(target_of(args), args.lease, args.to, args, as_json=as_json(args))


def _leases_options(page: ArgumentParser) -> None:
    page.add_argument("--mine", action="store_true", help="yours only")
    _who(page)


def _leases(args: Namespace) -> int:
    from cli.leases import show

    return show(target_of(args), args, as_json=as_json(args))


_KEPT = "The token is kept for you (XDG_STATE_HOME/boardhand/leases), and 'boardhand power' takes it by itself.\n"

LEASES: dict[str, Command] = {
    "reserve": Command(
        "have a board to yourself for a time",
        "No job and nobody else gets it meanwhile, and it obeys only commands with the lease's token.\n"
        f"{_KEPT}"
        "It is given back by 'boardhand release', or by itself at its end. Exit 5 when it is taken.\n"
        "JSON: {lease, board, holder, token, expires}.",
        _reserve_options,
        _reserve,
    ),
    "extend": Command(
        "hold a reserved board for so long from now on",
        "Never shortens. JSON: {lease, board, holder, token, expires}.",
        _extend_options,
        _extend,
    ),
    "release": Command(
        "give a reserved board back, or leave the queue", "JSON: {lease, board}.", _lease, _release
    ),
    "hand-over": Command(
        "give a reserved board to somebody else, with the rest of its time",
        "The token that you know is worthless from then on; the new one is printed, to be passed on.\n"
        "JSON: {lease, board, holder, token, expires}.",
        _hand_over_options,
        _hand_over,
    ),
    "leases": Command(
        "show who holds which board, and who waits",
        'JSON: {"leases": [{lease, board, holder, kind, since, expires, asked, comment, waits, reason}]}.',
        _leases_options,
        _leases,
    ),
}  # fmt: skip
