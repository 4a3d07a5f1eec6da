"""How `boardhand` ends: the exit codes that scripts build on, and the one error type that carries them."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of every command. They are contract: a script tells by them what to do next."""

    OK = 0
    FAILED = 1
    """It was tried and failed: power was not verified, a job did not pass."""
    USAGE = 2
    """The command line or a settings file is wrong."""
    UNREACHABLE = 3
    """The MQTT server could not be reached, or refused the connection."""
    NO_ANSWER = 4
    """Nobody answered in time, or nobody knows the board or the job."""
    NOT_ALLOWED = 5
    """A lease, a token or a rule stands against it."""
    FARM_FAULT = 6
    """The farm failed the job, not the job itself: no board came up, attempts are used up. It may be tried again."""
    CANCELLED = 7
    """Somebody cancelled the job."""
    INTERRUPTED = 130
    """Ctrl-C."""


class CliError(Exception):
    """Ends the command with `code`; the person sees one line: what is wrong, and what to do about it.

    Attributes:
        code: the exit code.
        message: what is wrong, as a clause that names the board, file or server.
        advice: what to do, as a clause; may be empty.
    """

    def __init__(self, code: Exit, message: str, advice: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.code = code
        self.message = message
        self.advice = advice


def usage(message: str, advice: str = "see 'boardhand --help'") -> CliError:
    """A `CliError` for a wrong command line or wrong settings."""
    return CliError(Exit.USAGE, message, advice)


# `error.kind` of the contract -> what the caller does next. A kind that is not here was tried and failed.
_EXIT_OF_KIND = {
    "not-allowed": Exit.NOT_ALLOWED,
    "unknown-board": Exit.NO_ANSWER,
    "not-found": Exit.NO_ANSWER,
    "expired": Exit.NO_ANSWER,
    "bad-request": Exit.USAGE,
}
_ADVICE_OF_KIND = {
    "not-allowed": "give the lease's token with --token, or --force if you are an operator",
    "expired": "send it again; if this repeats, compare the clocks of this host and the agent's",
    "unknown-board": "see 'boardhand boards'",
    "not-found": "see 'boardhand jobs' and 'boardhand boards'",
    "bad-request": "mend it and send it again",
    "configuration": "mend the agent's settings; trying again does not help",
    "authentication": "mend the controller's credentials in the agent's settings",
    "unreachable": "check the controller's power and network, then try again",
    "refused": "look at the controller: it answered no",
    "not-verified": "look at the outlet: the controller accepted, and the read-back says otherwise",
    "interrupted": "see 'boardhand power BOARD status' for what is, then try again",
    "busy": "try again in a moment",
    "internal": "look at the agent's log",
}


def exit_of(kind: str) -> Exit:
    """The exit code for an `error.kind` of the contract; unknown kinds count as tried and failed."""
    return _EXIT_OF_KIND.get(kind, Exit.FAILED)


def advice_of(kind: str) -> str:
    """What to do about an `error.kind`, as a clause; empty for a kind of a later contract."""
    return _ADVICE_OF_KIND.get(kind, "")
