"""What a virtual PDU's outlets may drive when they really switch: programs, or QEMU machines."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

Hook = Callable[[str, bool], Awaitable[None]]


def command_hook(commands: dict[str, tuple[list[str], list[str]]]) -> Hook:
    """A hook that runs a program per outlet: outlet -> (program for on, program for off)."""

    async def run(outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        if outlet in commands:
            process = await asyncio.create_subprocess_exec(
                *commands[outlet][0 if on else 1], stdin=asyncio.subprocess.DEVNULL
            )
            await process.wait()

    return run


def qmp_hook(sockets: dict[str, Path]) -> Hook:
    """A hook that switches a QEMU machine per outlet through its QMP socket, as boardhand's own driver does."""
    from agent.power.drivers.qmp import OUTLET, QmpDriver
    from agent.power.errors import PowerError
    from agent.power.kinds.qmp import QmpSettings

    async def switch(outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        if outlet in sockets:
            try:
                await QmpDriver("outlet", QmpSettings(driver="qmp", socket=sockets[outlet])).set(OUTLET, on)
            except PowerError as problem:
                raise OSError(str(problem)) from problem

    return switch
