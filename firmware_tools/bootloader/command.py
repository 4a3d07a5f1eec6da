"""One command at a boot loader's prompt: typed between two markers, so that its output and its outcome are told from
echoes, prompts and what others print meanwhile."""

import re
from dataclasses import dataclass
from enum import StrEnum

from firmware_tools.bootloader.dialect import Dialect, Status, is_hung, is_kernel
from firmware_tools.bootloader.exchange import END_OF_LINE, INTERRUPT, Exchange
from firmware_tools.bootloader.pacing import Pace

GRACE_S = 1.5
"""Between a banner or a kernel's line and the end of the command: `version` prints a banner and goes on."""
AFTER_INTERRUPT_S = 1.5
"""For Ctrl-C to end a command that takes too long; the second one clears the line at the prompt, which is told."""
INTERRUPTS = 3
OUTPUT_CHARACTERS = 256 * 1024
"""Of a command that are kept: the last of them."""


class Ended(StrEnum):
    """How a command ended."""

    DONE = "done"
    """Its prompt is back."""
    TIMEOUT = "timeout"
    """It did not end in its time and was interrupted."""
    SILENT = "silent"
    """It did not end in its time, nor by Ctrl-C."""
    RESET = "reset"
    """The board began anew."""
    KERNEL = "kernel"
    """A kernel runs now."""
    HUNG = "hung"
    """It says that only a reset helps."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What came of one command.

    Attributes:
        status: its number, 0 for success; None where the shell tells none or the command did not come back.
        ok: whether it succeeded; None where nothing tells.
        output: its lines, without echo and markers.
    """

    command: str
    ended: Ended
    status: int | None
    ok: bool | None
    output: str
    took_s: float


def wrapped(command: str, marker: str, status: Status) -> str:
    """The line to be typed. `marker` appears in it only cut in two; joined in the output, as `B` and `E` with it."""
    half = len(marker) // 2
    halves = f"'{marker[:half]}''{marker[half:]}"
    begin, end = f"echo {halves}B'", f"{halves}E'"
    if status is Status.CODE:
        return f"{begin}; {command}; echo {end}:$?"
    if status is Status.BRANCH:
        return f"{begin}; if {command}; then echo {end}:0; else echo {end}:1; fi"
    return f"{begin}; {command}; echo {end}:"


class Command(Exchange[CommandResult]):
    """One command. `command` is one line; `marker` as for `Catch`; `within_s` from its last character on.

    With `leaves`, that a kernel starts, or the boot loader anew, ends it at once: the command is to boot one.
    """

    stage = "command"

    def __init__(  # each is one thing of a command's nature
        self,
        dialect: Dialect,
        command: str,
        marker: str,
        status: Status,
        pace: Pace,
        *,
        within_s: float = 10.0,
        leaves: bool = False,
        silent_s: float | None = None,
    ) -> None:
        """`silent_s`: how long it may print nothing; None: as long as `within_s`."""
        super().__init__()
        self.command = command
        self._dialect = dialect
        self._status = status
        self._leaves = leaves
        self._within_s = within_s
        self._silent_s = silent_s
        self._line = wrapped(command, marker, status).encode("ascii", "replace") + END_OF_LINE
        self._typing_s = pace.takes_s(self._line)
        self._begin = re.compile(re.escape(marker) + "B")
        self._end = re.compile(re.escape(marker) + r"E:(\d+)?")
        self._end_lost = re.compile(re.escape(marker) + r"E:(\d+)\D")
        self._begun = False
        self._lines: list[str] = []
        self._kept = 0
        self._leaving: Ended | None = None
        self._leaving_s = 0.0
        self._interrupted_s: float | None = None
        self._interrupts = 0
        self._began_s = self._last_s = 0.0

    def begin(self, now: float) -> bytes:
        self._began_s = now
        self._last_s = now + self._typing_s
        self._set_alarm()
        return self._line

    def received(self, data: bytes, now: float) -> bytes:
        self._last_s = max(self._last_s, now)
        for line in self.text.feed(data):
            if self.result is None:
                self._take(line, now)
        # The end is an answer even where noise took its line end: the prompt follows it then.
        if self.result is None and (match := self._end_lost.search(self.text.partial)) is not None:
            self._finish(Ended.DONE, match, now)
        self._set_alarm()
        return b""

    def tick(self, now: float) -> bytes:
        typed = b""
        if self.result is not None:
            return typed
        if self._leaving is not None and now >= self._leaving_s:
            self._finish(self._leaving, None, now)
        elif now >= self._over_s() if self._interrupted_s is None else now >= self._interrupted_s:
            if self._interrupts == INTERRUPTS:
                self._finish(Ended.SILENT, None, now)
            else:
                self._interrupts += 1
                self._interrupted_s = now + AFTER_INTERRUPT_S
                typed = INTERRUPT
        self._set_alarm()
        return typed

    def _take(self, line: str, now: float) -> None:
        match = self._end.search(line)
        if match is not None:
            self._keep(line[: match.start()])
            self._finish(Ended.DONE, match, now)
            return
        if not self._begun and self._begin.search(line) is not None:
            self._begun = True
            self._lines, self._kept = [], 0
            return
        if self._interrupted_s is not None and line.strip() == "<INTERRUPT>":
            # Ctrl-C ended the whole line, markers and all.
            self._finish(Ended.TIMEOUT, None, now)
            return
        self._keep(line)
        self._leaves_by(line, now)

    def _leaves_by(self, line: str, now: float) -> None:
        if is_hung(self._dialect, line):
            self._finish(Ended.HUNG, None, now)
            return
        if is_kernel(line):
            leaving = Ended.KERNEL
        elif self._dialect.banner.match(line):
            leaving = Ended.RESET
        else:
            return
        if self._leaves:
            # At once: a board that began anew boots by its own environment soon, and that kernel is not the one.
            self._finish(leaving, None, now)
        elif self._leaving is None:
            self._leaving, self._leaving_s = leaving, now + GRACE_S

    def _keep(self, line: str) -> None:
        if not line and not self._lines:
            return
        self._lines.append(line)
        self._kept += len(line) + 1
        while self._kept > OUTPUT_CHARACTERS and len(self._lines) > 1:
            self._kept -= len(self._lines.pop(0)) + 1

    def _finish(self, ended: Ended, end: re.Match[str] | None, now: float) -> None:
        if ended is Ended.DONE and self._interrupted_s is not None:
            ended = Ended.TIMEOUT
        lines = self._lines if self._begun else [line for line in self._lines if not self._is_echo(line)]
        output = "\n".join(lines).rstrip("\n")
        status = int(end[1]) if end is not None and end[1] is not None else None
        ok = None if status is None else status == 0
        if ended is not Ended.DONE:
            status, ok = None, False
        elif status is None and self._dialect.unknown_command.search(output.partition("\n")[0]):
            ok = False
        self.result = CommandResult(self.command, ended, status, ok, output, now - self._began_s)

    def _is_echo(self, line: str) -> bool:
        """Of the typed line, where the first marker was lost to noise."""
        return self.command in line and "echo '" in line

    def _over_s(self) -> float:
        over_s = self._began_s + self._typing_s + self._within_s
        return over_s if self._silent_s is None else min(over_s, self._last_s + self._silent_s)

    def _set_alarm(self) -> None:
        if self.result is not None:
            self.wake_at = None
            return
        times = [self._over_s()] if self._interrupted_s is None else [self._interrupted_s]
        if self._leaving is not None:
            times.append(self._leaving_s)
        self.wake_at = min(times)
