"""A console's port that is opened and never let go: when it vanishes it is opened again as soon as it is back."""

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.console.lines import GoneError, HeldError, Line, OpenError, opened
from agent.console.path_watch import PathWatch
from agent.console.settings import ConsoleTable, PlaceKind
from agent.console.telnet import Setting

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
"""At once: a port that floods gives way to the others after this much."""
WRITE_QUEUE_BYTES = 64 * 1024
"""Of what is to be typed: at 115200 baud that is 5.7 s."""
RETRY_S = 1.0
"""How often a port that is away is looked for where no change is told: a socket, TCP, a folder without inotify."""
HELD_RETRY_S = 2.0
"""Looking who holds a port reads all of /proc."""
BREAK_S = 0.3
"""U-Boot and SysRq take it; shorter ones are lost on some USB adapters."""


@dataclass(frozen=True, slots=True)
class PortState:
    """Whether the port is open, and if not, why."""

    is_open: bool
    why: str | None = None


class Port:
    """One port. `on_data` and `on_state` are called in the event loop and must not block."""

    def __init__(
        self,
        table: ConsoleTable,
        watch: PathWatch,
        *,
        on_data: Callable[[bytes], None],
        on_state: Callable[[PortState], None],
    ) -> None:
        self.place = table.place
        self.state = PortState(is_open=False, why="not opened yet")
        self._table = table
        self._watch = watch
        self._on_data = on_data
        self._on_state = on_state
        self._line: Line | None = None
        self._lost: asyncio.Future[str] | None = None
        self._lost_it = False
        """It was open, and nothing but its absence has been seen since."""
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._writing = False
        self._drained: list[Callable[[], None]] = []
        self._breaking: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Hold the port open for ever; ends by cancellation, and lets go then."""
        try:
            while True:
                changed = None if self.place.kind is PlaceKind.TCP else self._watch.expect(self.place.path)
                retry_s = RETRY_S
                try:
                    self._line = await opened(self.place, self._table)
                except OpenError as error:
                    if not (self._lost_it and isinstance(error, GoneError)):  # that it went is told
                        self._say(PortState(is_open=False, why=str(error)))
                        self._lost_it = False
                    if isinstance(error, HeldError):
                        changed, retry_s = None, HELD_RETRY_S
                else:
                    await self._serve(self._line)
                    # A device that is going shows its node for some milliseconds more; what comes is told by inotify.
                    retry_s = RETRY_S / 4
                if changed is None:
                    await asyncio.sleep(retry_s)
                else:
                    await self._watch.until(changed, retry_s)
        finally:
            self._let_go()

    async def _serve(self, line: Line) -> None:
        loop = asyncio.get_running_loop()
        self._lost = loop.create_future()
        try:
            loop.add_reader(line.fileno(), self._readable, line.fileno())
            self._say(PortState(is_open=True))
            why = await self._lost
        finally:
            self._let_go()
        self._lost_it = True
        self._say(PortState(is_open=False, why=why))

    def _say(self, state: PortState) -> None:
        if state != self.state:
            self.state = state
            self._on_state(state)

    def _let_go(self) -> None:
        line, self._line = self._line, None
        if self._breaking is not None:
            self._breaking.cancel()
            self._breaking = None
        if line is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(line.fileno())
        if self._writing:
            loop.remove_writer(line.fileno())
            self._writing = False
        # What was typed for a board that is gone is not for its next boot.
        self._queue.clear()
        self._queued_bytes = 0
        line.close()
        self._tell_drained()

    def _readable(self, fd: int) -> None:
        try:
            data = os.read(fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail((error.strerror or str(error)).lower())
            return
        if data:
            self._on_data(data)
        else:
            self._fail("the other end is gone")

    def _fail(self, why: str) -> None:
        if self._line is not None:
            # A port that is gone stays readable; nobody is to be woken for it until it is closed.
            asyncio.get_running_loop().remove_reader(self._line.fileno())
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(why)

    # --- towards the board ---------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether nothing more is taken until `when_drained` calls."""
        return self._queued_bytes >= WRITE_QUEUE_BYTES

    def when_drained(self, call: Callable[[], None]) -> None:
        """Have `call` called once, when the queue is empty or the port is gone."""
        self._drained.append(call)

    def write(self, data: bytes) -> bool:
        """Send `data` to the board, after what was given before; False, and nothing is sent, where the port is not
        open or its queue is full."""
        if self._line is None or not data or self.is_full:
            return False
        if not self._queue:
            data = self._send(data)
        if data:
            self._queue.append(data)
            self._queued_bytes += len(data)
            if not self._writing and self._line is not None:
                self._writing = True
                asyncio.get_running_loop().add_writer(self._line.fileno(), self._writable)
        return True

    def _send(self, data: bytes) -> bytes:
        """Write what goes at once; returns the rest."""
        if self._line is None:
            return b""
        try:
            return data[os.write(self._line.fileno(), data) :]
        except (BlockingIOError, InterruptedError):
            return data
        except OSError as error:
            self._fail((error.strerror or str(error)).lower())
            return b""

    def _writable(self) -> None:
        while self._queue:
            data = self._queue.popleft()
            self._queued_bytes -= len(data)
            rest = self._send(data)
            if rest:
                self._queue.appendleft(rest)
                self._queued_bytes += len(rest)
                return
        if self._writing and self._line is not None:
            asyncio.get_running_loop().remove_writer(self._line.fileno())
        self._writing = False
        self._tell_drained()

    def _tell_drained(self) -> None:
        calls, self._drained = self._drained, []
        for call in calls:
            call()

    def set(self, setting: Setting, value: int) -> None:
        """Change the line. What it refuses is logged: a client must not end the console."""
        if self._line is None:
            return
        try:
            if setting is Setting.SPEED:
                self._line.set_speed(value)
            elif setting is Setting.BREAK:
                self._line.set_break(on=bool(value))
            else:
                self._line.set_signal(setting.value, on=bool(value))
        except (OSError, ValueError) as error:
            log.warning("console %s: %s %d: %s", self.place, setting, value, error)

    def pulse(self) -> None:
        """Send a break of the usual length."""
        if self._line is None or self._breaking is not None:
            return
        self.set(Setting.BREAK, 1)
        self._breaking = asyncio.get_running_loop().call_later(BREAK_S, self._end_pulse)

    def _end_pulse(self) -> None:
        self._breaking = None
        with contextlib.suppress(OSError):
            self.set(Setting.BREAK, 0)
