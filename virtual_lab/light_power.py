"""The power switch of a light board: as much of QEMU's machine protocol (QMP) as switching power takes.

A stopped machine is "off"; `cont` is "on"; `stop` is power loss, `system_reset` is reset. Answers and events come in
QEMU's order, one JSON object per line.
"""

import asyncio
import json
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from virtual_lab.lab_tools import check_socket_path, remove_stale_socket

_GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": "boardhand light"},
                     "capabilities": []}}  # fmt: skip
_MAX_LINE_BYTES = 64 * 1024


class RunState(StrEnum):
    """QEMU's run states that a light board can have (qapi/run-state.json)."""

    PRELAUNCH = "prelaunch"
    RUNNING = "running"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"


class Machine(Protocol):
    """What is switched."""

    def power_on(self) -> None: ...
    def power_off(self) -> None: ...


class PowerSwitch:
    """Serves QMP at `path` for `machine`. As with QEMU, several clients may connect, one after the other."""

    def __init__(self, path: Path, machine: Machine) -> None:
        self._path = check_socket_path(path)
        self._machine = machine
        self._server: asyncio.Server | None = None
        self.state = RunState.PRELAUNCH
        self._commands: dict[str, Callable[[], list[str]]] = {
            "qmp_capabilities": list,
            "query-status": list,
            "cont": self._cont,
            "stop": self._stop,
            "system_reset": self._reset,
        }

    async def start(self) -> None:
        """Listen.

        Raises:
            LabError, OSError: the socket cannot be made.
        """
        remove_stale_socket(self._path)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_MAX_LINE_BYTES)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    def guest_ended(self) -> None:
        """The board powered itself off."""
        self.state = RunState.SHUTDOWN

    def feed(self, on: bool) -> None:  # noqa: FBT001  # as Driver.set
        """Its mains come or go, at the outlet of a PDU."""
        if not on:
            self._stop()
            self.state = RunState.PAUSED
        elif self.state is not RunState.RUNNING:
            self.state = RunState.PAUSED
            self._cont()

    def _cont(self) -> list[str]:
        if self.state in {RunState.PRELAUNCH, RunState.PAUSED}:
            self.state = RunState.RUNNING
            self._machine.power_on()
            return ["RESUME"]
        return []

    def _stop(self) -> list[str]:
        if self.state is RunState.RUNNING:
            self.state = RunState.PAUSED
            self._machine.power_off()
            return ["STOP"]
        return []

    def _reset(self) -> list[str]:
        if self.state is RunState.RUNNING:
            self._machine.power_off()
            self._machine.power_on()
        elif self.state is RunState.SHUTDOWN:
            self.state = RunState.PAUSED
        return ["RESET"]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _write(writer, _GREETING)
            while line := await reader.readline():
                for answer in self._answers(line):
                    await _write(writer, answer)
        except (OSError, ValueError):
            pass  # the client went away, or sent a line without end
        finally:
            writer.close()

    def _answers(self, line: bytes) -> list[dict[str, Any]]:
        try:
            asked = json.loads(line)
            name = asked["execute"]
        except (ValueError, KeyError, TypeError):
            return [{"error": {"class": "GenericError", "desc": "Invalid JSON syntax"}}]
        extra = {"id": asked["id"]} if "id" in asked else {}
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            desc = f"The command {name} has not been found"
            return [{"error": {"class": "CommandNotFound", "desc": desc}, **extra}]
        events = [_event(event) for event in command()]
        result: dict[str, Any] = {}
        if name == "query-status":
            result = {"status": self.state.value, "running": self.state is RunState.RUNNING, "singlestep": False}
        answer = {"return": result, **extra}
        return [answer, *events] if name == "system_reset" else [*events, answer]


def _event(name: str) -> dict[str, Any]:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return {"event": name, "timestamp": {"seconds": seconds, "microseconds": nanoseconds // 1000}}


async def _write(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\r\n")
    async with asyncio.timeout(10.0):
        await writer.drain()
