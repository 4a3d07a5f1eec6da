"""`boardhand doctor`: runs the checks and prints what they say."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from cli.doctor.examination import Subject, examine, read
from cli.doctor.finding import Finding, Verdict
from cli.exits import CliError, Exit, usage

PLACES = (Path("/etc/boardhand/agent.toml"), Path("/etc/boardhand/broker.toml"))
"""Where the Debian package keeps settings."""
_MARKS = {Verdict.OK: "ok", Verdict.WRONG: "WRONG", Verdict.UNSEEN: "?"}
_WIDTH = 72


def run(files: Sequence[Path], user: str | None, *, quiet: bool, as_json: bool) -> int:
    """Look at everything that the settings in `files` need, and print it; with `quiet` only what is not well.

    Raises:
        CliError: there is no settings file, or no such user.
    """
    given = list(files) or [place for place in PLACES if _may_be_there(place)]
    if not given:
        raise usage("no settings file given, and none in /etc/boardhand", "name it: boardhand doctor FILE")
    for file in given:
        _look_at(file)
    found: list[Finding] = []
    with _ProgressLine(shown=not as_json and sys.stderr.isatty()) as line:
        for file in given:
            # Of two files, what holds for the host as a whole is told once.
            found += [one for one in _one(file, user, line) if one not in found]
    if as_json:
        print(json.dumps(document(found)))
    else:
        print(text(found, quiet=quiet))
    return Exit.FAILED if any(one.verdict is Verdict.WRONG for one in found) else Exit.OK


def _may_be_there(place: Path) -> bool:
    try:
        return place.is_file()
    except PermissionError:
        return True


def _look_at(file: Path) -> None:
    try:
        if not file.is_file():
            raise usage(f"settings file {file} is not there, or is no file", "name another")
        file.open("rb").close()
    except PermissionError:
        raise usage(f"settings file {file} is closed to you", "run it as root: sudo boardhand doctor") from None


def _one(file: Path, user: str | None, line: "_ProgressLine") -> list[Finding]:
    try:
        subject, found = read(file, user)
    except KeyError:
        raise CliError(Exit.USAGE, f"there is no user {user}", "see --user") from None
    return found + list(examine(subject, line.show)) if _any(subject) else found


def _any(subject: Subject) -> bool:
    return subject.agent is not None or subject.broker is not None


def document(found: Sequence[Finding]) -> dict[str, object]:
    """For --json."""
    count = {verdict: sum(one.verdict is verdict for one in found) for verdict in Verdict}
    lines = [
        {"check": f.check, "subject": f.subject, "verdict": f.verdict.value, "what": f.what, "mend": f.mend or None}
        for f in found
    ]
    return {
        "ok": count[Verdict.WRONG] == 0,
        "wrong": count[Verdict.WRONG],
        "unseen": count[Verdict.UNSEEN],
        "findings": lines,
    }


def text(found: Sequence[Finding], *, quiet: bool) -> str:
    """For people: a line for each finding, and below what is not well the command that mends it."""
    lines, check = [], ""
    for one in found:
        if quiet and one.verdict is Verdict.OK:
            continue
        if one.check != check:
            check = one.check
            lines.append(check)
        lines.append(f"  {_MARKS[one.verdict]:<6} {one.subject}: {one.what}")
        if one.mend:
            lines.append(f"         -> {one.mend}")
    numbers = [f"{sum(one.verdict is verdict for one in found)} {word}" for verdict, word in _SUMMARY]
    return "\n".join([*lines, ", ".join(numbers)])


_SUMMARY = ((Verdict.WRONG, "wrong"), (Verdict.UNSEEN, "not seen"), (Verdict.OK, "well"))


class _ProgressLine:
    """One line on the terminal that is drawn over, and away at the end."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._shown:
            print(f"\r{' ' * _WIDTH}\r", end="", file=sys.stderr, flush=True)

    def show(self, stage: str, share: float) -> None:
        if self._shown:
            bar = "#" * int(share * 10)
            print(f"\r[{bar:<10}] {stage}".ljust(_WIDTH)[:_WIDTH], end="", file=sys.stderr, flush=True)
