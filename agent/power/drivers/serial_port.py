"""One serial port of one driver: opened exclusively when first needed, and again by its path after it vanished.

pyserial blocks, so each port has its own thread: one that is stuck delays no other, and never the event loop.
"""

import asyncio
import contextlib
import errno
import termios
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import serial

from agent.power.errors import ConfigurationError, PowerError, UnreachableError

T = TypeVar("T")

WRITE_TIMEOUT_S = 1.0
"""Our longest message takes 40 ms at 9600 baud; a port that does not take it in this time is stuck."""


class SerialPort:
    """Runs blocking work at a port, one after the other.

    Whatever goes wrong at the port itself, as its adapter being pulled out in the middle of a command, is one
    `UnreachableError`, and the port is closed: the next work opens what is then found at the path.
    """

    def __init__(
        self,
        controller: str,
        device: str,
        baudrate: int,
        *,
        opened: Callable[[serial.Serial], None] | None = None,
    ) -> None:
        """`opened` is called on the port's thread after each opening, before any work; what it raises ends the call
        and closes the port."""
        self.controller = controller
        self.device = device
        self._baudrate = baudrate
        self._opened = opened
        self._port: serial.Serial | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"serial-{controller}")

    async def run(self, work: Callable[[serial.Serial], T], *, outlet: str | None = None) -> T:
        """What `work` returns; it runs on the port's thread, and to its end even when this call is cancelled.

        Raises:
            UnreachableError: there is no such port, or it vanished, or it is stuck.
            ConfigurationError: the port may not be opened, or another program holds it.
            PowerError: what `work` raised.
        """

        def at_port() -> T:
            try:
                return work(self._open())
            except (OSError, termios.error) as problem:  # SerialException is an OSError, termios.error is not
                self._drop(discard=True)
                raise self._translated(problem, outlet) from problem

        if self._closed:
            raise UnreachableError("is closed", controller=self.controller, outlet=outlet)
        return await asyncio.get_running_loop().run_in_executor(self._thread, at_port)

    async def close(self) -> None:
        """After the work under way; what was written is sent. More than once does no harm."""
        if self._closed:
            return
        self._closed = True
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        finally:
            self._thread.shutdown(wait=False)

    # --- on the port's thread ------------------------------------------------------------------------------------

    def _open(self) -> serial.Serial:
        if self._port is None:
            self._port = serial.Serial(
                self.device, self._baudrate, timeout=0, write_timeout=WRITE_TIMEOUT_S, exclusive=True
            )
            if self._opened is not None:
                try:
                    self._opened(self._port)
                except PowerError:
                    self._drop(discard=True)
                    raise
        return self._port

    def _drop(self, *, discard: bool = False) -> None:
        port, self._port = self._port, None
        if port is None:
            return
        if discard:  # closing would wait up to 30 s (closing_wait) for bytes that nobody takes
            with contextlib.suppress(OSError, termios.error):
                port.reset_output_buffer()
        with contextlib.suppress(OSError, termios.error):  # what is gone needs no closing
            port.close()

    def _translated(self, problem: Exception, outlet: str | None) -> PowerError:
        number = problem.errno if isinstance(problem, OSError) else None
        if number in {errno.EACCES, errno.EPERM}:
            do = "let the agent's user open it (group dialout, or a udev rule)"
            return ConfigurationError(
                f"{self.device} may not be opened", controller=self.controller, outlet=outlet, do=do
            )
        if number in {errno.EAGAIN, errno.EBUSY}:
            do = "close the terminal or the second agent that holds it"
            return ConfigurationError(
                f"{self.device} is in use by another program", controller=self.controller, outlet=outlet, do=do
            )
        return UnreachableError(
            f"{self.device} cannot be used: {problem}", controller=self.controller, outlet=outlet, do="plug it in"
        )
