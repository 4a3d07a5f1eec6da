"""What a farm says of itself on standard output: one JSON object per line."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

# Progress of a download comes several times a second.
_SAY_AT_MOST_EVERY_S = 1.0


class Reporter:
    """Progress for whoever started the farm, one JSON object per line."""

    def __init__(self, output: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._said: tuple[str, float] = ("", 0.0)

    def line(self, message: dict[str, Any]) -> None:
        """Write one line. A reader that is gone stops nobody: the farm runs on."""
        with suppress(BrokenPipeError):
            print(json.dumps(message), file=self._output, flush=True)

    def stage(self, stage: str, done: int, of: int, text: str) -> None:
        self.line({"stage": stage, "done": done, "of": of, "text": text})

    def download(self, text: str, done: int, of: int | None) -> None:
        """Takes progress of the boot files, thinned out."""
        now = self._clock()
        finished = of is not None and done >= of
        if text == self._said[0] and now - self._said[1] < _SAY_AT_MOST_EVERY_S and not finished:
            return
        self._said = (text, now)
        self.stage("artifacts", done, of or 0, text)
