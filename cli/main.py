"""The entry of the `boardhand` command. `power` goes a fast path; everything else is imported when it is asked for."""

import os
import sys

from cli.exits import CliError, Exit

TYPE_CHECKING = False  # importing typing for these names would cost 2 ms at each start
if TYPE_CHECKING:
    from typing import NoReturn


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code (`cli.exits.Exit`). Nothing is raised, unless `--debug`."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    try:
        code = _run(arguments, argv_given=argv is not None)
        sys.stdout.flush()
    except CliError as error:
        if debug:
            raise
        _tell(error, arguments)
        return error.code
    except KeyboardInterrupt:
        if debug:
            raise
        note = "; a power command that was sent may still be carried out" if arguments[:1] == ["power"] else ""
        print(f"boardhand: interrupted{note}", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left, as `head` does. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Exit.FAILED
    except Exception as error:  # the last line of defence: a person gets a line, not a page of Python
        if debug:
            raise
        print(f"boardhand: internal fault: {type(error).__name__}: {error}; run it again with --debug and report it",
              file=sys.stderr)  # fmt: skip
        return Exit.FAILED
    return code


def _run(arguments: list[str], *, argv_given: bool) -> int:
    if arguments[:1] == ["power"]:
        from cli.power import main as power

        code = power(arguments[1:], os.environ)
        if code is not None:
            return code if argv_given else _leave(code)
    from cli.command_line import run

    return run(arguments)


def _leave(code: int) -> "NoReturn":
    """End the process without taking the interpreter apart, which costs 3 of 19 ms. The connection is closed by now;
    what was printed is flushed here."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _tell(error: CliError, arguments: list[str]) -> None:
    print(f"boardhand: {error}", file=sys.stderr)
    if "--json" in arguments:
        import json

        document = {"exit": int(error.code), "message": error.message, "do": error.advice or None}
        print(json.dumps({"ok": False, "error": document}))
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
