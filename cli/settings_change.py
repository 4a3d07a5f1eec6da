"""A settings file that gets something more: shown as a diff, proved by the agent's own reading, replaced at once."""

import contextlib
import difflib
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.settings import load
from cli.exits import CliError, Exit
from daemon.settings_file import MAX_FILE_BYTES, SettingsError

NEW_FILE_MODE = 0o644


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """What would be written to `path`. `old` is None where there is no file."""

    path: Path
    old: bytes | None
    new: bytes

    @property
    def changes(self) -> bool:
        return self.new != (self.old or b"")

    def diff(self) -> str:
        """As `diff -u` shows it."""
        before = (self.old or b"").decode().splitlines(keepends=True)
        after = self.new.decode().splitlines(keepends=True)
        before, after = ([line if line.endswith("\n") else f"{line}\n" for line in side] for side in (before, after))
        came_from = str(self.path) if self.old is not None else os.devnull
        return "".join(difflib.unified_diff(before, after, came_from, str(self.path)))

    def write(self) -> None:
        """Put the file in place at once and whole, with the owner and the mode of the old one.

        Raises:
            CliError: it cannot be written, our own settings do not take it, or somebody wrote to it meanwhile.
        """
        if not self.changes:
            return
        fresh: Path | None = None
        try:
            handle, name = tempfile.mkstemp(prefix=".boardhand-", suffix=".toml", dir=self.path.parent)
            fresh = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(self.new)
                file.flush()
                os.fsync(file.fileno())
            self._check(fresh)
            self._take_over(fresh)
            if content_of(self.path) != self.old:
                raise CliError(Exit.FAILED, f"{self.path} was changed by somebody else meanwhile", "run it again")
            fresh.replace(self.path)
        except OSError as problem:
            where = f"{self.path} cannot be written: {problem.strerror}"
            raise CliError(Exit.FAILED, where, "write it elsewhere, or run it as who may") from None
        finally:
            if fresh is not None:
                fresh.unlink(missing_ok=True)

    def _check(self, fresh: Path) -> None:
        """A file that was good stays good. One that was not is a person's work under way."""
        if self.old is not None and _fault(self.path) is not None:
            return
        fault = _fault(fresh)
        if fault is not None:
            raise CliError(Exit.FAILED, f"nothing is written: {fault.replace(str(fresh), 'what was found')}",
                           "report it: what was found is what the agent does not take")  # fmt: skip

    def _take_over(self, fresh: Path) -> None:
        if self.old is None:
            mask = os.umask(0)
            os.umask(mask)
            fresh.chmod(NEW_FILE_MODE & ~mask)
            return
        there = self.path.stat()
        with contextlib.suppress(PermissionError):  # who may write the folder, and is not the owner: it becomes his
            os.chown(fresh, there.st_uid, there.st_gid)
        fresh.chmod(there.st_mode & 0o7777)


def read_text(path: Path) -> tuple[bytes | None, str, Mapping[str, Any]]:
    """What stands in `path`: as bytes (None where there is no file), as text, and as TOML reads it.

    Raises:
        CliError: it cannot be read, or is no TOML.
    """
    old = content_of(path)
    try:
        text = "" if old is None else old.decode()
        return old, text, tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise CliError(Exit.USAGE, f"{path} is no TOML: {problem}", "mend it, or write to another file") from None


def content_of(path: Path) -> bytes | None:
    """What stands in the file; None where there is none.

    Raises:
        CliError: it cannot be read, or is too large for a settings file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise CliError(Exit.USAGE, f"{path} cannot be read: {problem.strerror}", "name a settings file") from None
    if len(content) > MAX_FILE_BYTES:
        raise CliError(Exit.USAGE, f"{path} is too large for a settings file", "name a settings file")
    return content


def _fault(path: Path) -> str | None:
    try:
        load(path)
    except SettingsError as problem:
        return str(problem)
    return None
