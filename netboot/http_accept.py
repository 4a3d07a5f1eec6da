"""Lets clients in one by one. asyncio's own server accepts all that wait in one go: when a whole farm asks at once,
that holds the event loop for tens of milliseconds."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

OUT_OF_ROOM_S = 1.0
"""No descriptor or memory is left: the next try comes when some may be free again, as in asyncio's own server."""
_OUT_OF_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Takes the connections of one listening socket until `stop`, which closes it.

    Args:
        listener: listening, not blocking.
        make_protocol: called for each connection.
    """

    def __init__(self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._task = asyncio.create_task(self._run(), name="netboot-http-accept")

    async def stop(self) -> None:
        """Take no more; those that were taken go on."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._listener.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                if error.errno in _OUT_OF_ROOM:
                    log.warning("HTTP boot can let nobody in: %s", error.strerror)
                    await asyncio.sleep(OUT_OF_ROOM_S)
                else:  # the client left while it waited
                    await asyncio.sleep(0)
                continue
            try:
                # Waits for the next round of the event loop, in which the others have their turn.
                await loop.connect_accepted_socket(self._make_protocol, connection)
            except OSError as error:
                log.debug("a client of HTTP boot was gone before it was let in: %s", error)
                connection.close()
