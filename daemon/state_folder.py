"""A daemon's state folder belongs to one process at a time: two would write one journal, or give a token out twice."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.foreground import DaemonError


@contextmanager
def held(state_dir: Path, daemon: str) -> Iterator[None]:
    """Hold `state_dir` for this process alone, as `daemon` ("agent", "broker"), and make it where it is not there.

    The lock is flock's: it goes with the process, however that ends.

    Raises:
        DaemonError: another process holds it, or it cannot be made; says what to do.
    """
    lock = state_dir / f"{daemon}.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        handle = lock.open("a+")
    except OSError as error:
        raise DaemonError(
            f"{state_dir}: cannot be used as state_dir: {error.strerror}; make it writable for this user"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DaemonError(
                f"{state_dir}: another {daemon} runs with this state_dir; stop it, or give this one its own"
            ) from None
        handle.truncate(0)
        with contextlib.suppress(OSError):  # on a full disk; the number is for people
            os.write(handle.fileno(), f"{os.getpid()}\n".encode())
        yield
