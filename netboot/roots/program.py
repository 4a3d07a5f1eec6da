"""Runs the small programs that tell an NFS server of exports: without a shell, with a deadline."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from netboot.roots.errors import EngineError

CALL_TIMEOUT_S = 20.0

Runner = Callable[[Sequence[str]], Awaitable[tuple[int, str]]]
"""Runs a program without a shell; gives its exit code and what it said on standard error."""


async def run_program(command: Sequence[str]) -> tuple[int, str]:
    """The real `Runner`.

    Raises:
        EngineError: the program is missing or takes over 20 s.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise EngineError(f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            _, said = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise EngineError(f"{' '.join(command)} takes over {CALL_TIMEOUT_S:g} s") from error
    return process.returncode or 0, said.decode("utf-8", "replace").strip()
