"""The child processes of `boardhand up`: the supervisor's decisions carried out with asyncio."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.supervisor import Action, ChildRule, Do, State, Supervisor

TETHER = Path(__file__).with_name("tether.py")
# A line of the farm's progress has some hundred bytes; a longer one is cut by the reader, not kept.
MAX_LINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Program:
    """One child. Its standard error, and output where nobody reads it, goes to `log`."""

    rule: ChildRule
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    on_line: Callable[[bytes], None] | None = None
    """Called with each line of its standard output."""


class Children:
    """Starts, watches, restarts and stops children. All methods belong to the event loop's thread, which must be the
    main one: the kernel ties a child to the thread that started it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._core = Supervisor()
        self._programs: dict[str, Program] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.gave_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """The name of the child that cannot be kept alive."""

    def add(self, program: Program) -> None:
        """A new child, to be started at once."""
        self._programs[program.rule.name] = program
        self._core.add(program.rule, time.monotonic())
        self._changed.set()

    def pids(self) -> dict[str, int]:
        """The running children."""
        return {name: process.pid for name, process in self._processes.items() if process.returncode is None}

    def state(self, name: str) -> State:
        return self._core.state(name)

    async def run(self) -> None:
        """Carry out what is due, until a stop is complete."""
        while True:
            self._changed.clear()
            await self._carry_out(self._core.poll(time.monotonic()))
            if self._core.ended:
                break
            due = self._core.next_due()
            timeout_s = None if due is None else max(0.0, due - time.monotonic())
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
        if self._tasks:
            await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """Stop all children; `run` returns when they are gone."""
        await self._carry_out(self._core.stop(time.monotonic()))
        self._changed.set()

    async def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if action.do is Do.START:
                await self._start(self._programs[action.name])
            elif action.do is Do.GIVE_UP:
                if not self.gave_up.done():
                    self.gave_up.set_result(action.name)
            else:
                self._signal(action)

    def _signal(self, action: Action) -> None:
        process = self._processes[action.name]
        if process.returncode is not None:
            return
        if action.do is Do.TERMINATE:
            process.terminate()
            return
        self._say(f"{action.name} did not stop in time: killed")
        # Each child leads a session of its own; what it started and could not stop goes with it.
        os.killpg(process.pid, signal.SIGKILL)

    async def _start(self, program: Program) -> None:
        name = program.rule.name
        with program.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(TETHER),
                str(os.getpid()),
                *program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if program.on_line else log,
                stderr=log,
                env=dict(program.environment),
                start_new_session=True,  # Ctrl-C goes to us alone; we stop them in order
                limit=MAX_LINE_BYTES,
            )
        self._processes[name] = process
        task = asyncio.create_task(self._watch(program, process), name=f"watch {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, program: Program, process: asyncio.subprocess.Process) -> None:
        if process.stdout is not None and program.on_line is not None:
            await _read_lines(process.stdout, program.on_line)
        status = await process.wait()
        name = program.rule.name
        was = self._core.state(name)
        actions = self._core.exited(name, status, time.monotonic())
        if was is State.RUNNING:
            again = "; starting it again" if self._core.state(name) is State.WAITING else ""
            self._say(f"{name} ended by itself ({_how(status)}){again}; see {program.log}")
        await self._carry_out(actions)
        self._changed.set()


def _how(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit code {status}"


async def _read_lines(stream: asyncio.StreamReader, on_line: Callable[[bytes], None]) -> None:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # a line longer than the limit; the reader has dropped what it had
            continue
        if not line:
            return
        on_line(line.rstrip(b"\r\n"))
