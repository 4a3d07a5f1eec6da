"""The consoles' ports for other programs: telnet with RFC 2217, TCP in the raw, and a UNIX socket for this host.

They stand as long as the agent runs, whatever the boards' power does.
"""

import asyncio
import logging
import socket
from pathlib import Path
from typing import cast

from agent.console.console import Console
from agent.console.telnet import Own, Pulse, TelnetServer, Typed, Wanted, escaped, own
from agent.console.writer_place import Writer
from agent.errors import AgentError

log = logging.getLogger(__name__)

MAX_CLIENTS = 64
"""Of one console."""
BEHIND_BYTES = 4 << 20
"""A reader that is so far behind is sent nothing more until it has caught up, and is told what it missed."""
CAUGHT_UP_BYTES = 256 * 1024
NAME_CHARACTERS = 64


class ConsoleClient(asyncio.Protocol):
    """One connection to a console."""

    def __init__(self, console: Console, *, raw: bool, clients: "set[ConsoleClient]") -> None:
        self._console = console
        self._telnet = None if raw else TelnetServer(console.speed)
        self._clients = clients
        self._writer = Writer("somebody")
        self._transport: asyncio.Transport | None = None
        self._behind = False
        self._missed = 0
        self._told: str | None = None
        """Why it could not type, when it was last told."""
        self._watching = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if len(self._clients) >= MAX_CLIENTS:
            log.warning("console %s: %d clients already; one more was refused", self._console.board, MAX_CLIENTS)
            self._transport.abort()
            self._transport = None
            return
        self._clients.add(self)
        self._writer.name = _name_of(transport)
        self._transport.set_write_buffer_limits(BEHIND_BYTES, CAUGHT_UP_BYTES)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._answer()
        self._console.attach(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._clients.discard(self)
        self._console.detach(self)
        if self._transport is not None:
            self._transport = None
            self._console.leave_place(self._writer)

    def close(self) -> None:
        """End the connection after what is on its way."""
        if self._transport is not None:
            self._transport.close()

    # --- towards the client --------------------------------------------------------------------------------------

    def said(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._behind:
            self._missed += len(data)
            return
        self._transport.write(data if self._telnet is None else escaped(data))

    def pause_writing(self) -> None:
        self._behind = True

    def resume_writing(self) -> None:
        self._behind = False
        if self._missed:
            missed, self._missed = self._missed, 0
            log.info("console %s: %s missed %d bytes", self._console.board, self._writer.name, missed)
            self._remark(f"{missed} bytes are not shown: you were too slow")

    def changed(self) -> None:
        if self._telnet is not None and self._telnet.is_ours:
            self._tell_state()

    def _remark(self, text: str) -> None:
        """A line for a person; a program would take it for the board's."""
        if self._transport is None or self._telnet is None:
            return
        if self._telnet.is_ours:
            self._transport.write(own({"remark": text}))
        elif not self._telnet.is_remote_port:
            self._transport.write(f"\r\n[boardhand: {text}]\r\n".encode())

    def _tell_state(self) -> None:
        if self._transport is None:
            return
        console, holder = self._console, self._console.place.holder
        state = console.port.state
        self._transport.write(
            own(
                {
                    "board": console.board,
                    "open": state.is_open,
                    "why": state.why,
                    "writer": None if holder is None else holder.name,
                    "you": holder is self._writer,
                    "readers": console.readers,
                }
            )
        )

    def _answer(self) -> None:
        if self._telnet is not None and self._transport is not None:
            self._transport.write(self._telnet.take())

    # --- from the client -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._telnet is None:
            self._type(data)
            return
        was_ours = self._telnet.is_ours
        events = self._telnet.feed(data)
        self._answer()
        if self._telnet.is_ours and not was_ours:
            self._tell_state()
        for event in events:
            match event:
                case Typed(typed):
                    self._type(typed)
                case Wanted(setting, value):
                    self._console.set_line(self._writer, setting, value)
                case Pulse():
                    self._refuse(self._console.pulse(self._writer))
                case Own(message):
                    self._own(message)

    def _type(self, data: bytes) -> None:
        if self._watching:
            return
        self._refuse(self._console.type(self._writer, data))
        if self._console.port.is_full and self._transport is not None:
            self._transport.pause_reading()
            self._console.port.when_drained(self._go_on)

    def _go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _refuse(self, why: str | None) -> None:
        if why is not None and why != self._told:
            log.info("console %s: %s typed in vain: %s", self._console.board, self._writer.name, why)
            self._remark(f"not typed: {why}")
        self._told = why

    def _own(self, message: dict[str, object]) -> None:
        name, token = message.get("name"), message.get("token")
        if isinstance(name, str) and name.isprintable() and name:
            self._writer.name = name[:NAME_CHARACTERS]
        if isinstance(token, int) and not isinstance(token, bool):
            self._writer.token = token
        if isinstance(message.get("watch"), bool):
            self._watching = bool(message["watch"])
        if message.get("take") is True:
            self._watching = False
            self._refuse(self._console.take_place(self._writer))
        if message.get("give") is True:
            self._console.leave_place(self._writer)
        if message.get("break") is True:
            self._refuse(self._console.pulse(self._writer))
        self._tell_state()


def _name_of(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "somebody on this host"


class ConsoleListeners:
    """The listening sockets of one console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._servers: list[asyncio.Server] = []
        self._clients: set[ConsoleClient] = set()
        self._sockets: list[Path] = []

    async def listen(self, host: str, port: int, *, raw: bool) -> int:
        """Serve TCP; returns the port, which tells it if any free one was asked for with 0.

        Raises:
            AgentError: the address cannot be used; says which and why.
        """
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: ConsoleClient(self._console, raw=raw, clients=self._clients), host, port, reuse_address=True
            )
        except OSError as error:
            name = "raw_port" if raw else "telnet_port"
            raise AgentError(
                f"boards.{self._console.board}.console.{name}: cannot listen at {host}, port {port}: "
                f"{error.strerror or error}"
            ) from error
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def listen_here(self, path: Path) -> None:
        """Serve telnet on a UNIX socket that only our own user, and root, may open.

        Raises:
            AgentError: it cannot be made.
        """
        try:
            bound = await asyncio.to_thread(_bound, path)
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: ConsoleClient(self._console, raw=False, clients=self._clients), sock=bound
            )
        except OSError as error:
            raise AgentError(f"{path}: cannot be made: {error.strerror or error}") from error
        self._servers.append(server)
        self._sockets.append(path)

    def stop(self) -> None:
        """Let nobody new in, and end what is open."""
        for server in self._servers:
            server.close()
        for client in list(self._clients):
            client.close()
        for path in self._sockets:
            path.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket:
    """A socket at `path`, in the place of one that a killed agent left. Its folder is ours alone, so nobody can connect
    before its rights are set."""
    if path.is_socket():
        path.unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except BaseException:
        bound.close()
        raise
    return bound
