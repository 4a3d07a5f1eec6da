"""What is typed into a shell on a console, and what comes back, as bytes. No I/O, no clock, no state but `StepOutput`.

A script travels in a variable of the board's shell, piece by piece, so that it needs neither a file nor a program
there but `printf`; every piece is answered with the length that has arrived. Answers are marks: words that are
printed whole and typed in two halves, so that no echo of a line is ever taken for its answer, with a number that was
drawn for this one command, so that no log line is either.
"""

import re
from enum import StrEnum

HEAD = "@bh"
"""The first half of every mark."""
MAX_SCRIPT_BYTES = 120_000
"""Linux: one argument, as `sh -c` has it, takes 128 KiB (MAX_ARG_STRLEN)."""
LINE_OVERHEAD = 70
"""Characters of a line beside its piece."""
_LITERAL = frozenset(range(0x20, 0x7F)) - frozenset(b"\\'!")
"""Typed as they are, within single quotes; `!` is history to some shells."""


class MarkKind(StrEnum):
    """What a mark answers."""

    PROBE = "p"
    """There is a shell."""
    PIECE = "n"
    """So many pieces have come, and so many characters in all."""
    BEGIN = "b"
    END = "e"
    ASKED = "q"
    """What the shell knows of the last command."""


def escaped(script: str) -> str:
    """`script` in printable ASCII, as `printf %b` of POSIX turns it back."""
    return "".join(chr(byte) if byte in _LITERAL else f"\\0{byte:03o}" for byte in script.encode())


def _told(number: str, kind: MarkKind, value: str) -> str:
    """A command that prints the mark on a line of its own."""
    return f"printf '\\n%s%s %s\\n' {HEAD} {number}{kind} {value}"


def probe_line(number: str) -> str:
    """A command that only a shell answers."""
    return " " + _told(number, MarkKind.PROBE, "0")


def piece_lines(script: str, number: str, line_characters: int) -> list[str]:
    """The lines that bring a script into the shell's variable, each without its end. The first one empties it."""
    text, most = escaped(script), max(16, line_characters - LINE_OVERHEAD)
    pieces = [text[at : at + most] for at in range(0, len(text), most)]
    lines = [f" _b=;_r=;{_told(number, MarkKind.PIECE, '0:${#_b}')}"]
    return lines + [
        f" _b=$_b'{piece}';{_told(number, MarkKind.PIECE, f'{n}:${{#_b}}')}" for n, piece in enumerate(pieces, start=1)
    ]


def piece_lengths(script: str, line_characters: int) -> list[int]:
    """What the variable's length must be after each of those lines."""
    size, most = len(escaped(script)), max(16, line_characters - LINE_OVERHEAD)
    return [0, *(min(at + most, size) for at in range(0, size, most))]


def run_line(number: str) -> str:
    """Runs what the variable holds. The end is told twice: a kernel's message may stand in the midst of one."""
    end = f"{HEAD} {number}{MarkKind.END} $_r"
    return (
        f" {_told(number, MarkKind.BEGIN, '0')};"
        f'sh -c "$(printf %b "$_b")" </dev/null;_r={number}:$?;'
        f"printf '\\n%s%s %s\\n%s%s %s\\n' {end} {end}"
    )


def ask_line(number: str) -> str:
    """Asks how the last command ended, which the shell says when it is back."""
    return " " + _told(number, MarkKind.ASKED, '"$_r"')


_VALUE = {
    MarkKind.PROBE: rb"0",
    MarkKind.PIECE: rb"(\d+):(\d+)",
    MarkKind.BEGIN: rb"0",
    MarkKind.ASKED: rb"([0-9a-f]+:\d{1,3})?",
}


def mark_of(number: str, kind: MarkKind) -> re.Pattern[bytes]:
    """How the mark is printed. It may stand behind a kernel's words, and never in the echo of its line."""
    value = rb"%s:(\d{1,3})" % number.encode() if kind is MarkKind.END else _VALUE[kind]
    return re.compile(f"{HEAD}{number}{kind} ".encode() + value + rb"\r*\n")


_LINE_END = re.compile(rb"\r+\n")


def cleaned(output: bytes) -> bytes:
    """Lines end in a line feed, as the command printed them; a terminal has put carriage returns before it."""
    return _LINE_END.sub(b"\n", output)


class StepOutput:
    """The output of one command, from behind the mark of its beginning to the mark of its end."""

    def __init__(self, number: str) -> None:
        self._mark = f"{HEAD}{number}{MarkKind.END} {number}:".encode()
        self._end = re.compile(rb"(?:\r*\n)?" + re.escape(self._mark) + rb"(\d{1,3})\r*\n")
        self._open = re.compile(re.escape(self._mark) + rb"\d{0,3}\r*\Z")
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, int | None]:
        """`(output, exit code)` of what came now; the code is None until the end. Only what may be the beginning of
        the mark is held back."""
        text = self._held + data
        match = self._end.search(text)
        if match is not None:
            self._held = b""
            return cleaned(text[: match.start()]), int(match[1])
        cut = self._safe(text)
        self._held = text[cut:]
        return cleaned(text[:cut]), None

    def rest(self) -> bytes:
        """What was held back, when the mark does not come any more."""
        held, self._held = self._held, b""
        return cleaned(held)

    def _safe(self, text: bytes) -> int:
        """How much of `text` is surely no part of the mark."""
        cut = len(text)
        at = text.find(HEAD[:1].encode(), max(0, cut - len(self._mark) - 8))
        while at >= 0:
            rest = text[at:]
            if self._mark.startswith(rest) or self._open.match(rest) is not None:
                cut = at
                break
            at = text.find(HEAD[:1].encode(), at + 1)
        if cut > 0 and text[cut - 1 : cut] == b"\n":
            cut -= 1
        while cut > 0 and len(text) - cut < len(self._mark) + 16 and text[cut - 1 : cut] == b"\r":
            cut -= 1
        return cut
