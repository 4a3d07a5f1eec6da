"""`boardhand token` on the command line: its manual page and options; the work is in `cli.tokens`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json
from cli.exits import usage

ROLES = ("reader", "user", "operator", "admin")
"""As `broker.web.access.Role`, which is not imported here: every command would pay for it."""
DEFAULT = Path("/etc/boardhand/tokens.toml")


def _options(page: ArgumentParser) -> None:
    page.add_argument("what", metavar="add|list|remove", choices=("add", "list", "remove"))
    page.add_argument("name", metavar="NAME", nargs="?", help="whose token: a-z, 0-9 and '-'")
    page.add_argument("--role", metavar="ROLE", choices=ROLES, default="user", help=f"{', '.join(ROLES)} (user)")
    page.add_argument("--file", metavar="FILE", type=Path, default=DEFAULT, help=f"[web] tokens ({DEFAULT})")


def _run(args: Namespace) -> int:
    from cli import tokens

    if args.what == "list":
        return tokens.show(args.file, as_json=as_json(args))
    if args.name is None:
        raise usage(f"token {args.what}: whose? Give a NAME")
    if args.what == "remove":
        return tokens.remove(args.file, args.name, as_json=as_json(args))
    return tokens.add(args.file, args.name, args.role, as_json=as_json(args))


TOKEN = Command(
    "let people and programs use the page and the HTTP API",
    "'boardhand token add NAME --role ROLE' prints a new token, once: only its digest is stored. The broker takes\n"
    "changes of the file within seconds, and ends the sessions of a token that is removed.\n"
    "  reader    looks\n"
    "  user      hands in jobs, reserves boards and switches those\n"
    "  operator  switches boards that nobody holds, cancels any job, maintenance, joining\n"
    "  admin     may force what a lease stands against\n"
    "JSON: {name, role, token} from add; {tokens: [{name, role}]} from list.",
    _options,
    _run,
)
