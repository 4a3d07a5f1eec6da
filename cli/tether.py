"""Starts a program that ends when the process which started it ends, even by kill -9.

    python tether.py PARENT_PID PROGRAM ARGUMENT...

Linux's PR_SET_PDEATHSIG, prctl(2): the kernel sends SIGTERM to us when our parent dies; execve keeps that. It runs as
a program of its own because a preexec function in a process with threads can deadlock (subprocess's own warning).
Standard library only, no package imports: it is run by its path.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CANNOT_RUN = 127  # as a shell says it
PARENT_GONE = 129


def main(arguments: list[str]) -> int:
    """Tie ourselves to `arguments[0]`, then become the rest. Returns only when that fails."""
    parent, command = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        print(f"{command[0]}: cannot be tied to its parent: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return CANNOT_RUN
    if os.getppid() != parent:  # it died between fork and prctl: no signal will come
        return PARENT_GONE
    try:
        os.execvp(command[0], command)  # noqa: S606 -- no shell wanted
    except OSError as error:
        print(f"{command[0]}: cannot be run: {error.strerror}", file=sys.stderr)
    return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
