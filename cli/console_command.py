"""`boardhand console` on the command line: its manual page and options; the work is in the modules beside."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from cli.command_line import Command, as_json, positive, target_of
from cli.energy_options import since
from cli.exits import usage


def _boot(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no boot: 0 is the last, -1 the one before") from None


def _options(page: ArgumentParser) -> None:
    page.add_argument("board", metavar="BOARD")
    recorded = page.add_argument_group("what is recorded")
    recorded.add_argument("--boot", metavar="N", type=_boot, help="of this boot: 0 the last, -1 the one before, …")
    recorded.add_argument("--boots", action="store_true", help="list the boots that are recorded")
    recorded.add_argument("--since", metavar="TIME", type=since, help="from then on: 10m, 24h, 2026-11-01T12:00")
    recorded.add_argument("--grep", metavar="TEXT", help="lines with TEXT in them, in any case; * is any text")
    recorded.add_argument("--times", action="store_true", help="each line with its time")
    live = page.add_argument_group("live")
    live.add_argument("--watch", action="store_true", help="only look; what is typed goes nowhere")
    live.add_argument("--take", action="store_true", help="take the writer's place from whoever has it")
    live.add_argument("--token", metavar="N", type=int, help="token of your lease (that of 'reserve')")
    live.add_argument("--for-s", metavar="S", type=positive, help="end after this time")
    live.add_argument("--address", metavar="ADDRESS", help="the console itself, as HOST:PORT or unix:/PATH: no MQTT")
    live.add_argument("--state", action="store_true", help="say how the console is, and end")
    talk = page.add_argument_group("for scripts, by the board's agent")
    talk.add_argument(
        "--run",
        dest="command_line",
        metavar="COMMAND",
        help="run it on the board's shell; 0 where it ended with 0, else 1",
    )
    talk.add_argument("--send", metavar="TEXT", help=r"type it; \r is Enter, \xNN a byte's character")
    talk.add_argument("--expect", metavar="TEXT", action="append", default=[],
                      help="wait for it, after --send; * is any text in a line; 1 where none came")  # fmt: skip
    talk.add_argument("--regex", action="store_true", help="--expect is a regular expression")
    talk.add_argument("--timeout", metavar="S", type=positive, help="of --expect (30) and --run (600)")


def _run(args: Namespace) -> int:
    recorded = args.boot is not None or args.boots or args.since is not None or args.grep is not None
    if recorded and (args.watch or args.take or args.address or args.state):
        raise usage("what is recorded cannot be typed to", "leave out --watch, --take, --address and --state")
    if args.command_line is not None or args.send is not None or args.expect:
        return _talk(args, elsewhere=recorded or args.watch or args.take or args.state or bool(args.address))
    if args.boots or args.state:
        from cli.console_recorded import show_boots, show_state

        show = show_boots if args.boots else show_state
        return show(target_of(args), args.board, as_json=as_json(args))
    if recorded:
        from cli.console_recorded import Wanted, show_lines

        wanted = Wanted(args.boot, args.since, args.grep)
        return show_lines(target_of(args), args.board, wanted, times=args.times, as_json=as_json(args))
    from cli.console_live import Attach, attach

    how = Attach(args.board, args.address, args.token, watch=args.watch, take=args.take, for_s=args.for_s)
    return attach(target_of(args), how)


def _talk(args: Namespace, *, elsewhere: bool) -> int:
    if elsewhere or (args.command_line is not None and (args.send is not None or args.expect)):
        raise usage("one thing at a time", "give --run, or --send and --expect, and no other way to use the console")
    from cli.console_actions import Dialogue, talk

    wanted = Dialogue(args.board, args.send, args.expect, args.regex, args.command_line, args.timeout, args.token)
    return talk(target_of(args), wanted, as_json=as_json(args))


CONSOLE = Command(
    "a board's console: live, or what is recorded of it",
    "'boardhand console BOARD' connects the terminal with the board's serial console. Many may read; the first who\n"
    "types writes, until he leaves or types nothing for a while, or another takes his place. Ctrl-] then\n"
    "  .  leave              r  cycle the board's power        w  take the writer's place      ?  help\n"
    "  b  send break         s  how the console is             g  give the writer's place up   Ctrl-]  itself\n"
    "Without a terminal, standard input is typed and the console printed, until Ctrl-C or --for-s.\n\n"
    "With --boot, --since or --grep it prints from the recording; secrets of netboot are never in it.\n"
    "--run, --send and --expect are done by the board's agent, which logs in where the settings say how.\n"
    'JSON lines: {at, line} or {at, note}; with --boots {"boots": [{number, began, bytes}]}; with --run\n'
    "the last is {exit_code, problem, output, took_s}, with --expect {matched, index, match, before}, after progress.",
    _options,
    _run,
)
