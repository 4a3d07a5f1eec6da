"""A QEMU machine as an outlet, through its QMP socket (QEMU docs/interop/qmp-spec.rst).

Off is `stop` and `system_reset`: the machine stands still, as after power loss, and QEMU lives on. On is `system_reset`
where the machine has run, and `cont`. QMP serves one client at a time, so each call connects, asks and leaves.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.errors import ConfigurationError, RefusedError, UnreachableError
from agent.power.kinds.qmp import QmpSettings
from wire.phases import Power

OUTLET = "1"
"""The one outlet of a machine."""

STATES = {
    "running": Power.ON,
    "suspended": Power.ON,
    "debug": Power.OFF,
    "guest-panicked": Power.OFF,
    "internal-error": Power.OFF,
    "io-error": Power.OFF,
    "paused": Power.OFF,
    "prelaunch": Power.OFF,
    "shutdown": Power.OFF,
    "watchdog": Power.OFF,
}
"""QEMU's RunState (qapi/run-state.json) -> power; states of a migration are not here and are unknown."""

FRESH = frozenset({"prelaunch"})
"""States from which `cont` starts the machine from reset."""

MAX_LINE_BYTES = 1 << 20
QUEUE_PAUSE_S = 0.02
"""Before asking again to be let in; QEMU serves a client in a few milliseconds."""
CALL_MARGIN_S = 1.0
TIMING = Timing(verify_deadline_s=3.0, poll_interval_s=0.01, settle_s=0.5, min_off_s=0.0, attempts=3)


class QmpDriver:
    """One QEMU machine."""

    def __init__(self, name: str, settings: QmpSettings) -> None:
        self._name = name
        self._settings = settings
        self._timing = replace(TIMING, call_timeout_s=settings.timeout_s + CALL_MARGIN_S)

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return True

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        async with self._conversation(outlet) as qmp:
            status = await qmp.status()
            if on and STATES.get(status) is not Power.ON:
                if status not in FRESH:
                    await qmp.reset()
                await qmp.execute("cont")
            elif not on and status not in FRESH:
                await qmp.execute("stop")
                await qmp.reset()

    async def get(self, outlet: str) -> Power:
        async with self._conversation(outlet) as qmp:
            return STATES.get(await qmp.status(), Power.UNKNOWN)

    async def read(self, outlet: str) -> float | None:
        """QEMU measures nothing."""
        del outlet
        return None

    async def describe(self) -> list[OutletDescription]:
        return [OutletDescription(OUTLET, power=await self.get(OUTLET))]

    async def close(self) -> None:
        """Nothing is held between calls."""

    @contextlib.asynccontextmanager
    async def _conversation(self, outlet: str) -> AsyncIterator["_Qmp"]:
        """Connect, agree on capabilities, yield, leave; all within the timeout of the settings."""
        if outlet != OUTLET:
            raise ConfigurationError(
                "a QEMU machine has one outlet", controller=self._name, outlet=outlet, do=f"write {self._name}:{OUTLET}"
            )
        path, writer = self._settings.socket, None
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                reader, writer = await _connect(path)
                qmp = _Qmp(self._name, reader, writer)
                await qmp.greet()
                yield qmp
        except TimeoutError:
            do = "QMP serves one client at a time: disconnect the other one"
            raise UnreachableError(
                f"QMP at {path} did not answer within {self._settings.timeout_s:g} s",
                controller=self._name,
                outlet=outlet,
                do=do,
            ) from None
        except (OSError, EOFError, ValueError) as problem:
            raise UnreachableError(
                f"QMP at {path} cannot be used: {problem}",
                controller=self._name,
                outlet=outlet,
                do="start the machine (qemu -qmp unix:PATH,server=on,wait=off)",
            ) from problem
        finally:
            if writer is not None:
                writer.close()


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to QEMU's socket. Where others wait to be let in already, a Unix socket says EAGAIN; asyncio takes
    that for "under way", as of TCP, and goes on with a socket that is not connected."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        while True:
            try:
                sock.connect(str(path))
                break
            except BlockingIOError:
                await asyncio.sleep(QUEUE_PAUSE_S)
        return await asyncio.open_unix_connection(sock=sock, limit=MAX_LINE_BYTES)
    except BaseException:
        sock.close()
        raise


@dataclass
class _Qmp:
    controller: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    events: set[str] = field(default_factory=set)
    """Names of events that came, also those before the answer of the command that caused them."""

    async def greet(self) -> None:
        if "QMP" not in await self._message():
            raise ValueError("it greets with something else than QMP")
        await self.execute("qmp_capabilities")

    async def status(self) -> str:
        return str((await self.execute("query-status")).get("status"))

    async def reset(self) -> None:
        """`system_reset`, and wait until it has happened: the command itself only asks for it."""
        self.events.discard("RESET")
        await self.execute("system_reset")
        while "RESET" not in self.events:
            await self._message()

    async def execute(self, command: str) -> dict[str, Any]:
        self.writer.write(json.dumps({"execute": command}).encode() + b"\n")
        await self.writer.drain()
        while True:
            message = await self._message()
            if "error" in message:
                raise RefusedError(
                    f"{command}: {message['error'].get('desc', message['error'])}",
                    controller=self.controller,
                    outlet=OUTLET,
                    do="look at the machine's QMP monitor",
                )
            if "return" in message:
                answer = message["return"]
                return answer if isinstance(answer, dict) else {}

    async def _message(self) -> dict[str, Any]:
        line = await self.reader.readline()
        if not line:
            raise EOFError("the connection was closed")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("a message that is no JSON object")  # noqa: TRY004 - a protocol fault, not a type of ours
        if "event" in message:
            self.events.add(str(message["event"]))
        return message


def make(name: str, settings: QmpSettings, _context: DriverContext) -> QmpDriver:
    """The driver of one controller."""
    return QmpDriver(name, settings)
