"""The writing side of `cli.farm_file`: how `boardhand up` lets other commands find its farm."""

import fcntl
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cli import farm_file
from cli.farm_file import FarmFileError

_OTHERS_MAY_WRITE = 0o022


class FarmFile:
    """The file as `up` holds it: written whole, locked until `remove` or death."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._path = Path(farm_file.path(self._environment))
        self._handle: int | None = None

    def write(self, url: str, prefix: str, state_dir: str) -> None:
        """Publish the address of this farm.

        Raises:
            FarmFileError: another farm of this user is already published, or the folder is not ours alone.
            OSError: the folder or the file cannot be written.
        """
        self._own_folder()
        other = farm_file.read(self._environment)
        if other is not None:
            raise FarmFileError(f"another farm of yours is running at {other['url']} ({self._path})")
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(handle, json.dumps({"url": url, "prefix": prefix, "state_dir": state_dir}).encode())
        fresh.replace(self._path)
        self._handle = handle

    def _own_folder(self) -> None:
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _OTHERS_MAY_WRITE:
            raise FarmFileError(f"{folder} is not a folder that only you can write to; remove it")

    def remove(self) -> None:
        """Take the address back. Harmless when it was never written, or when another farm has replaced it."""
        if self._handle is None:
            return
        try:
            if os.path.samestat(self._path.stat(), os.fstat(self._handle)):
                self._path.unlink()
        except FileNotFoundError:
            pass  # somebody removed it before us; that is what we want
        os.close(self._handle)
        self._handle = None
