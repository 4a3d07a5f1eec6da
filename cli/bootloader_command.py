"""`boardhand bootloader` on the command line: its manual page and options; the work is in `cli.bootloader_dialogue`."""

from argparse import ArgumentParser, Namespace

from cli.command_line import Command, as_json, positive, target_of
from cli.exits import usage

VERBS = ("catch", "run", "env", "boot")
TIMEOUT_S = {"catch": 600.0, "run": 3600.0, "env": 600.0, "boot": 1800.0}
"""Not how long it takes, but after which it cannot be going well any more."""


def _options(page: ArgumentParser) -> None:
    page.add_argument("board", metavar="BOARD")
    page.add_argument("verb", metavar="|".join(VERBS), choices=VERBS)
    page.add_argument("words", metavar="WORD", nargs="*", help="of run: commands; of env: NAME, NAME=VALUE or NAME=")
    how = page.add_mutually_exclusive_group()
    how.add_argument("--cycle", action="store_true", help="of run and env: cycle the power and catch it first")
    how.add_argument("--no-cycle", action="store_true", help="of catch and boot: leave the power as it is")
    page.add_argument("--save", action="store_true", help="of env: keep the variables over resets (saveenv)")
    page.add_argument("--go-on", action="store_true", help="of run: also after a command that failed")
    page.add_argument("--command-s", metavar="S", type=positive, help="of run: what each command may take (30)")
    page.add_argument("--take", action="store_true", help="take the console from whoever types there")
    page.add_argument("--token", metavar="N", type=int, help="token of your lease (that of 'reserve')")
    page.add_argument("--timeout-s", metavar="S", type=positive, help="the agent ends it after this time")


def _data(args: Namespace) -> dict[str, object]:
    """The data of the request.

    Raises:
        CliError: options do not fit the verb.
    """
    verb: str = args.verb
    given = {
        "--cycle": args.cycle, "--no-cycle": args.no_cycle, "--save": args.save, "--go-on": args.go_on,
        "--command-s": args.command_s is not None,
    }  # fmt: skip
    fitting = {"catch": {"--no-cycle"}, "boot": {"--no-cycle"}, "run": {"--cycle", "--go-on", "--command-s"},
               "env": {"--cycle", "--save"}}[verb]  # fmt: skip
    wrong = sorted(name for name, is_given in given.items() if is_given and name not in fitting)
    if wrong:
        raise usage(f"{verb} takes no {wrong[0]}", "see 'boardhand bootloader --help'")
    if verb == "run" and not args.words:
        raise usage("run needs commands", "as in: boardhand bootloader pi4 run 'mmc list'")
    if verb in {"catch", "boot"} and args.words:
        raise usage(f"{verb} takes no further words", "see 'boardhand bootloader --help'")
    data: dict[str, object] = {"take": True} if args.take else {}
    if verb in {"catch", "boot"}:
        return {**data, "cycle": not args.no_cycle}
    data["cycle"] = args.cycle
    if verb == "run":
        command_s = {} if args.command_s is None else {"command_s": args.command_s}
        return {**data, "commands": args.words, "go_on": args.go_on, **command_s}
    pairs = {name: value or None for name, sign, value in (word.partition("=") for word in args.words) if sign}
    names = [word for word in args.words if "=" not in word]
    data |= {"set": pairs} if pairs else {}
    data |= {"get": names} if names else {}
    return {**data, "save": args.save}


def _run(args: Namespace) -> int:
    from cli.bootloader_dialogue import Asked, ask

    timeout_s = TIMEOUT_S[args.verb] if args.timeout_s is None else args.timeout_s
    asked = Asked(args.board, args.verb, _data(args), args.token, timeout_s)
    return ask(target_of(args), asked, as_json=as_json(args))


BOOTLOADER = Command(
    "speak with a board's boot loader: catch it, run commands, variables, boot",
    "catch  cycle the power, stop the countdown, and leave the board at its prompt\n"
    "run    commands at the prompt, one after the other until one fails: boardhand bootloader pi4 run 'mmc list'\n"
    "env    all variables; or NAME, NAME=VALUE (in RAM; --save keeps it), NAME= to take one away\n"
    "boot   have it boot from the net by dialogue, without a change to what is saved; to the kernel's first word\n\n"
    "U-Boot, or barebox where the agent's settings say so. run and env want the board at its prompt; catch leaves it\n"
    "there for an hour. Exit 1 when the boot loader was not caught or a command failed. Steps go to standard error.\n"
    "JSON lines: {stage, percent, message}, then the answer: {board, kind, version, prompt, …} with took_ms, with ok\n"
    "and results [{command, ended, ok, status, output, took_ms}], with environment and saved, or with kernel.",
    _options,
    _run,
)
