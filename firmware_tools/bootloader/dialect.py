"""U-Boot and barebox as data: what they print, what stops them, how a command's outcome is told.

Sources: U-Boot common/autoboot.c, common/cli_hush.c, common/cli_simple.c, cmd/nvedit.c, doc/usage/cmd; barebox
common/startup.c, common/hush.c, common/globalvar.c. Console lines are matched as `console_text` gives them.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum

_GARBAGE = r"^(?:.*[^\x20-\x7e])?[ \t]*"
"""A line's begin, also behind noise; readable text before it makes it a log line about something else."""


class Kind(StrEnum):
    """Which boot loader."""

    U_BOOT = "u-boot"
    BAREBOX = "barebox"


class Status(StrEnum):
    """How a shell tells the outcome of a command."""

    CODE = "code"
    """`$?`: hush."""
    BRANCH = "branch"
    """`if …; then …; else …; fi`: hush without `$?`."""
    NONE = "none"
    """Not at all: U-Boot's simple parser (no CONFIG_HUSH_PARSER)."""


@dataclass(frozen=True, slots=True)
class StopKeys:
    """An autoboot message, and the keys that stop it. `\\1` in `keys` is what the message names."""

    message: re.Pattern[str]
    keys: bytes | None
    """None: the first group of the message, as it stands."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One boot loader's ways.

    Attributes:
        banner: the line by which it begins.
        autoboot: its countdowns, the most telling first.
        press: what is pressed before any countdown was seen, one after the other.
        prompts: what a prompt looks like, where the board's is not known.
        unknown_command: how it answers a command that it does not have.
        read_all: prints all variables.
        save: writes them to where the next boot reads them.
    """

    kind: Kind
    banner: re.Pattern[str]
    autoboot: tuple[StopKeys, ...]
    press: tuple[bytes, ...]
    prompts: tuple[re.Pattern[str], ...]
    unknown_command: re.Pattern[str]
    read_all: str
    save: str
    hangs: tuple[re.Pattern[str], ...] = field(default=())
    """It says that only a reset helps."""


COUNTDOWN_MOST = 400
"""Characters of a line in which a countdown is looked for: its end, so that a flood without line ends costs little."""
_ANY_KEY = b" "
_INTERRUPT = b"\x03"
_AUTOBOOT = (
    StopKeys(
        re.compile(r"(?:<?esc>?|escape).{0,8}(?:<?esc>?|escape)\S{0,8} .{0,40}(?:stop|abort|auto)", re.IGNORECASE),
        b"\x1b\x1b",
    ),
    StopKeys(re.compile(r"(?:press|hit|type|enter)\W{0,3}(?:the )?(?:esc|escape)\b", re.IGNORECASE), b"\x1b"),
    StopKeys(re.compile(r"(?:press|hit|type|enter)\W{0,3}(?:ctrl|\^)\W?c\b", re.IGNORECASE), b"\x03"),
    StopKeys(re.compile(r"(?:press|hit)\W{0,3}(?:enter|return)\b", re.IGNORECASE), b"\r"),
    StopKeys(re.compile(r"(?:press|hit)\W{0,3}(?:the )?space\b", re.IGNORECASE), _ANY_KEY),
    StopKeys(re.compile(r"hit (?:any key|any) to stop autoboot|any key to stop", re.IGNORECASE), _ANY_KEY),
    StopKeys(
        re.compile(
            r"(?:press|hit|type|enter) ['\"]([\x21-\x7e]{1,32})['\"] .{0,40}(?:stop|abort|interrupt)", re.IGNORECASE
        ),
        None,
    ),
    StopKeys(re.compile(r"autoboot(?:ing)? in \d+ sec", re.IGNORECASE), _ANY_KEY),
)
_GENERIC_PROMPT = re.compile(r"[\x20-\x7e]{0,60}?(?:=>|[>#$%]) *")
_KERNEL = re.compile(
    _GARBAGE + r"(?:Starting kernel \.\.\.|Booting Linux on physical CPU|Linux version \d|booting kernel\b"
    r"|Loaded kernel to 0x|(?:\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? )(?:Booting Linux|Linux version))"
)

DIALECTS: dict[Kind, Dialect] = {
    Kind.U_BOOT: Dialect(
        kind=Kind.U_BOOT,
        banner=re.compile(_GARBAGE + r"U-Boot (?:SPL |TPL |VPL )?20\d\d\.\d\d"),
        autoboot=_AUTOBOOT,
        # Ctrl-C counts as any key, and ends a boot command that is on its way already.
        press=(_ANY_KEY, _INTERRUPT),
        prompts=(re.compile(r"=> *"), re.compile(r"[\w .@()-]{0,40}(?:=>|[>#]) *")),
        unknown_command=re.compile(r"^Unknown command '"),
        read_all="printenv",
        save="saveenv",
        hangs=(re.compile(r"### ERROR ### Please RESET the board ###"),),
    ),
    Kind.BAREBOX: Dialect(
        kind=Kind.BAREBOX,
        banner=re.compile(_GARBAGE + r"barebox 20\d\d\.\d\d"),
        autoboot=_AUTOBOOT,
        press=(_ANY_KEY, _INTERRUPT),
        prompts=(
            re.compile(r"barebox(?:@[^\n:]{0,60})?:[\x21-\x7e]{0,60} *"),
            re.compile(r"[\w .@()-]{0,60}:/[^ ]{0,40} *"),
        ),
        unknown_command=re.compile(r"(?:command )?not found$"),
        read_all="global",
        save="saveenv",
        hangs=(re.compile(r"### ERROR ### Please RESET the board ###"),),
    ),
}


def stop_keys(dialect: Dialect, line: str) -> bytes | None:
    """The keys that stop the countdown in `line`; None where it is none."""
    line = line[-COUNTDOWN_MOST:]
    for known in dialect.autoboot:
        match = known.message.search(line)
        if match is not None:
            return match[1].encode("ascii") if known.keys is None else known.keys
    return None


def looks_like_prompt(dialect: Dialect, partial: str, prompt: str | None) -> bool:
    """Whether a line that has not ended could be a prompt, with keys echoed behind it. `prompt` is the board's, where
    that is known."""
    if prompt is not None:
        wanted = prompt.rstrip()
        at = partial.rfind(wanted)
        return at >= 0 and bool(wanted) and not partial[at + len(wanted) :].strip()
    if not partial.strip():
        return False
    return any(known.fullmatch(partial) for known in (*dialect.prompts, _GENERIC_PROMPT))


def is_kernel(line: str) -> bool:
    """Whether `line` says that the boot loader has handed over to a kernel."""
    return _KERNEL.match(line) is not None


def is_hung(dialect: Dialect, line: str) -> bool:
    """Whether the boot loader says that only a reset helps."""
    return any(known.search(line) for known in dialect.hangs)


def quoted(text: str, *, doubled: bool = True) -> str:
    """`text` as one word: nothing in it is expanded.

    `doubled`: with two backslashes for one, as U-Boot's old hush (the only one up to 2024) takes them also in quotes.
    """
    if doubled:
        text = text.replace("\\", "\\\\")
    return "'" + text.replace("'", "'\\''") + "'"
