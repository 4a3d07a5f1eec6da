"""pdudaemon's line protocol: `hostname port command [delay]` answered by `ack`, or by `nack: ` and the reason.

pduclient takes exactly `ack` for success, prints whatever else comes, and sends neither a newline nor the end of the
stream. `state` is a command of ours, answered by `on`, `off` or `unknown`.
"""

import asyncio
import contextlib
import logging

from agent.pdu_listener.http_server import CarryOut
from agent.pdu_listener.settings import Endpoint
from agent.pdu_listener.words import LineAssembler, Verb, WordsError, parse_line

MAX_CONNECTIONS = 512
"""As for HTTP."""
LINE_TIMEOUT_S = 10.0
"""From connecting until the line is there. Nobody types it by hand character by character."""
QUIET_S = 0.1
"""A line without a newline ends when nothing came for this long: pduclient sends it in one piece."""
WRITE_TIMEOUT_S = 5.0
READ_BYTES = 4096

_log = logging.getLogger(__name__)


class TcpServer:
    """Hears the line protocol on one endpoint."""

    def __init__(
        self, carry_out: CarryOut, *, most: int = MAX_CONNECTIONS, line_timeout_s: float = LINE_TIMEOUT_S
    ) -> None:
        self._carry_out = carry_out
        self._most = most
        self._line_timeout_s = line_timeout_s
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, endpoint: Endpoint) -> Endpoint:
        """Listen; returns where, which tells the port if any free one was asked for.

        Raises:
            OSError: the address or port cannot be used.
        """
        self._server = await asyncio.start_server(
            self._connected, endpoint.host, endpoint.port, reuse_address=True, backlog=256, limit=2 * READ_BYTES
        )
        return Endpoint(endpoint.host, self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Let nobody new in."""
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """End what is open, after answers that are being written."""
        self.close()
        if self._open:
            _, late = await asyncio.wait(self._open, timeout=0.5)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._most:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="pdu listener connection")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        try:
            text = await self._answer(reader, f"{peer[0] if peer else 'somebody'} by TCP")
            writer.write(text.encode())
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError) as problem:
            _log.debug("%s: left before its answer: %s", peer, problem)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, who: str) -> str:
        try:
            async with asyncio.timeout(self._line_timeout_s):
                line = await _line(reader)
            asked = parse_line(line)
        except TimeoutError:
            return f"nack: no whole line came within {self._line_timeout_s:g} s\n"
        except WordsError as error:
            return f"nack: {error}\n"
        answer = await self._carry_out(asked, who)
        if answer.error is not None and asked.verb is not Verb.STATE:
            return f"nack: {' '.join(answer.error.message.split())}\n"
        return f"{answer.power}\n" if asked.verb is Verb.STATE else "ack\n"


async def _line(reader: asyncio.StreamReader) -> bytes:
    assembler = LineAssembler()
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S if assembler.may_be_whole else None):
                data = await reader.read(READ_BYTES)
                line = assembler.feed(data) if data else assembler.ended()
                if line is not None:
                    return line
                continue
        return assembler.ended()
