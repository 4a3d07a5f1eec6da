"""Log records as text for people, or as one JSON object a line for a log collector.

Keys of a line: `time` (RFC 3339, UTC, milliseconds), `level`, `logger`, `message`; `board` and `job` where known;
`exception`, a traceback as one string; and whatever a caller gave in `extra`. A line is ASCII, so nothing in a message,
which may hold what a board or a stranger sent, can begin another line or be taken for a key.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Literal, TextIO

from pydantic import BaseModel, ConfigDict

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MAX_MESSAGE_LETTERS = 32 * 1024
"""Collectors cut or split longer lines; journald's own limit is 48 KiB."""
_BOARD = re.compile(r"(?:^|\s)board ([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?=[\s:,;]|$)")
_JOB = re.compile(r"\b(job-[1-9]\d{0,14})\b")
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest came by `extra`."""
_FIXED = ("time", "level", "logger", "message", "exception")
_about: ContextVar[dict[str, str] | None] = ContextVar("log_about", default=None)

log = logging.getLogger(__name__)


class LogFormat(StrEnum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


class LogTable(BaseModel):
    """`[log]`. The command line's `--log-format` and `--log-level` beat it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: LogFormat = LogFormat.TEXT
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


@contextmanager
def about(*, board: str | None = None, job: str | None = None) -> Iterator[None]:
    """Records inside, and in tasks that begin inside, are about this board or job. Inner ones add to outer ones."""
    added = {key: name for key, name in (("board", board), ("job", job)) if name is not None}
    token = _about.set({**(_about.get() or {}), **added})
    try:
        yield
    finally:
        _about.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object a line. A record that cannot be formatted is written with what it has: none is lost."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, without its end."""
        message = _message(record)
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
        }
        line |= _subjects(message)
        line |= {key: _plain(value) for key, value in vars(record).items() if key not in _OWN and key not in _FIXED}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line)


def _plain(value: object) -> object:
    """The value where JSON has it, else what Python shows of it."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
    return value


def _message(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception as error:  # noqa: BLE001  # whatever an argument's own __str__ raises
        message = f"{record.msg} {record.args!r:.1000} (cannot be formatted: {error})"
    if len(message) <= MAX_MESSAGE_LETTERS:
        return message
    return f"{message[:MAX_MESSAGE_LETTERS]}… ({len(message)} letters)"


def _subjects(message: str) -> dict[str, str]:
    """Board and job: as `about` said, else as the message names the first of them (`board NAME`, `job-N`)."""
    found = dict(_about.get() or {})
    for key, pattern in (("board", _BOARD), ("job", _JOB)):
        if key not in found and (match := pattern.search(message)) is not None:
            found[key] = match.group(1)
    return found


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Ours among the root logger's handlers."""


def set_up(table: LogTable) -> None:
    """Write all records of this process to standard error; replaces what an earlier call set up.

    As JSON, also what would end the process in a traceback, and Python's warnings.
    """
    root = logging.getLogger()
    for handler in [known for known in root.handlers if isinstance(known, _ToStandardError)]:
        root.removeHandler(handler)
    is_json = table.format is LogFormat.JSON
    ours = _ToStandardError(sys.stderr)
    ours.setFormatter(JsonLines() if is_json else logging.Formatter(TEXT_FORMAT))
    root.addHandler(ours)
    root.setLevel(table.level)
    logging.captureWarnings(is_json)
    sys.excepthook = _uncaught if is_json else sys.__excepthook__


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("ended by a defect: %s", error, exc_info=(kind, error, trace))
