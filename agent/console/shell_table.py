"""The states of the dialogue with a board's shell as a table, what happens in it, and what it has done."""

import re
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    WATCHING = "watching"
    """Nothing is typed."""
    LOOKING = "looking"
    """A line end was typed: what stands there?"""
    LOGGING_IN = "logging in"
    PASSWORD_TYPED = "password typed"  # noqa: S105  # what was typed
    PROBING = "probing"
    SHELL = "shell"
    """It has answered, and is idle."""
    TYPING = "typing"
    """A script goes over, piece by piece."""
    RUNNING = "running"
    ENDING = "ending"
    """The command was interrupted; is the shell back?"""


class Sight(StrEnum):
    """What happens."""

    APPROACH = "approach"
    LOGIN = "login prompt"
    PASSWORD = "password prompt"  # noqa: S105  # the prompt's name
    ENTER = "asks for Enter"
    OTHER = "quiet, with something else"
    """Perhaps a shell's prompt."""
    PROBED = "probe answered"
    DUE = "no answer in time"
    RUN = "a command is to run"
    TYPED = "script is over"
    ENDED = "command ended"
    INTERRUPT = "interrupt"
    BACK = "shell is back"
    BOOT = "board restarted"
    LOST = "given up"


_S, _E = State, Sight
AT_EASE = (_S.LOOKING, _S.LOGGING_IN, _S.PASSWORD_TYPED, _S.PROBING)
AT_WORK = (_S.TYPING, _S.RUNNING, _S.ENDING)

TABLE: dict[tuple[State, Sight], tuple[str, State]] = {
    (_S.WATCHING, _E.APPROACH): ("nudge", _S.LOOKING),
    (_S.SHELL, _E.APPROACH): ("probe", _S.PROBING),
    (_S.LOOKING, _E.LOGIN): ("user", _S.LOGGING_IN),
    (_S.LOOKING, _E.PASSWORD): ("nudge", _S.LOOKING),
    (_S.LOOKING, _E.ENTER): ("nudge", _S.LOOKING),
    (_S.LOOKING, _E.OTHER): ("probe", _S.PROBING),
    (_S.LOGGING_IN, _E.PASSWORD): ("password", _S.PASSWORD_TYPED),
    (_S.LOGGING_IN, _E.LOGIN): ("refused", _S.LOOKING),
    (_S.LOGGING_IN, _E.OTHER): ("probe", _S.PROBING),
    (_S.PASSWORD_TYPED, _E.LOGIN): ("refused", _S.LOOKING),
    (_S.PASSWORD_TYPED, _E.PASSWORD): ("refused", _S.LOOKING),
    (_S.PASSWORD_TYPED, _E.OTHER): ("probe", _S.PROBING),
    (_S.PROBING, _E.PROBED): ("found", _S.SHELL),
    (_S.PROBING, _E.DUE): ("nudge", _S.LOOKING),
    (_S.PROBING, _E.LOGIN): ("user", _S.LOGGING_IN),
    (_S.PROBING, _E.PASSWORD): ("nudge", _S.LOOKING),
    (_S.SHELL, _E.LOGIN): ("logged_out", _S.WATCHING),
    (_S.SHELL, _E.RUN): ("begin_typing", _S.TYPING),
    (_S.TYPING, _E.DUE): ("type_again", _S.TYPING),
    (_S.TYPING, _E.TYPED): ("begin_running", _S.RUNNING),
    (_S.RUNNING, _E.ENDED): ("end", _S.SHELL),
    (_S.RUNNING, _E.DUE): ("interrupt", _S.ENDING),
    (_S.RUNNING, _E.LOGIN): ("lose", _S.WATCHING),
    (_S.TYPING, _E.INTERRUPT): ("interrupt", _S.ENDING),
    (_S.RUNNING, _E.INTERRUPT): ("interrupt", _S.ENDING),
    (_S.ENDING, _E.DUE): ("interrupt", _S.ENDING),
    (_S.ENDING, _E.ENDED): ("end", _S.SHELL),
    (_S.ENDING, _E.BACK): ("end", _S.SHELL),
    (_S.ENDING, _E.LOGIN): ("lose", _S.WATCHING),
    **{(state, _E.BOOT): ("lose", _S.WATCHING) for state in (*AT_EASE, *AT_WORK, _S.SHELL)},
    **{(state, _E.LOST): ("lose", _S.WATCHING) for state in (*AT_EASE, *AT_WORK, _S.SHELL)},
}
"""What is done, and the next state. Where a pair is absent nothing happens."""


@dataclass(frozen=True, slots=True)
class Type:
    """Type this, and then nothing for `rest_s`."""

    data: bytes
    rest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Output:
    """The command printed this."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The command is over. `exit_code` is None when it did not come to its own end; `problem` then says why, and
    `timed_out` whether it had its time."""

    exit_code: int | None
    problem: str | None = None
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Invited:
    """Something stands on the console that a person would answer."""

    sight: Sight
    line: str


@dataclass(frozen=True, slots=True)
class Found:
    """A shell has answered."""


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no shell (any more), and why."""

    why: str


Action = Type | Output | Ended | Invited | Found | Lost


@dataclass(frozen=True, slots=True)
class ShellWays:
    """What the settings say of a board's shell.

    Attributes:
        user, password: for a login prompt; None where the settings have none.
        prompt: how the shell's prompt ends, where it is no usual one.
        line_characters: the longest line that its editor takes.
        char_delay_s: between two characters that are typed.
    """

    user: str | None = None
    password: str | None = None
    prompt: re.Pattern[bytes] | None = None
    line_characters: int = 240
    char_delay_s: float = 0.0
