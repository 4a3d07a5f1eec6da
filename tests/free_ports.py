"""Ports for servers that a test starts later: nobody else gets them between the choice and the bind."""

import collections
import fcntl
import itertools
import os
import random
import re
import socket
import tempfile
from pathlib import Path

# Below 16000 no kernel takes the source port of an outgoing connection by itself: Linux begins at 32768, gVisor at
# 16000. A port of that range may belong to any connection of any test by the time its server binds it; and who
# connects to a free one there may reach himself.
FIRST, WORKERS, PORTS_EACH = 10240, 8, 704


def _mine() -> range:
    """The slice of this xdist worker; without one, by the process, so that two runs seldom meet."""
    number = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
    first = FIRST + (int(number[1]) if number else os.getpid()) % WORKERS * PORTS_EACH
    return range(first, first + PORTS_EACH)


# From a place of chance on, never the same twice in a round: a server that ended may leave connections behind.
_ports = itertools.cycle(random.sample(_mine(), PORTS_EACH))


# Two runs on one machine may choose the same port before either binds it: one server for the agents of both, which have
# one name and push each other off it. The locks are bytes of one file, and go with the process.
_locks = (Path(tempfile.gettempdir()) / f"boardhand-test-ports-{os.getuid()}").open("ab")
_held: collections.deque[int] = collections.deque()
MOST_HELD = 64
"""By the time that a process has chosen so many more, a port is bound, or no longer wanted."""


def _reserved(port: int) -> bool:
    try:
        fcntl.lockf(_locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _held.append(port)
    if len(_held) > MOST_HELD:
        fcntl.lockf(_locks, fcntl.LOCK_UN, 1, _held.popleft())
    return True


def _bound(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, by TCP nor by UDP, and that stays free until it is asked for."""
    return next(port for port in itertools.islice(_ports, PORTS_EACH) if _reserved(port) and _bound(port))
