"""A caught boot loader's command line, and the flows on it: commands of any length, variables."""

from collections.abc import Callable
from dataclasses import dataclass

from firmware_tools.bootloader import environment
from firmware_tools.bootloader.catch import Caught, Missed
from firmware_tools.bootloader.command import Command, CommandResult, Ended, wrapped
from firmware_tools.bootloader.dialect import Dialect, Kind, Status, quoted
from firmware_tools.bootloader.errors import CommandError, LeftError, NotAtPromptError, WordsError
from firmware_tools.bootloader.exchange import END_OF_LINE, Flow
from firmware_tools.bootloader.pacing import Pace

LINE_MOST = 240
"""Characters of a typed line: U-Boot's CONFIG_SYS_CBSIZE was 256 for long, and its end takes some."""
SCRATCH = "boardhand_line"
"""The variable in RAM where a longer command is put together."""
_WAYS = ({"doubled": True}, {"doubled": False})
"""How backslashes are written; the second way is that of U-Boot's simple parser and of its hush since 2024."""
ROOM_LEAST = 16
"""Characters of a value that one line must carry; with fewer a value would take hundreds of lines."""
SAVE_WITHIN_S = 60.0
"""NAND is erased and written."""
_LEFT = {
    Ended.RESET: "the board began anew",
    Ended.KERNEL: "a kernel was started",
    Ended.HUNG: "it hangs and says that only a reset helps",
    Ended.SILENT: "it does not come back, nor by Ctrl-C",
}


@dataclass(frozen=True, slots=True)
class Shell:
    """A boot loader that stands at its prompt.

    Attributes:
        version: its own words.
        marker: makes 8 letters and digits that stand nowhere else, for each call.
        line_most: characters that it takes in one line.
    """

    dialect: Dialect
    prompt: str
    status: Status
    version: str
    pace: Pace
    marker: Callable[[], str]
    line_most: int = LINE_MOST

    def command(
        self, text: str, *, within_s: float = 10.0, leaves: bool = False, silent_s: float | None = None
    ) -> Command:
        """One typed line."""
        return Command(
            self.dialect, text, self.marker(), self.status, self.pace,
            within_s=within_s, leaves=leaves, silent_s=silent_s,
        )  # fmt: skip

    def fits(self, text: str) -> bool:
        """Whether a command can be typed in one line."""
        return len(wrapped(text, "0" * 8, self.status)) + len(END_OF_LINE) <= self.line_most


@dataclass(frozen=True, slots=True)
class Line:
    """How a board is spoken to: what a `Shell` is made of."""

    dialect: Dialect
    pace: Pace
    marker: Callable[[], str]
    line_most: int = LINE_MOST


def identified(line: Line, caught: Caught | Missed) -> Flow[Shell]:
    """What has answered is a boot loader and no system's shell, and how it tells outcomes.

    Raises:
        NotAtPromptError: it is none, or nothing answered.
    """
    if isinstance(caught, Missed):
        raise NotAtPromptError(caught.why, caught.lines)
    shell = Shell(line.dialect, caught.prompt, caught.status, "", line.pace, line.marker, line.line_most)
    asked: CommandResult = yield shell.command("version")
    words = [text.strip() for text in asked.output.split("\n")]
    found = next((text for text in words if line.dialect.banner.match(text)), None)
    unknown = any(line.dialect.unknown_command.search(text) for text in words)
    is_one = found is not None or (unknown and (line.dialect.kind is Kind.U_BOOT or caught.banner is not None))
    if asked.ended is not Ended.DONE or not is_one:
        why = f"what answers is no {line.dialect.kind.value}: 'version' gives {words[0][:80]!r}"
        raise NotAtPromptError(why, tuple(words[-20:]))
    status = caught.status
    if status is Status.NONE:
        halves = line.marker()
        tried: CommandResult = yield shell.command(f"if echo; then echo '{halves[:4]}''{halves[4:]}'; fi")
        status = Status.BRANCH if any(text.strip() == halves for text in tried.output.split("\n")) else Status.NONE
    version = found or caught.banner or line.dialect.kind.value
    return Shell(line.dialect, caught.prompt, status, version, line.pace, line.marker, line.line_most)


def still_there(result: CommandResult) -> CommandResult:
    """`result`, after which the boot loader stands at its prompt.

    Raises:
        LeftError: it does not.
    """
    why = _LEFT.get(result.ended)
    if why is None:
        return result
    lines = tuple(result.output.split("\n")[-40:])
    raise LeftError(f"{result.command[:120]!r}: {why}", lines, again=result.ended is Ended.RESET)


def checked_command(text: str) -> str:
    """A command that can be typed.

    Raises:
        WordsError: it cannot.
    """
    if not text.strip() or not text.isascii() or not text.isprintable():
        raise WordsError("a command is one line of printable ASCII characters")
    return text


def run(
    shell: Shell, text: str, *, within_s: float = 10.0, leaves: bool = False, silent_s: float | None = None
) -> Flow[CommandResult]:
    """One command of any length; a longer one is put together in a variable in RAM.

    Raises:
        WordsError: it cannot be typed.
        LeftError: the boot loader was left while it was put together.
        CommandError: it could not be put together.
    """
    checked_command(text)
    if shell.fits(text):
        result: CommandResult = yield shell.command(text, within_s=within_s, leaves=leaves, silent_s=silent_s)
        return result
    yield from _put(shell, SCRATCH, text)
    long: CommandResult = yield shell.command(f"run {SCRATCH}", within_s=within_s, leaves=leaves, silent_s=silent_s)
    if long.ended in {Ended.DONE, Ended.TIMEOUT}:
        yield shell.command(f"setenv {SCRATCH}")
    return CommandResult(text, long.ended, long.status, long.ok, long.output, long.took_s)


def _pieces(shell: Shell, name: str, text: str, *, doubled: bool) -> list[str]:
    """`text` in parts that each fit into a `setenv` of their own, as its quoted words."""
    empty = f'setenv {name} "${{{name}}}"'
    room = shell.line_most - len(END_OF_LINE) - len(wrapped(empty, "0" * 8, shell.status))
    if room < ROOM_LEAST:
        raise WordsError(f"{name}: lines of {shell.line_most} characters are too short for it")
    parts, part = [], ""
    for letter in text:
        if part and len(quoted(part + letter, doubled=doubled)) > room:
            parts.append(quoted(part, doubled=doubled))
            part = ""
        part += letter
    return [*parts, quoted(part, doubled=doubled)]


def _set_commands(shell: Shell, name: str, text: str, *, doubled: bool) -> list[str]:
    whole = environment.set_command(shell.dialect, name, quoted(text, doubled=doubled))
    if shell.fits(whole):
        return [whole]
    # U-Boot's hush reads a line anew when it has put a variable's value in: quotes in it do not survive.
    if shell.dialect.kind is not Kind.U_BOOT or "'" in text or "\\" in text:
        raise WordsError(
            f"{name}: {len(text)} characters with quotes or backslashes do not fit on a line of {shell.line_most}; "
            "set line_most to what this boot loader takes (U-Boot: CONFIG_SYS_CBSIZE)"
        )
    first, *rest = _pieces(shell, name, text, doubled=doubled)
    return [f"setenv {name} {first}", *(f'setenv {name} "${{{name}}}"{part}' for part in rest)]


def _put(shell: Shell, name: str, text: str) -> Flow[None]:
    """Set a variable of any length and compare what is there then.

    Raises:
        WordsError: lines are too short for it.
        CommandError: another text is there.
    """
    there: str | None = None
    said = ""
    for way in _WAYS:
        for command in _set_commands(shell, name, text, **way):
            done: CommandResult = still_there((yield shell.command(command)))
            said = done.output.strip() or said
        there = yield from read(shell, name)
        if there == text:
            return
    shown = "not set" if there is None else f"{there[:80]!r}, {len(there)} characters"
    raise CommandError(
        f"{name}: is {shown}, after it was set to {text[:80]!r}, {len(text)} characters", tuple(said.split("\n"))
    )


def read(shell: Shell, name: str) -> Flow[str | None]:
    """One variable; None where it is not set.

    Raises:
        WordsError: it is no name.
        LeftError: the boot loader was left.
        CommandError: it did not answer.
    """
    environment.check_name(name)
    result: CommandResult = still_there((yield shell.command(environment.read_command(shell.dialect, name))))
    if result.ended is not Ended.DONE:
        raise CommandError(f"{name}: was not told in time", tuple(result.output.split("\n")[-20:]))
    value = environment.one_value(name, result.output)
    if value is not None and len(result.output) >= environment.PRINTED_MOST:
        whole = (yield from read_all(shell)).get(name, "")
        return whole if whole.startswith(value) else value
    return value


def read_all(shell: Shell) -> Flow[dict[str, str]]:
    """All variables.

    Raises:
        LeftError: the boot loader was left.
        CommandError: it did not answer, or said no.
    """
    result: CommandResult = still_there((yield shell.command(shell.dialect.read_all, within_s=30.0)))
    if result.ended is not Ended.DONE or result.ok is False:
        raise CommandError(f"{shell.dialect.read_all}: no answer", tuple(result.output.split("\n")[-20:]))
    return environment.all_values(shell.dialect, result.output)


def write(shell: Shell, name: str, value: str | None) -> Flow[None]:
    """Set one variable in RAM, or take it away with None, and compare what is there then.

    Raises:
        WordsError: name or value cannot be typed.
        LeftError: the boot loader was left.
        CommandError: it is not so: U-Boot protects `ethaddr`, and noise changes letters.
    """
    environment.check_name(name)
    if value:
        environment.check_value(name, value)
        yield from _put(shell, name, value)
        return
    done: CommandResult = still_there((yield shell.command(environment.set_command(shell.dialect, name, ""))))
    if (yield from read(shell, name)):
        raise CommandError(f"{name}: is still set", tuple(done.output.split("\n")[-20:]))


def save(shell: Shell) -> Flow[CommandResult]:
    """Write the variables to where the next boot reads them.

    Raises:
        LeftError: the boot loader was left.
        CommandError: it said no.
    """
    result: CommandResult = still_there((yield shell.command(shell.dialect.save, within_s=SAVE_WITHIN_S)))
    if result.ended is not Ended.DONE or result.ok is False:
        raise CommandError(f"{shell.dialect.save}: failed", tuple(result.output.split("\n")[-20:]))
    return result
