"""GNU tar as the writer of a root: it keeps owners, modes, attributes, sparse files, hard links and devices."""

import errno
import fcntl
import os
import re
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Self

from netboot.roots import sources
from netboot.roots.errors import SourceError, StoreError, ToolMissingError
from netboot.roots.path_guard import Rights
from netboot.roots.tar_stream import CHUNK_BYTES

END_TIMEOUT_S = 600.0
"""For tar to write what it has taken, on a slow disk."""
_FULL = re.compile(r"No space left on device|Disk quota exceeded|Wrote only [0-9]+ of [0-9]+ bytes")
_EXTRACT = ("--extract", "--file=-", "--numeric-owner", "--same-permissions", "--delay-directory-restore",
            "--blocking-factor=512", "--read-full-records",
            "--warning=no-timestamp", "--warning=no-xattr-write")  # fmt: skip


@cache
def _gnu_tar(program: str) -> str:
    version = subprocess.run([program, "--version"], capture_output=True, check=False, timeout=60)
    if b"GNU tar" not in version.stdout:
        raise ToolMissingError(f"{program} is not GNU tar: install the package tar")
    return program


class Extractor:
    """GNU tar that writes below `tree` what it is given. It holds the descriptor `lock` for as long as it lives.

    Raises:
        ToolMissingError: there is no GNU tar.
    """

    def __init__(self, tree: Path, rights: Rights, lock: int) -> None:
        program = _gnu_tar(sources.need("tar"))
        own = ["--same-owner"] if rights.owners else ["--no-same-owner"]
        kept = ["--xattrs-include=*", "--acls"] if rights.attributes else ["--xattrs-include=user.*"]
        self._tree = tree
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        self._child = subprocess.Popen(
            [program, *_EXTRACT, *own, "--xattrs", *kept, f"--directory={tree}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            bufsize=CHUNK_BYTES,
            env={**os.environ, "LC_ALL": "C"},
            pass_fds=(lock,),
        )
        if self._child.stdin is not None:
            with suppress(OSError):  # a user may have used up what he may have of pipes: then it is slower
                fcntl.fcntl(self._child.stdin, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes) -> None:
        """Give tar more of the archive.

        Raises:
            SourceError, StoreError, OSError: it has ended; as `__exit__`.
        """
        pipe = self._child.stdin
        try:
            if pipe is not None:
                pipe.write(data)
        except BrokenPipeError:
            self._end()
            raise SourceError("tar ended before the archive did") from None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Wait for tar to write the rest; after an error, end it.

        Raises:
            SourceError: it could not unpack something.
            StoreError: it hangs.
            OSError: the store is full.
        """
        try:
            if error is None:
                self._end()
        finally:
            self._child.kill()
            self._child.wait()
            if self._child.stdin is not None:
                with suppress(OSError):  # what it did not take is not needed any more
                    self._child.stdin.close()
            self._said.close()

    def _end(self) -> None:
        """Close the pipe and see how tar ends."""
        with suppress(BrokenPipeError):
            if self._child.stdin is not None:
                self._child.stdin.close()
        try:
            code = self._child.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise StoreError(f"{self._tree}: tar has written nothing to its end for {END_TIMEOUT_S:.0f} s") from None
        self._said.seek(0)
        words = self._said.read(64 * 1024).decode("utf-8", "replace")
        if _FULL.search(words):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._tree))
        if code:
            lines = [line.removeprefix("tar: ") for line in words.splitlines() if "Exiting with failure" not in line]
            raise SourceError(f"tar cannot unpack it: {'; '.join(lines[:3])[:500] or f'it ended with {code}'}")
