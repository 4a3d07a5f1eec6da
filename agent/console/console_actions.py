"""What is asked of a board's console over MQTT and takes its time: write, expect, and run a command on its shell.

`console-write`: `{"text": …}` or `{"base64": …}`, `"char_delay_ms"`, `"break": true`. `console-expect`:
`{"patterns": […], "regex": false, "send": …, "for_s": 30}`. `console-run`: `{"command": …, "for_s": 600}`. The lease,
one at a time per board, and their cancellation are the house's business.
"""

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from agent.console.console import Console
from agent.console.pattern_search import WINDOW_BYTES, PlainSearch, RegexSearch, Search
from agent.console.shell_line import ConsoleBusyError, ConsoleShell, ShellError
from agent.console.shell_text import MAX_SCRIPT_BYTES
from agent.console.writer_place import Writer
from agent.requests import Answer, RequestError, text
from wire.phases import ErrorKind

log = logging.getLogger(__name__)

Tell = Callable[..., None]
"""`tell(stage, percent, message)`: how far it is."""
MAX_WRITE_BYTES = 64 * 1024
"""Of one request: at 115200 baud 6 s."""
PIECE_BYTES = 256
STUCK_S = 600.0
"""A full queue, 64 KiB, is typed in 546 s at 1200 baud; one that takes longer is held up, by flow control."""
MAX_DELAY_MS = 1000.0
EXPECT_S, RUN_S, MOST_S = 30.0, 600.0, 24 * 3600.0
MAX_PATTERNS, MAX_PATTERN_CHARACTERS = 20, 500
TEXT_BYTES = 32 * 1024
"""Of what stood before a match, the last of it, and the match itself: an answer has to fit a payload."""
OUTPUT_BYTES = 48 * 1024
"""Of a command's output as much of its beginning, and of its end."""


@dataclass(frozen=True, slots=True)
class Consoles:
    """The consoles of an agent, and which boards it has."""

    consoles: Mapping[str, Console]
    shells: Mapping[str, ConsoleShell]

    def console(self, board: str) -> Console:
        """The board's.

        Raises:
            RequestError: it has none.
        """
        if board not in self.consoles:
            raise RequestError(ErrorKind.NOT_FOUND, f"board {board} has no console here", "board")
        return self.consoles[board]


async def write(consoles: Consoles, board: str, data: dict[str, object], tell: Tell) -> Answer:
    """Type something, at the pace that was asked for.

    Raises:
        RequestError: the request is wrong, or the console is not to be had.
    """
    console, wanted, delay_s = consoles.console(board), _bytes(data), _number(data, "char_delay_ms", 0.0, MAX_DELAY_MS)
    is_break = data.get("break") is True
    if wanted is None and not is_break:
        raise RequestError(ErrorKind.BAD_REQUEST, "text, base64 or break: one is needed", "text")
    writer = _taken(console, "console-write", data)
    try:
        if is_break:
            _refused(board, console.pulse(writer))
        await _typed(console, writer, wanted or b"", delay_s / 1000, tell)
    finally:
        console.leave_place(writer)
    return {"board": board, "bytes": len(wanted or b"")}


async def expect(consoles: Consoles, board: str, data: dict[str, object], tell: Tell) -> Answer:
    """Wait for one of the patterns, from now on; `matched` is null when none came in `for_s`.

    Raises:
        RequestError: the request is wrong, or the console is not to be had.
    """
    console, for_s = consoles.console(board), _number(data, "for_s", EXPECT_S, MOST_S)
    patterns, sent = _patterns(data), _bytes({"text": data.get("send")}) if "send" in data else None
    search = await _search(patterns, is_regex=data.get("regex") is True)
    reader = _Listener(search)
    writer = _taken(console, "console-expect", data) if sent is not None else None
    console.attach(reader)
    try:
        tell("waiting")
        if writer is not None:
            await _typed(console, writer, sent or b"", 0.0, tell)
        found = None
        with suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                found = await search.found()
    except OSError as error:
        raise RequestError(ErrorKind.INTERNAL, f"board {board}: {error}") from error
    finally:
        console.detach(reader)
        if writer is not None:
            console.leave_place(writer)
        await search.close()
    if found is None:
        return {"board": board, "matched": None, "before": _told(reader.said_bytes)}
    return {
        "board": board,
        "matched": patterns[found.index],
        "index": found.index,
        "match": _told(found.match),
        "before": _told(found.before),
    }


async def run(consoles: Consoles, board: str, data: dict[str, object], tell: Tell) -> Answer:
    """Run a command on the board's shell: found, logged in where that is asked, and asked how it ended.

    Raises:
        RequestError: the request is wrong, or there is no shell to be had.
    """
    consoles.console(board)
    shell, command, for_s = consoles.shells[board], text(data, "command"), _number(data, "for_s", RUN_S, MOST_S)
    if not command.strip() or len(command.encode()) > MAX_SCRIPT_BYTES or "\0" in command:
        message = f"command: a text of at most {MAX_SCRIPT_BYTES} bytes, without NUL"
        raise RequestError(ErrorKind.BAD_REQUEST, message, "command")
    kept = _Kept(tell)
    try:
        shell.begin("console-run", _token(data))
    except ConsoleBusyError as error:
        raise RequestError(ErrorKind.BUSY, f"board {board}: {error}") from error
    try:
        tell("shell")
        await shell.approach()
        tell("running")
        began = asyncio.get_running_loop().time()
        ended = await shell.run(command, for_s, kept.take)
        took_s = asyncio.get_running_loop().time() - began
    except ShellError as error:
        raise RequestError(ErrorKind.UNREACHABLE, f"board {board}: no shell on its console: {error}") from error
    finally:
        shell.end()
    output, left_out = kept.text()
    return {
        "board": board,
        "exit_code": ended.exit_code,
        "problem": ended.problem,
        "output": output,
        "left_out_bytes": left_out,
        "took_s": round(took_s, 3),
    }


class _Listener:
    """Hands on what a board says, and keeps the window that is searched."""

    def __init__(self, search: Search) -> None:
        self.said_bytes = b""
        self._search = search

    def said(self, data: bytes) -> None:
        self.said_bytes = (self.said_bytes + data)[-WINDOW_BYTES:]
        self._search.feed(data)

    def changed(self) -> None:
        """A port that went away may come back in time."""


class _Kept:
    """The beginning and the end of a command's output."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._head, self._tail, self._left_out = b"", b"", 0

    def take(self, data: bytes) -> None:
        room = max(0, OUTPUT_BYTES - len(self._head))
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > OUTPUT_BYTES:
            self._left_out += len(self._tail) - OUTPUT_BYTES
            self._tail = self._tail[-OUTPUT_BYTES:]
        lines = data.decode(errors="replace").rstrip().splitlines()
        self._tell("running", None, lines[-1][:200] if lines else "")

    def text(self) -> tuple[str, int]:
        gap = f"\n[boardhand: {self._left_out} bytes left out]\n".encode() if self._left_out else b""
        return (self._head + gap + self._tail).decode(errors="replace"), self._left_out


def _taken(console: Console, name: str, data: dict[str, object]) -> Writer:
    """The writer's place; a person who has it is told that it was taken."""
    writer = Writer(name, _token(data), keeps=True)
    if not console.port.state.is_open:
        message = f"board {console.board}: its console's port is away: {console.port.state.why}"
        raise RequestError(ErrorKind.UNREACHABLE, message)
    _refused(console.board, console.take_place(writer))
    return writer


def _refused(board: str, why: str | None) -> None:
    if why is not None:
        raise RequestError(ErrorKind.BUSY, f"board {board}: not typed: {why}")


async def _typed(console: Console, writer: Writer, wanted: bytes, delay_s: float, tell: Tell) -> None:
    step = 1 if delay_s else PIECE_BYTES
    for at in range(0, len(wanted), step):
        while console.port.is_full:
            drained = asyncio.Event()
            console.port.when_drained(drained.set)
            try:
                async with asyncio.timeout(STUCK_S):
                    await drained.wait()
            except TimeoutError:
                message = f"board {console.board}: after {at} bytes its line takes nothing more; is it flow control?"
                raise RequestError(ErrorKind.UNREACHABLE, message) from None
        _refused(console.board, console.type(writer, wanted[at : at + step]))
        tell("typing", 100.0 * (at + step) / len(wanted))
        if delay_s:
            await asyncio.sleep(delay_s)


async def _search(patterns: list[str], *, is_regex: bool) -> Search:
    if not is_regex:
        return PlainSearch(patterns)
    try:
        return await RegexSearch.begun(patterns)
    except OSError as error:
        raise RequestError(ErrorKind.INTERNAL, f"patterns cannot be looked for: {error}") from error


def _patterns(data: dict[str, object]) -> list[str]:
    given = data.get("patterns")
    patterns = [given] if isinstance(given, str) else given
    if not isinstance(patterns, list) or not 0 < len(patterns) <= MAX_PATTERNS:
        message = f"patterns: a text, or a list of 1 to {MAX_PATTERNS}"
        raise RequestError(ErrorKind.BAD_REQUEST, message, "patterns")
    found: list[str] = []
    for pattern in patterns:
        if not isinstance(pattern, str) or not 0 < len(pattern.strip("*")) <= MAX_PATTERN_CHARACTERS or "\0" in pattern:
            message = f"patterns: texts of 1 to {MAX_PATTERN_CHARACTERS} characters, not of * alone"
            raise RequestError(ErrorKind.BAD_REQUEST, message, "patterns")
        if data.get("regex") is True:
            try:
                re.compile(pattern.encode())
            except (re.error, OverflowError, RecursionError) as error:
                message = f"patterns: {pattern!r} is no regular expression: {error}"
                raise RequestError(ErrorKind.BAD_REQUEST, message, "patterns") from None
        found.append(pattern)
    return found


def _bytes(data: Mapping[str, object]) -> bytes | None:
    typed, coded = data.get("text"), data.get("base64")
    if typed is None and coded is None:
        return None
    key = "text" if coded is None else "base64"
    try:
        if isinstance(typed, str) and coded is None:
            found = typed.encode()
        elif isinstance(coded, str) and typed is None:
            found = base64.b64decode(coded, validate=True)
        else:
            raise RequestError(ErrorKind.BAD_REQUEST, "text or base64: one of them, as a text", key)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise RequestError(ErrorKind.BAD_REQUEST, f"{key}: {error}", key) from None
    if len(found) > MAX_WRITE_BYTES:
        raise RequestError(ErrorKind.BAD_REQUEST, f"{key}: at most {MAX_WRITE_BYTES} bytes at once", key)
    return found


def _number(data: dict[str, object], key: str, default: float, most: float) -> float:
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise RequestError(ErrorKind.BAD_REQUEST, f"{key}: a number from 0 to {most:g}", key)
    return float(value)


def _token(data: dict[str, object]) -> int | None:
    token = data.get("token")
    return token if isinstance(token, int) and not isinstance(token, bool) else None


def _told(said: bytes) -> str:
    return said[-TEXT_BYTES:].decode(errors="replace")
