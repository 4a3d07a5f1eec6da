"""Whether an NFS server answers: its procedure that does nothing, by TCP (RFC 5531, 11; RFC 7530, 16.1)."""

import asyncio
import itertools
import logging
import struct

from netboot.roots.engine import Trouble
from netboot.roots.errors import EngineError

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
EVERY_S = 10.0
IN_VAIN = 3
"""One answer may be late on a host that is busy."""
_PROGRAM, _VERSION, _NULL = 100003, 4, 0
_CALL, _REPLY, _ACCEPTED, _SUCCESS = 0, 1, 0, 0
_RPC_VERSION = 2
_LAST_FRAGMENT = 0x80000000
_MAX_REPLY_BYTES = 1024
_REPLY_BYTES = 24
_numbers = itertools.count(1)


def null_call(number: int) -> bytes:
    """The call with its record mark, without credentials."""
    body = struct.pack("!10I", number, _CALL, _RPC_VERSION, _PROGRAM, _VERSION, _NULL, 0, 0, 0, 0)
    return struct.pack("!I", _LAST_FRAGMENT | len(body)) + body


def is_answer(reply: bytes, number: int) -> bool:
    """Whether `reply`, without its record mark, says that all is well."""
    if len(reply) < _REPLY_BYTES:
        return False
    got, kind, accepted, _flavour, length = struct.unpack_from("!5I", reply)
    if length > len(reply) - _REPLY_BYTES:
        return False
    (state,) = struct.unpack_from("!I", reply, 20 + length)
    return bool((got, kind, accepted, state) == (number, _REPLY, _ACCEPTED, _SUCCESS))


async def ping(address: str, port: int, timeout_s: float = TIMEOUT_S) -> None:
    """Ask once.

    Raises:
        EngineError: no answer in `timeout_s`, or none of an NFSv4 server.
    """
    number = next(_numbers) & 0xFFFFFFFF
    where = f"the NFS server at {address} port {port}"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(null_call(number))
                (mark,) = struct.unpack("!I", await reader.readexactly(4))
                size = mark & ~_LAST_FRAGMENT
                reply = await reader.readexactly(size) if size <= _MAX_REPLY_BYTES else b""
            finally:
                writer.close()
    except TimeoutError as error:
        raise EngineError(f"{where} does not answer in {timeout_s:g} s") from error
    except (OSError, EOFError) as error:
        raise EngineError(f"{where} does not answer: {error}") from error
    if not is_answer(reply, number):
        raise EngineError(f"{where} is no server of NFSv4")


class Watch:
    """Asks a server that is not ours to start, and says when it does not answer and when it does again."""

    def __init__(self, listens: tuple[str, int] | None, on_trouble: Trouble, *, every_s: float = EVERY_S) -> None:
        """`listens` None: nothing is watched."""
        self._listens = listens
        self._on_trouble = on_trouble
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; may be called again."""
        if self._listens is not None and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(*self._listens), name="NFS server's watch")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self, address: str, port: int) -> None:
        in_vain = 0
        while True:
            try:
                await ping(address, port)
            except EngineError as error:
                in_vain += 1
                log.warning("%s", error)
                if in_vain == IN_VAIN:
                    self._on_trouble(str(error))
            else:
                if in_vain >= IN_VAIN:
                    self._on_trouble(None)
                in_vain = 0
            await asyncio.sleep(self._every_s)
