"""How a console's port is opened: a tty by pyserial, a UNIX socket, or TCP. What is open is a file descriptor that does
not block, and what can be set on it."""

import asyncio
import contextlib
import errno
import os
import socket
import termios
from typing import Any, Protocol

import serial

from agent.console.holders import holders
from agent.console.settings import ConsoleTable, Place, PlaceKind

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_COUNT = 20, 5, 3
"""A console may be silent for days; a terminal server that lost its power must be noticed all the same."""

_PARITY = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}


_NO_PORT = {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO}
"""The node of a USB device that is just leaving is there for a moment, and opens no more: its driver is gone (ENODEV,
ENXIO), or hangs up (EIO)."""


class OpenError(Exception):
    """The port cannot be opened now; one clause that says why, without the port's name."""


class HeldError(OpenError):
    """Another program has the port."""


class GoneError(OpenError):
    """There is no such port now."""


class Line(Protocol):
    """An open port."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...

    def set_speed(self, baud: int) -> None:
        """Change the speed. May raise OSError or ValueError; does nothing where there is none."""

    def set_break(self, *, on: bool) -> None:
        """Begin or end a break condition. May raise OSError."""

    def set_signal(self, name: str, *, on: bool) -> None:
        """Set `dtr` or `rts`. May raise OSError."""


class _Serial(serial.Serial):
    """pyserial throws away what came before it has opened a port; for a console that is the board's first word."""

    def _reset_input_buffer(self) -> None:
        """Keep it."""


class TtyLine:
    """A serial port, or a pty, which ignores what it has not."""

    def __init__(self, port: serial.Serial) -> None:
        self._port = port

    def fileno(self) -> int:
        return int(self._port.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError, termios.error):
            self._port.close()

    def set_speed(self, baud: int) -> None:
        try:
            self._port.baudrate = baud
            wait_for_bytes(self._port.fileno())
        except termios.error as error:
            raise OSError(*error.args) from error

    def set_break(self, *, on: bool) -> None:
        try:
            self._port.break_condition = on
        except termios.error as error:
            raise OSError(*error.args) from error

    def set_signal(self, name: str, *, on: bool) -> None:
        setattr(self._port, name, on)


class SocketLine:
    """A socket: it has neither speed nor signals."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def set_speed(self, baud: int) -> None:
        """Nothing to set."""

    def set_break(self, *, on: bool) -> None:
        """No break goes through a socket."""

    def set_signal(self, name: str, *, on: bool) -> None:
        """No signals either."""


async def opened(place: Place, table: ConsoleTable) -> Line:
    """Open the port.

    Raises:
        OpenError: it cannot be opened now.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if place.kind is PlaceKind.TTY:
                return await _opened_in_a_thread(place.path, table)
            if place.kind is PlaceKind.UNIX:
                return SocketLine(await _connected(socket.AF_UNIX, place.path))
            return SocketLine(await _tcp(place))
    except TimeoutError:
        raise OpenError(f"no answer in {CONNECT_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise _failed(error.errno, str(error)) from error


async def _connected(family: int, address: tuple[Any, ...] | str) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _tcp(place: Place) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(place.path, place.port, type=socket.SOCK_STREAM)
    failure: OSError = ConnectionError("no address")
    for family, _, _, _, address in found:
        try:
            connection = await _connected(family, address)
        except OSError as error:
            failure = error
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
        return connection
    raise failure


async def _opened_in_a_thread(path: str, table: ConsoleTable) -> Line:
    """A driver may stall in open and tcsetattr: a USB device that is just leaving does."""
    work = asyncio.get_running_loop().run_in_executor(None, _open_tty, path, table)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # The thread goes on; what it opens too late is closed again.
        work.add_done_callback(_close_late)
        raise


def _close_late(work: "asyncio.Future[Line]") -> None:
    if not work.cancelled() and work.exception() is None:
        work.result().close()


def _open_tty(path: str, table: ConsoleTable) -> Line:
    # Two readers of one tty get half of the bytes each: one that is there before us keeps it, and is named.
    others = holders(path)
    if others:
        raise HeldError(f"held by {', '.join(map(str, others[:3]))}; end that program")
    port = _Serial()
    port.port = path
    port.baudrate = table.speed
    port.parity = _PARITY[table.parity]
    port.stopbits = table.stop_bits
    port.rtscts = table.flow == "rtscts"
    port.xonxoff = table.flow == "xonxoff"
    port.timeout = 0
    port.exclusive = True
    if table.dtr is not None:
        port.dtr = table.dtr
    if table.rts is not None:
        port.rts = table.rts
    try:
        port.open()
        wait_for_bytes(port.fileno())
    except (serial.SerialException, termios.error, OSError, ValueError) as error:
        with contextlib.suppress(OSError, termios.error):
            port.close()
        raise _why_not(path, error) from error
    return TtyLine(port)


def _why_not(path: str, error: Exception) -> OpenError:
    others = holders(path)
    if others:
        return HeldError(f"held by {', '.join(map(str, others[:3]))}; end that program")
    text = str(error)
    if "exclusively lock" in text:
        return HeldError("held by a program that is not to be seen; run the agent as root to see which")
    return _failed(getattr(error, "errno", None), text)


def _failed(number: int | None, text: str) -> OpenError:
    """What the error number says, or else `text`."""
    kind = GoneError if number in _NO_PORT else OpenError
    return kind((os.strerror(number) if isinstance(number, int) else text).lower())


def wait_for_bytes(fd: int) -> None:
    """Have read() say EAGAIN where nothing has come, so that 0 bytes mean that the port is gone. pyserial sets VMIN to
    0, where both look the same."""
    attributes = termios.tcgetattr(fd)
    attributes[6][termios.VMIN] = 1
    attributes[6][termios.VTIME] = 0
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
