"""The SHA-256 of what is imported, reckoned beside the import: in the time that tar takes to write."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from netboot.roots.errors import SourceError
from netboot.roots.import_errors import ChecksumError
from netboot.roots.tar_stream import CHUNK_BYTES


class SourceHash:
    """Compares the file at `path` with `sha256`, if there is one. Use it as a context around the import."""

    def __init__(self, path: Path, sha256: str | None) -> None:
        self._path = path
        self._wanted = sha256.lower() if sha256 is not None else None
        self._found = ""
        self._error: OSError | None = None
        self._before: tuple[int, ...] = ()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._reckon, name="checksum of a root's source")

    def __enter__(self) -> Self:
        """Begin.

        Raises:
            SourceError: the source is no file, so it has no checksum.
        """
        if self._wanted is not None:
            if not self._path.is_file():
                raise SourceError(f"{self._path}: only a file has a checksum: leave --sha256 out")
            self._before = self._look()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        if self._wanted is not None:
            self._thread.join()

    def must_fit(self, waiting: Callable[[], object]) -> None:
        """Wait for the end. `waiting` is called if that may take long.

        Raises:
            ChecksumError: it is another file than the one that was wanted, or changed during the import.
            OSError: it cannot be read.
        """
        if self._wanted is None:
            return
        waiting()
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._look() != self._before:
            raise ChecksumError(f"{self._path}: it was changed during the import: begin again")
        if self._found != self._wanted:
            raise ChecksumError(f"{self._path}: its SHA-256 is {self._found}, not {self._wanted}: get it again")

    def _look(self) -> tuple[int, ...]:
        status = self._path.stat()
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def _reckon(self) -> None:
        hashed = hashlib.sha256()
        try:
            with open(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC), "rb", buffering=0) as file:  # noqa: PTH123
                while (data := file.read(CHUNK_BYTES)) and not self._given_up.is_set():
                    hashed.update(data)
        except OSError as error:
            self._error = error
        self._found = hashed.hexdigest()
