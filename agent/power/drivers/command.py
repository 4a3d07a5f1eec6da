"""Outlets switched by any program: argument lists from the settings, exit code 0 means accepted.

Without a `state` program there is no read-back: a switch ends well with power `unknown`, and on is never claimed.
"""

import asyncio
import contextlib
import os
import signal
from dataclasses import replace
from typing import Self

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.errors import ConfigurationError, RefusedError, UnreachableError
from agent.power.kinds.command import OUTLET_PLACEHOLDER, CommandSettings
from wire.phases import Power

KEPT_OUTPUT_BYTES = 4096
"""How much of a program's output is kept for its answer or its last words; the rest is read and dropped."""
PIPE_GRACE_S = 0.5
"""A child that the program left in the background may hold its pipes for ever; this long they are still read."""
CALL_MARGIN_S = 2.0

ANSWERS = {"on": Power.ON, "1": Power.ON, "off": Power.OFF, "0": Power.OFF, "unknown": Power.UNKNOWN}

TIMING = Timing(poll_interval_s=0.1, settle_s=1.0, min_off_s=2.0, attempts=2)


class CommandDriver:
    """Runs one program per call, in a process group of its own, which is killed when the time is up."""

    def __init__(self, name: str, settings: CommandSettings) -> None:
        self._name = name
        self._settings = settings
        self._timing = replace(
            TIMING,
            verify_deadline_s=settings.verify_deadline_s,
            call_timeout_s=settings.timeout_s + CALL_MARGIN_S,
        )

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return self._settings.state is not None

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        program = self._settings.on if on else self._settings.off
        code, output, complaint = await self._run(program, outlet)
        if code != 0:
            raise RefusedError(
                f"{program[0]} ended with exit code {code}: {_last_line(complaint or output)}",
                controller=self._name,
                outlet=outlet,
                do="run it by hand as the agent's user",
            )

    async def get(self, outlet: str) -> Power:
        program = self._settings.state
        if program is None:
            return Power.UNKNOWN
        code, output, complaint = await self._run(program, outlet)
        if code != 0:
            raise UnreachableError(
                f"{program[0]} ended with exit code {code}: {_last_line(complaint or output)}",
                controller=self._name,
                outlet=outlet,
                do="run it by hand as the agent's user",
            )
        answer = output.decode(errors="replace").strip().lower()
        if answer not in ANSWERS:
            raise ConfigurationError(
                f"{program[0]} printed {answer[:80]!r}",
                controller=self._name,
                outlet=outlet,
                do="make the state program print on or off (or 1 or 0) and nothing else",
            )
        return ANSWERS[answer]

    async def read(self, outlet: str) -> float | None:
        """Programs measure nothing."""
        del outlet
        return None

    async def describe(self) -> list[OutletDescription]:
        """A program cannot say what outlets there are."""
        return []

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _run(self, program: list[str], outlet: str) -> tuple[int, bytes, bytes]:
        arguments = [part.replace(OUTLET_PLACEHOLDER, outlet) for part in program]
        output, complaint = await _Pipe.open(), await _Pipe.open()
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.theirs,
                stderr=complaint.theirs,
                start_new_session=True,
            )
            output.close_theirs()
            complaint.close_theirs()
            async with asyncio.timeout(self._settings.timeout_s):
                code = await process.wait()
            return code, await output.content(), await complaint.content()
        except TimeoutError:
            raise UnreachableError(
                f"{program[0]} did not end within {self._settings.timeout_s:g} s and was killed",
                controller=self._name,
                outlet=outlet,
                do="run it by hand, or raise timeout_s",
            ) from None
        except OSError as problem:
            raise ConfigurationError(
                f"{program[0]} cannot be started: {problem.strerror}",
                controller=self._name,
                outlet=outlet,
                do="install it, or mend its path in the settings",
            ) from problem
        finally:
            if process is not None and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            for pipe in (output, complaint):
                pipe.close()


class _Pipe:
    """What a program writes, read as it comes; only the end is kept.

    Not asyncio's own pipes: its `Process.wait` waits for their end, too, and a child that the program left in the
    background would hold the call.
    """

    def __init__(self, theirs: int, transport: asyncio.ReadTransport, reader: asyncio.StreamReader) -> None:
        self.theirs = theirs
        self._transport = transport
        self._kept = bytearray()
        self._draining = asyncio.create_task(self._drain(reader), name="output of a power program")

    @classmethod
    async def open(cls) -> Self:
        ours, theirs = os.pipe()
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
        )
        return cls(theirs, transport, reader)

    async def _drain(self, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(KEPT_OUTPUT_BYTES):
            self._kept += chunk
            del self._kept[:-KEPT_OUTPUT_BYTES]

    async def content(self) -> bytes:
        """What was written, after the program ended."""
        await asyncio.wait([self._draining], timeout=PIPE_GRACE_S)
        return bytes(self._kept)

    def close_theirs(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        self.close_theirs()
        self._draining.cancel()
        self._transport.close()


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:200] if said else "it said nothing"


def make(name: str, settings: CommandSettings, _context: DriverContext) -> CommandDriver:
    """The driver of one controller."""
    return CommandDriver(name, settings)
