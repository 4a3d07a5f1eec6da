"""Carries Ethernet frames between a packet socket and QEMU's datagram socket, for boards without a tap.

`python -m virtual_lab.frame_pump 5:6 7:8` joins the inherited descriptors in pairs until its standard input ends.
It is a process of its own, so that no event loop of ours stands between a board and its network.

`--loss 30` makes it a bad cable, which loses 30 of 100 frames in each direction; `--seed` chooses which.
"""

import argparse
import errno
import random
import selectors
import socket
import sys
from collections.abc import Callable

from virtual_lab.network import MAX_FRAME_BYTES

# A frame that arrives larger than this was never on a wire of ours; the rest of it is cut off by the kernel.
_READ_BYTES = MAX_FRAME_BYTES + 64
# So many frames from one side before the others get their turn.
_BURST = 64
# A full queue, an interface that is down, a QEMU that is restarting: the frame is lost, as on a real wire.
_LOST = {errno.EAGAIN, errno.ENOBUFS, errno.ENETDOWN, errno.ECONNREFUSED, errno.EMSGSIZE, errno.ENOTCONN, errno.EPIPE}


def never() -> bool:
    """A cable that loses nothing."""
    return False


def carry(source: socket.socket, target: socket.socket, lost: Callable[[], bool] = never) -> int:
    """Pass on what waits in `source`, at most a burst, but for the frames for which `lost()`. Returns how many frames
    were read."""
    for count in range(_BURST):
        try:
            frame = source.recv(_READ_BYTES)
        except OSError as error:
            if error.errno in _LOST:
                return count
            raise
        if lost():
            continue
        try:
            target.send(frame)
        except OSError as error:
            if error.errno not in _LOST:
                raise
    return _BURST


def run(
    pairs: list[tuple[socket.socket, socket.socket]], stop: socket.socket | int, lost: Callable[[], bool] = never
) -> None:
    """Join each pair in both directions until `stop` becomes readable (its other end was closed)."""
    with selectors.DefaultSelector() as selector:
        selector.register(stop, selectors.EVENT_READ, None)
        for one, other in pairs:
            for source, target in ((one, other), (other, one)):
                source.setblocking(False)
                selector.register(source, selectors.EVENT_READ, (source, target))
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    return
                source, target = key.data
                carry(source, target, lost)


def main(arguments: list[str]) -> int:
    """Entry point; the arguments are `descriptor:descriptor` pairs, after the loss if there is any."""
    parser = argparse.ArgumentParser(prog="frame_pump")
    parser.add_argument("--loss", type=float, default=0.0, help="percent of the frames in each direction")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("pairs", nargs="+")
    options = parser.parse_args(arguments)
    pairs = []
    for pair in options.pairs:
        one, _, other = pair.partition(":")
        pairs.append((socket.socket(fileno=int(one)), socket.socket(fileno=int(other))))
    chance = random.Random(options.seed)
    share = options.loss / 100
    run(pairs, sys.stdin.fileno(), (lambda: chance.random() < share) if share else never)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
