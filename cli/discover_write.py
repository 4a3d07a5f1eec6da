"""`boardhand discover --write`: what was found goes into a settings file, and nothing that stands there is touched."""

import contextlib
import difflib
import os
import re
import socket
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.discovery.findings import MqttServer, stem_of
from agent.discovery.known import known_devices, tty
from agent.discovery.settings_text import Additions, CannotInsertError, inserted, missing, named, new_file
from agent.settings import load
from cli.discover import Found
from cli.exits import CliError, Exit
from daemon.settings_file import MAX_FILE_BYTES, SettingsError

STATE_DIR = "/var/lib/boardhand/agent"
NEW_FILE_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be written. `old` is None where there is no file."""

    path: Path
    old: bytes | None
    new: bytes
    additions: Additions

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
            if _read(self.path) != self.old:
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
                           "report it: discover wrote what the agent does not take")  # fmt: skip

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


def plan(found: Found, path: Path, *, agent: str | None, resolve: Callable[[str], list[str]] | None = None) -> Plan:
    """What `path` would become. Blocks for DNS where it names controllers by host name.

    Raises:
        CliError: it cannot be read, is no TOML, or has no place for more.
    """
    path = path.resolve()  # a link stays one
    old = _read(path)
    try:
        text = "" if old is None else old.decode()
        tables = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise CliError(Exit.USAGE, f"{path} is no TOML: {problem}", "mend it, or write to another file") from None
    known = known_devices(tables, resolve)
    fresh = [one for one in found.candidates if one.identities.isdisjoint(known)]
    controllers = tables.get("controllers")
    taken = set(controllers) if isinstance(controllers, dict) else set()
    lines = [line for line in found.lines if tty(line.device) not in known]
    additions = missing(Additions(named(fresh, taken), lines), text, known)
    if old is None:
        new = new_file(agent or _own_name(), STATE_DIR, _only(found.servers), additions)
    elif additions.empty:
        new = text
    else:
        try:
            new = inserted(text, additions)
        except CannotInsertError as problem:
            raise CliError(Exit.USAGE, f"{path}: {problem}", "or write to another file, and copy from there") from None
    return Plan(path, old, new.encode(), additions)


def _only(servers: list[MqttServer]) -> MqttServer | None:
    """The MQTT server that answered, or the only one that was found; of several others a person has to choose."""
    answered = next((server for server in servers if server.answered), None)
    if answered is not None:
        return answered
    return servers[0] if len({server.url for server in servers}) == 1 else None


def _own_name() -> str:
    name = stem_of(socket.gethostname().partition(".")[0], "agent")
    return name if re.match(r"[a-z0-9]", name) else "agent"


def _fault(path: Path) -> str | None:
    try:
        load(path)
    except SettingsError as problem:
        return str(problem)
    return None


def _read(path: Path) -> bytes | None:
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
