"""Serial ports of a cabled farm: UNIX sockets that carry the console of whichever board is wired to them."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from virtual_lab.lab_tools import check_socket_path, remove_stale_socket

RETRY_S = 0.2
"""QEMU makes its console's socket soon after it was started."""
RECEIVE_BYTES = 4096
MOST_WAITING_BYTES = 1 << 20
"""A reader that is stuck loses what comes; a real port would, too."""


class PatchPanel:
    """Ports on one side, boards on the other, and the wires between them."""

    def __init__(self, wires: Mapping[str, str]) -> None:
        """`wires`: port -> board."""
        self._wires = dict(wires)
        self._readers: dict[str, set[asyncio.StreamWriter]] = {port: set() for port in wires}
        self._boards: dict[str, asyncio.StreamWriter] = {}
        """Consoles that can be written to."""
        self._servers: list[tuple[asyncio.Server, Path]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open_port(self, port: str, path: Path) -> None:
        """Serve `port` at `path`.

        Raises:
            LabError, OSError: the socket cannot be made.
        """
        remove_stale_socket(check_socket_path(path))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(port, reader, writer)

        self._servers.append((await asyncio.start_unix_server(serve, path), path))

    def plug_socket(self, board: str, path: Path) -> None:
        """The board's console is the socket at `path`, now or later."""
        self._tasks.append(asyncio.create_task(self._follow(board, path), name=f"console of {board}"))

    def said(self, board: str, data: bytes) -> None:
        """The board says something on its console; nobody may listen."""
        for port, wired in self._wires.items():
            if wired == board:
                for writer in self._readers[port]:
                    if writer.transport.get_write_buffer_size() < MOST_WAITING_BYTES:
                        writer.write(data)

    def readers(self, port: str) -> int:
        """How many listen at the port now."""
        return len(self._readers[port])

    def swap(self, one: str, other: str) -> None:
        """The cables at two ports change places.

        Raises:
            KeyError: there is no such port.
        """
        self._wires[one], self._wires[other] = self._wires[other], self._wires[one]

    async def close(self) -> None:
        """Close all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writers in self._readers.values():
            for writer in writers:
                writer.transport.abort()
        for server, path in self._servers:
            server.close()
            path.unlink(missing_ok=True)

    async def _serve(self, port: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers[port].add(writer)
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(RECEIVE_BYTES):
                    board = self._boards.get(self._wires[port])
                    if board is not None:
                        board.write(data)
        finally:
            self._readers[port].discard(writer)
            writer.close()

    async def _follow(self, board: str, path: Path) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(path)
                self._boards[board] = writer
                try:
                    while data := await reader.read(RECEIVE_BYTES):
                        self.said(board, data)
                finally:
                    del self._boards[board]
                    writer.close()
            await asyncio.sleep(RETRY_S)
