"""Control lines of a virtual device that runs as a program: JSON in on standard input, JSON out on standard output."""

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

Answer = Callable[[str], dict[str, Any]]


def say(message: dict[str, Any]) -> None:
    """Print one line of JSON at once; nobody listening any more is no fault."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def _someone_may_write() -> bool:
    """Whether standard input is a pipe, a socket or our terminal; a plain file or /dev/null controls nobody."""
    try:
        mode = os.fstat(0).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp())
    except OSError:
        return False  # closed


async def _lines() -> AsyncIterator[str]:
    if not _someone_may_write():
        return
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(0), "rb", buffering=0)
    )
    try:
        while line := await reader.readline():
            yield line.decode(errors="replace")
    finally:
        transport.close()


async def serve_until_told(answer: Answer, ready: dict[str, Any], *, stop_at_eof: bool = False) -> None:
    """Say `ready`, then answer control lines until SIGTERM or SIGINT, or the end of the input with `stop_at_eof`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async def control() -> None:
        async for line in _lines():
            say(answer(line))
        if stop_at_eof:
            stop.set()

    listening = asyncio.create_task(control(), name="control lines")
    say({"ready": True, **ready})
    await stop.wait()
    listening.cancel()
    await asyncio.wait([listening])
