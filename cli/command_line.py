"""The full command line: the manual, every command with its options, and where each command's work is done."""

import argparse
import os
from collections.abc import Callable, Container
from typing import Any, NamedTuple, NoReturn

from cli.exits import CliError, Exit, usage
from cli.target import ENVIRONMENT, Target, resolve

DESCRIPTION = """\
A farm of embedded boards over MQTT: verified power, netboot identity, work and sleep.

An agent runs on every host that has boards on it (boardhand agent); one broker per farm hands out jobs
(boardhand broker); both speak to an MQTT server. Every other command speaks to that server too, so it runs
anywhere. 'boardhand up' starts all of it on this machine, with virtual boards, to look at."""

EPILOG = f"""\
which MQTT server, in this order:
  --mqtt URL              mqtt://HOST:PORT, mqtts://HOST:PORT for TLS, or mqtt+srv://DOMAIN (SRV records)
  {ENVIRONMENT["mqtt"]:<22}  the same, from the environment
  'boardhand up'          the farm that you run on this machine, found by itself
  mqtt://127.0.0.1:1883

environment (an option on the command line comes first):
  {ENVIRONMENT["mqtt"]:<24}  --mqtt           {ENVIRONMENT["prefix"]:<24}  --prefix
  {ENVIRONMENT["username"]:<24}  --username       {ENVIRONMENT["password_file"]:<24}  --password-file
  {ENVIRONMENT["ca_file"]:<24}  --ca-file        {ENVIRONMENT["client_cert"]:<24}  --client-cert
  {ENVIRONMENT["client_key"]:<24}  --client-key

exit codes:
  0  it worked: power verified, job passed      4  no answer in time, or nobody knows the board or job
  1  it was tried and failed: a job's too       5  not allowed: a lease, a token or a rule stands against it
  2  command line, job or settings are wrong    6  the farm failed the job: it may be tried again
  3  the MQTT server cannot be reached          7  somebody cancelled the job
                                              130  Ctrl-C

--json prints one JSON document, or one per line from commands that go on (events, logs, boards --watch).
An error is {{"ok": false, "error": {{"exit", "message", "do"}}}}, and its line on standard error stays.

example:
  boardhand up --boards 2 &            # a farm of two virtual boards on this machine
  boardhand power virt-1 on            # virt-1 on (verified, 12 ms)
  boardhand boards --watch             # see it boot
  boardhand submit job.yaml --follow   # run a job on a board and see its log"""


class Command(NamedTuple):
    """One command: its line in the manual, its own page, its options, and its work."""

    summary: str
    description: str
    options: Callable[[argparse.ArgumentParser], Any]
    run: Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise usage(message, f"see '{self.prog} --help'")


def connection_options(parser: argparse.ArgumentParser) -> None:
    """The options that every command has. Suppressed defaults let them stand before or after the command's name."""
    group = parser.add_argument_group("MQTT server")
    suppress = argparse.SUPPRESS
    group.add_argument("--mqtt", metavar="URL", default=suppress, help="mqtt://HOST:PORT, or mqtts:// for TLS")
    group.add_argument("--prefix", metavar="PREFIX", default=suppress, help="first topic level(s); 'boardhand'")
    group.add_argument("--username", metavar="NAME", default=suppress, help="user at the MQTT server")
    group.add_argument("--password-file", metavar="FILE", default=suppress, help="file that holds the password")
    group.add_argument("--ca-file", metavar="FILE", default=suppress, help="certificate authority of an mqtts server")
    group.add_argument("--client-cert", metavar="FILE", default=suppress, help="our certificate, PEM")
    group.add_argument("--client-key", metavar="FILE", default=suppress, help="its key, PEM")
    parser.add_argument("--json", action="store_true", default=suppress, help="print JSON instead of text")
    parser.add_argument("--debug", action="store_true", default=suppress, help="show the traceback of an error")


def target_of(args: argparse.Namespace) -> Target:
    """The MQTT server that the options and the environment name."""
    return resolve({name: getattr(args, name, None) for name in ENVIRONMENT}, os.environ)


def as_json(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "json", False))


def positive(text: str) -> float:
    """A duration option in seconds, up to a year."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 366 * 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def count(text: str) -> int:
    """A count option: 1 and more."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no count from 1")
    return int(text)


def build(named: Container[str] | None = None) -> argparse.ArgumentParser:
    """The whole parser; with `named`, the options of those commands alone, which is all that one line needs."""
    from cli.command_table import COMMANDS

    parser = _Parser(
        prog="boardhand",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and the contract's version")
    connection_options(parser)
    group = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", parser_class=_Parser)
    for name, command in COMMANDS.items():
        page = group.add_parser(
            name,
            help=command.summary,
            description=command.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if named is None or name in named:
            command.options(page)
            connection_options(page)
            page.set_defaults(run=command.run)
    return parser


def run(arguments: list[str]) -> int:
    """Parse and carry out one command line.

    Raises:
        CliError: see `cli.exits`.
    """
    try:
        args = build(frozenset(arguments)).parse_args(arguments)
    except SystemExit as end:  # argparse ends this way after --help
        return int(end.code or 0)
    if args.version:
        return _version()
    if args.command is None:
        raise CliError(Exit.USAGE, "no command given", "see 'boardhand --help'")
    code: int = args.run(args)
    return code


def _version() -> int:
    from importlib.metadata import PackageNotFoundError, version

    from wire import CONTRACT_VERSION

    try:
        ours = version("boardhand")
    except PackageNotFoundError:
        ours = "from a source tree"
    print(f"boardhand {ours}, contract {CONTRACT_VERSION}")
    return Exit.OK
