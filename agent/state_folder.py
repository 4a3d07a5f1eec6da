"""The agent's state folder belongs to one process at a time: two would write one journal."""

import fcntl
import os
from pathlib import Path
from typing import IO

from daemon.foreground import DaemonError


class AgentError(DaemonError):
    """The agent cannot run; the message says why and what to do."""


def hold(state_dir: Path) -> IO[str]:
    """Hold the state folder for this process alone.

    Raises:
        AgentError: another agent holds it, or it cannot be made.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        handle = (state_dir / "agent.lock").open("a+")
    except OSError as error:
        raise AgentError(f"{state_dir}: cannot be used as state_dir: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise AgentError(
            f"{state_dir}: another agent runs with this state_dir; stop it, or give this one its own"
        ) from None
    handle.truncate(0)
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle
