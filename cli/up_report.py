"""What `boardhand up` shows: progress bars on a terminal, lines elsewhere, JSON lines with --json."""

import json
import os
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from cli.plain_text import shown

# A download reports many times a second; in a log file one line of a stage in so long is enough.
LINE_EVERY_S = 2.0


def _line(text: str) -> None:
    """Print a line. A reader that has left, as `head` does, is no reason to stop a farm."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Report:
    """Lines on standard output. The base of the other forms."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One line of what happens."""
        _line(shown(text))

    def log(self, text: str) -> None:
        """Text of a job's log, already safe for a terminal."""
        _line("\n".join(f"    | {line}" for line in text.splitlines()))

    def stage(self, stage: str, done: float, of: float, text: str) -> None:
        """A step of something long; `of` is 0 when its length is not known."""
        now = time.monotonic()
        finished = of > 0 and done >= of
        if not finished and now - self._said.get(stage, -LINE_EVERY_S) < LINE_EVERY_S:
            return
        self._said[stage] = now
        share = f" {100 * done / of:.0f} %" if of > 0 else ""
        _line(f"{shown(stage, 60)}{share}: {shown(text)}")

    def ready(self, facts: dict[str, object]) -> None:
        """Everything runs."""
        _line(
            f"ready: MQTT server {facts['mqtt']}, prefix '{facts['prefix']}'; try 'boardhand boards --watch'. "
            "Ctrl-C stops it all."
        )
        if "page" in facts:
            _line(f"the page: {facts['page']}; to switch and hand in work there, the token is in {facts['page_token']}")

    def close(self) -> None:
        """The last words have been said."""


class JsonReport(Report):
    """One JSON object per line."""

    def say(self, text: str) -> None:
        self._line({"stage": "note", "text": text})

    def log(self, text: str) -> None:
        self._line({"stage": "log", "text": text})

    def stage(self, stage: str, done: float, of: float, text: str) -> None:
        self._line({"stage": stage, "done": done, "of": of, "text": text})

    def ready(self, facts: dict[str, object]) -> None:
        self._line({"ready": True, **facts})

    @staticmethod
    def _line(document: dict[str, object]) -> None:
        _line(json.dumps(document))


class TerminalReport(Report):
    """Progress bars that stay below the lines, until everything is ready."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def say(self, text: str) -> None:
        self._console.print(shown(text), markup=False)

    def log(self, text: str) -> None:
        self._console.print("\n".join(f"    | {line}" for line in text.splitlines()), markup=False)

    def stage(self, stage: str, done: float, of: float, text: str) -> None:
        total = of if of > 0 else None
        task = self._tasks.get(stage)
        if task is None:
            task = self._tasks[stage] = self._progress.add_task(shown(text, 60), total=total, stage=shown(stage, 20))
        self._progress.update(task, completed=done, total=total, description=shown(text, 60))
        if total is not None and done >= total:
            self._progress.remove_task(task)
            del self._tasks[stage]
            self.say(f"{stage}: {text}")

    def ready(self, facts: dict[str, object]) -> None:
        self.close()
        super().ready(facts)

    def close(self) -> None:
        for task in self._tasks.values():
            self._progress.remove_task(task)
        self._tasks.clear()
        self._progress.stop()


def make(*, as_json: bool) -> Report:
    """The form that fits where standard output goes."""
    if as_json:
        return JsonReport()
    return TerminalReport() if sys.stdout.isatty() else Report()
