"""Runs the admin's hooks: what a board is doing goes in as JSON, an exit code and some words come out.

A hook that cannot be started or does not end counts like one that says no: a gate that is broken is closed, and the
refusal says which gate.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.hook_settings import HookPoint, HookTable
from agent.unit import Effects
from wire.phases import EventType, Phase

log = logging.getLogger(__name__)

OUTPUT_BYTES = 4096
"""The last of what a hook prints is kept, so much of it: it goes into an event."""
READ_BYTES = 65536
DRAIN_S = 0.5
"""For words still in the pipe when the hook has ended; a child that it left running may hold the pipe for ever."""
SAFE_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""A hook gets these of the agent's variables. Others may hold secrets, as the password of the MQTT server."""
USAGE = 127
"""The shell's exit code for a program that cannot be run."""

Facts = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class HookRun:
    """What came of one hook. `fault` says why it has no exit code of its own."""

    hook: HookTable
    exit_code: int
    took_s: float
    output: str
    fault: str | None = None

    @property
    def details(self) -> dict[str, object]:
        """As the board's event tells it."""
        details: dict[str, object] = {
            "at": self.hook.at.value,
            "run": self.hook.run[0],
            "exit_code": self.exit_code,
            "took_s": round(self.took_s, 3),
        }
        if self.output:
            details["output"] = self.output
        if self.fault is not None:
            details["fault"] = self.fault
        return details

    @property
    def objection(self) -> str | None:
        """Why it says no, in one clause; None where it does not."""
        if self.exit_code == 0:
            return None
        lines = self.output.strip().splitlines()
        why = self.fault or (lines[-1].strip() if lines else f"exit code {self.exit_code}")
        return f"the hook {self.hook.run[0]} ({self.hook.at.value}) says no: {why}"


@dataclass(frozen=True, slots=True)
class DueHooks:
    """A point that a board has come to."""

    point: HookPoint
    board: str
    facts: Facts


class HookDesk:
    """The hooks of one agent, run one after the other for each point of a board's life."""

    def __init__(self, hooks: Sequence[HookTable], agent: str, record: Callable[[str, HookRun], None]) -> None:
        """`record` is told of every run, with the board's name; it must not block."""
        self._hooks = tuple(hooks)
        self._agent = agent
        self._record = record
        self._jobs: dict[str, str] = {}
        """What each busy board does."""

    def follow(self, hooks: Sequence[HookTable]) -> None:
        """Other hooks from now on; those that run are let run to their end."""
        self._hooks = tuple(hooks)

    @property
    def points(self) -> list[HookPoint]:
        """The points at which anything runs."""
        return sorted({hook.at for hook in self._hooks})

    async def run(self, point: HookPoint, board: str, facts: Facts) -> str | None:
        """Run what stands at `point` for `board`, with `facts` beside the point's and the board's name.

        Returns:
            Why not to go on, where a hook says no at a point that asks; the hooks after it do not run then.
        """
        for hook in self._hooks:
            if hook.at is not point or (hook.boards and board not in hook.boards):
                continue
            said = {"at": point.value, "board": board, "agent": self._agent, **facts}
            result = await run_hook(hook, said)
            self._record(board, result)
            objection = result.objection
            if objection is None:
                continue
            log.warning("board %s: %s", board, objection)
            if point.can_veto:
                return objection
        return None

    async def run_due(self, due: DueHooks) -> None:
        """`run` at a point that cannot veto."""
        await self.run(due.point, due.board, due.facts)

    def due(self, effects: Effects) -> list[DueHooks]:
        """The points that boards have come to with `effects`, as they are applied."""
        # The first look at a board that was always off is no loss of power; one is told by an event.
        told = {event.board for event in effects.events}
        found = [DueHooks(HookPoint.AFTER_POWER_OFF, board, {}) for board in effects.new_boot if board in told]
        for event in effects.events:
            if event.type is not EventType.PHASE:
                continue
            if event.details["phase"] == Phase.BUSY:
                self._jobs[event.board] = str(event.details.get("reason", ""))
            elif event.details["was"] == Phase.BUSY:
                facts = {"job": self._jobs.pop(event.board, ""), "phase": event.details["phase"]}
                found.append(DueHooks(HookPoint.AFTER_JOB, event.board, facts))
        return found


async def run_hook(hook: HookTable, facts: Facts) -> HookRun:
    """Run one hook to its end or its limit. Never raises for what the program does."""
    began = time.monotonic()
    environment = {name: os.environ[name] for name in SAFE_ENVIRONMENT if name in os.environ}
    ours, its = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *hook.run,
            stdin=asyncio.subprocess.PIPE,
            stdout=its,
            stderr=its,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        os.close(ours)
        return HookRun(hook, USAGE, time.monotonic() - began, "", f"it cannot be started: {error.strerror}")
    finally:
        os.close(its)
    kept = bytearray()
    reading = asyncio.create_task(_keep_the_end(ours, kept), name="hook-output")
    fault = None
    try:
        async with asyncio.timeout(hook.timeout_s):
            await _tell(process.stdin, facts)
            await process.wait()
    except TimeoutError:
        fault = f"it did not end within {hook.timeout_s:g} s and was killed"
    finally:
        if process.returncode is None:
            _kill_group(process.pid)
            await process.wait()
        await asyncio.wait({reading}, timeout=DRAIN_S)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    code = -signal.SIGKILL if process.returncode is None else process.returncode
    return HookRun(hook, code or (1 if fault else 0), time.monotonic() - began, _as_text(kept), fault)


async def _tell(pipe: asyncio.StreamWriter | None, facts: Facts) -> None:
    """Hand the facts over. A hook that does not want to read them is no fault."""
    if pipe is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        pipe.write(json.dumps(facts, default=str).encode() + b"\n")
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()


async def _keep_the_end(pipe: int, kept: bytearray) -> None:
    """Read `pipe` until nobody holds its other end, and close it. It is ours and not asyncio's `stdout`, because
    `Process.wait` of Python 3.11 would wait for whoever holds that, too."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(pipe, "rb", 0))
    try:
        while piece := await reader.read(READ_BYTES):
            kept += piece
            del kept[:-OUTPUT_BYTES]
    finally:
        transport.close()


def _as_text(kept: bytearray) -> str:
    words = kept.decode(errors="replace")
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in words)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
