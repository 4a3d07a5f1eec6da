"""What a console prints, cut into lines that can be judged: escape sequences, echoes of erased keys and noise are taken
out. Bytes in, lines out."""

import re

PARTIAL_MOST = 8192
"""Characters of a line that has not ended: noise has no line ends."""
LINES_KEPT = 60
"""How many of the last lines a failure shows."""
LINE_MOST = 400
"""Characters of each of them."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[()][AB0]|[78=>])")
_BEGUN_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,256}|[()])?\Z")
_NO_TEXT = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1f\x7f]")


def plain(text: str) -> str:
    """One line as it stands on a terminal at last: what backspace and carriage return wrote over is gone."""
    text = _NO_TEXT.sub("", _ESCAPES.sub("", text))
    if "\b" not in text and "\r" not in text:
        return text
    shown: list[str] = []
    at = 0
    for letter in text:
        if letter == "\r":
            at = 0
        elif letter == "\b":
            at = max(0, at - 1)
        else:
            shown[at : at + 1] = [letter]
            at += 1
    return "".join(shown)


class ConsoleText:
    """The text of one console from now on."""

    def __init__(self) -> None:
        self._raw = ""
        self._last: list[str] = []

    def feed(self, data: bytes) -> list[str]:
        """Take what came; returns the lines that have ended with it. Bytes that are no ASCII stand as U+FFFD."""
        self._raw += data.decode("ascii", "replace")
        *ended, self._raw = self._raw.split("\n")
        if len(self._raw) > PARTIAL_MOST:
            ended.append(self._raw)
            self._raw = ""
        lines = [plain(line.rstrip("\r")) for line in ended]
        self._last = [*self._last, *(line[:LINE_MOST] for line in lines if line.strip())][-LINES_KEPT:]
        return lines

    @property
    def partial(self) -> str:
        """The line that has not ended: where a prompt stands."""
        return plain(_BEGUN_ESCAPE.sub("", self._raw))

    def last_lines(self) -> list[str]:
        """The last lines that are not empty, oldest first, with the one that has not ended."""
        partial = self.partial[:LINE_MOST]
        return [*self._last, partial] if partial.strip() else list(self._last)
