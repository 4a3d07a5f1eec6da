"""The file system in one file that a board lays over its root where its writes go to NFS: ext4, sparse."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netboot.roots.boot_words import DISK_NAME
from netboot.roots.errors import ToolMissingError, ViewError

DEFAULT_BYTES = 16 << 30
"""An upper bound: the file takes what is written."""
CALL_TIMEOUT_S = 60.0
CHECK_TIMEOUT_S = 600.0
_MENDED = 2
"""e2fsck(8): up to here the file system is whole."""


class UpperDisk:
    """Makes (in 20 ms) and opens such files. `size_bytes` is how much a board may write."""

    def __init__(self, size_bytes: int = DEFAULT_BYTES) -> None:
        self._size_bytes = size_bytes

    def make(self, folder: Path) -> None:
        """Make one in `folder`.

        Raises:
            ToolMissingError: e2fsprogs is not installed.
            ViewError: it cannot be made.
        """
        path = folder / DISK_NAME
        with path.open("xb") as file:
            os.truncate(file.fileno(), self._size_bytes)
        with tempfile.TemporaryDirectory(dir=folder) as plan:
            for name in ("upper", "work"):
                (Path(plan) / name).mkdir(mode=0o755)
            # lazy: nothing of the tables is written now, so neither time nor room goes by the size.
            lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"
            _run(["mke2fs", "-q", "-t", "ext4", "-F", "-m", "0", "-E", lazy, "-d", plan, str(path)], CALL_TIMEOUT_S)

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Path]:
        """The upper layer in it, read only, while no board uses it. Needs CAP_SYS_ADMIN and a loop device.

        Raises:
            ToolMissingError, ViewError: it cannot be opened; the message says why.
        """
        image = folder / DISK_NAME
        # A board that lost its power has left its journal to be replayed.
        _run(["e2fsck", "-p", str(image)], CHECK_TIMEOUT_S, good=_MENDED)
        place = folder / "open"
        place.mkdir(mode=0o700, exist_ok=True)
        _run(["mount", "-o", "loop,ro,nosuid,nodev", "-t", "ext4", str(image), str(place)], CALL_TIMEOUT_S)
        try:
            yield place / "upper"
        finally:
            _run(["umount", str(place)], CALL_TIMEOUT_S)


def _run(command: list[str], timeout_s: float, *, good: int = 0) -> None:
    path = "/usr/sbin:/sbin:" + os.environ.get("PATH", os.defpath)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False,
            env={**os.environ, "LC_ALL": "C", "PATH": path},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ToolMissingError(f"{command[0]} is not installed: apt-get install e2fsprogs mount") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ViewError(f"{' '.join(command)}: {error}") from error
    if done.returncode > good:
        raise ViewError(f"{command[0]} {command[-1]}: {(done.stderr or done.stdout).strip()[-300:]}")
