"""Programs that the farm runs beside QEMU, and the rule by which anything that dies is started again."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from virtual_lab.lab_tools import keep_log_small
from virtual_lab.namespace import LabError, die_with_parent

# 0.5 s for a mishap; a program that dies at once and always is tried every 20 s, and says so in the farm's output.
FIRST_BACK_OFF_S = 0.5
LAST_BACK_OFF_S = 20.0
# Who lived so long did not die of its settings: the back-off begins anew.
_HEALTHY_S = 60.0


class Child(Protocol):
    """Something with a process: `QemuBoard`, `PythonChild`."""

    @property
    def pid(self) -> int | None: ...
    async def start(self) -> None: ...
    async def wait(self) -> int: ...
    async def stop(self) -> None: ...


class PythonChild:
    """`python -m MODULE ARGUMENTS`, with its output appended to `log` (the last 16 MB and what came before).

    `stop` sends SIGTERM and closes its standard input, waits `stop_timeout_s`, then kills. If this process dies
    first, the kernel sends it `orphan_signal`.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        log: Path,
        *,
        pass_fds: Sequence[int] = (),
        stop_timeout_s: float = 5.0,
        orphan_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._name = module
        self._log = log
        self._pass_fds = tuple(pass_fds)
        self._stop_timeout_s = stop_timeout_s
        self._orphan_signal = orphan_signal
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> None:
        """Start it. Whether it does its work, its log tells.

        Raises:
            OSError: it cannot be started, or the log cannot be written.
        """
        keep_log_small(self._log)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=self._pass_fds,
                env=child_environment(),
                preexec_fn=self._in_child,
                start_new_session=True,
            )

    def _in_child(self) -> None:
        die_with_parent(self._orphan_signal)

    async def wait(self) -> int:
        """Wait for its end. Returns its exit code, negative for a signal."""
        if self._process is None:
            raise LabError(f"{self._name} was not started")
        return await self._process.wait()

    async def stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def last_words(self) -> str:
        """The last line of its log, for a person."""
        with suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - 4096))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""


def child_environment() -> dict[str, str]:
    """The environment of this process, where our rooms are importable even when run from a source tree."""
    here = str(Path(__file__).resolve().parent.parent)
    known = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *(part for part in known if part != here)])}


async def keep_running(
    child: Child,
    *,
    on_start: Callable[[], None],
    on_end: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Start `child` and start it again whenever it ends, until this is cancelled; then stop it.

    `on_start` is called after each start, `on_end` with one sentence after each end or failed start.
    """
    back_off_s = FIRST_BACK_OFF_S
    try:
        while True:
            began = clock()
            try:
                await child.start()
            except (LabError, OSError) as error:
                on_end(str(error))
            else:
                on_start()
                code = await child.wait()
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
                on_end(how)
            if clock() - began > _HEALTHY_S:
                back_off_s = FIRST_BACK_OFF_S
            await asyncio.sleep(back_off_s)
            back_off_s = min(2 * back_off_s, LAST_BACK_OFF_S)
    finally:
        await child.stop()
