"""Runs one tool to its end: its words as they come, a deadline, and nothing of it left behind.

The tool leads a process group of its own, which is killed whole; where util-linux's setpriv is, the kernel kills it
with us as well, so that an agent that is started again never finds the tool of the one before still writing.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from firmware_tools.flash.errors import ToolMissingError

READ_BYTES = 65536
MAX_LINE_CHARACTERS = 4096
KEPT_LINES = 60
"""Of the last words: what a person needs to see why it failed."""
TERM_GRACE_S = 2.0
"""Between SIGTERM and SIGKILL: a tool may want to let go of its device."""
DRAIN_S = 1.0
"""For words still in the pipe when the tool has ended."""
ENVIRONMENT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "XDG_RUNTIME_DIR")
"""Of ours that a tool gets; others may hold secrets."""
_LINE_END = re.compile(rb"[\r\n]")
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][AB0]|.)")

Hear = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a tool ended. `code` is negative for a signal; None where the deadline was over."""

    code: int | None
    words: tuple[str, ...]
    took_s: float

    @property
    def last_words(self) -> str:
        """Its last lines in one, for an error's message."""
        return " | ".join(self.words[-4:])[-600:] or "it said nothing"


class Lines:
    """Takes a tool's output apart; a progress bar's carriage returns end lines, too. Bounded, whatever comes."""

    def __init__(self) -> None:
        self._open = b""
        self.kept: list[str] = []

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` has ended, cleaned of colours and control characters; empty ones are left out."""
        *whole, self._open = _LINE_END.split(self._open + data)
        if len(self._open) > MAX_LINE_CHARACTERS:
            whole.append(self._open)
            self._open = b""
        return [line for line in map(self._clean, whole) if line]

    def end(self) -> list[str]:
        """What is left when there is no more."""
        rest, self._open = self._clean(self._open), b""
        return [rest] if rest else []

    def keep(self, line: str) -> None:
        """One of the last words. A line that only tells how far it is replaces the one before."""
        self.kept.append(line)
        del self.kept[:-KEPT_LINES]

    @staticmethod
    def _clean(line: bytes) -> str:
        text = _ESCAPES.sub("", line[:MAX_LINE_CHARACTERS].decode("utf-8", errors="replace"))
        return "".join(c if c.isprintable() else " " for c in text).strip()


async def run(
    argv: Sequence[str],
    hear: Hear,
    deadline_s: float,
    *,
    package: str = "",
    terminal: bool = False,
) -> Ended:
    """Run the tool. `hear` gets every line. Cancelled, the tool and all its children are dead when this returns.
    `terminal`: its output is a terminal, and no pipe.

    Raises:
        ToolMissingError: it is not installed, or may not be run; install `package`.
    """
    found = await asyncio.to_thread(shutil.which, argv[0])
    if found is None:
        advice = f"install {package}" if package else "check the path in the settings"
        raise ToolMissingError(f"{argv[0]}: is not there; {advice}")
    began, lines = time.monotonic(), Lines()
    ours, its = os.openpty() if terminal else os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *await asyncio.to_thread(_dying_with_us), found, *argv[1:],
            stdin=asyncio.subprocess.DEVNULL, stdout=its, stderr=its,
            env=_environment(), cwd="/", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        os.close(ours)
        raise ToolMissingError(f"{found}: cannot be run: {error.strerror}; check its permissions") from error
    except asyncio.CancelledError:
        os.close(ours)
        raise
    finally:
        os.close(its)
    reading = asyncio.create_task(_read(ours, lines, hear), name=f"output of {argv[0]}")
    code: int | None = None
    try:
        async with asyncio.timeout(deadline_s):
            code = await process.wait()
    except TimeoutError:
        lines.keep(f"killed: it did not end within {deadline_s:g} s")
    finally:
        await _end_group(process)
        await asyncio.wait({reading}, timeout=DRAIN_S)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return Ended(code, tuple(lines.kept), time.monotonic() - began)


def _dying_with_us() -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", "KILL", "--")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    # Tools speak to a program here: their words must not depend on who started the agent.
    return {**kept, "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """End the tool and what it has started; an ended tool's children, too."""
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TERM_GRACE_S):
                await process.wait()
    _signal_group(process.pid, signal.SIGKILL)
    if process.returncode is None:
        await process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def _read(pipe: int, lines: Lines, hear: Hear) -> None:
    """Read until nobody holds the other end. The pipe is ours and not asyncio's, because `Process.wait` of Python 3.11
    waits for whoever holds that, too."""

    def take(found: list[str]) -> None:
        for line in found:
            lines.keep(line)
            hear(line)

    async with _reader(os.fdopen(pipe, "rb", 0)) as reader:
        # A terminal ends with an error when the last program has closed it.
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                take(lines.feed(data))
        take(lines.end())


@contextlib.asynccontextmanager
async def _reader(pipe: object) -> AsyncIterator[asyncio.StreamReader]:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    try:
        yield reader
    finally:
        transport.close()
