"""HTTP boot: GET and HEAD of the files that TFTP serves, by the same decisions.

Every request is a question to the owner, who knows which board has the address. There is no folder behind the URLs, no
listing, and nothing can be written. Headers and small files are handled in the event loop, disk and large files by a
few threads (`netboot/http_pump.py`), so that the loop goes on however many boards fetch.
"""

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import hdrs, web

from netboot.errors import NetbootStartError
from netboot.http_accept import Acceptor
from netboot.http_answer import SERVER_NAME, Answering, Outcome, Pace, Progress
from netboot.http_connections import ConnectionGate, RequestRate
from netboot.http_files import OpenFile
from netboot.http_pump import Threads
from netboot.http_tokens import split_token
from netboot.safe_open import UnsafePathError
from netboot.tftp_packet import ERROR_ACCESS, ERROR_NOT_FOUND
from netboot.tftp_process import Answer, Question, SendBytes, SendError, SendFile, WorkerRefusal

log = logging.getLogger(__name__)

# aiohttp logs a bad request with a traceback and its first line, which may hold a token: any client could fill the log.
_quiet = logging.Logger("netboot.http_server.aiohttp")  # noqa: LOG001  # outside the tree of loggers on purpose
_quiet.addHandler(logging.NullHandler())

SHUTDOWN_S = 1.0
"""Transfers end with the server; a request that is being answered has so long."""
BACKLOG = 1024
"""A rack that is switched on asks at once."""
RETRY_AFTER_S = 2
_STATUS = {ERROR_NOT_FOUND: 404, ERROR_ACCESS: 403}


class HttpStartError(NetbootStartError):
    """The address and port cannot be served; the message names them."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What clients may take. `max_strangers`: connections of all clients together that the owner does not know.
    `idle_s`: until a request's head is whole. `stall_s`: a client that takes no octet for so long is given up, and so
    is one that is slower than `slowest_bytes_s` on average after that time. `requests_per_s`: of one client; more are
    answered slowly."""

    max_connections: int = 512
    max_per_client: int = 16
    max_strangers: int = 64
    idle_s: float = 20.0
    stall_s: float = 30.0
    slowest_bytes_s: float = 1024.0
    requests_per_s: int = 1000


@dataclass(frozen=True, slots=True)
class HttpQuestion(Question):
    """A client wants a file by HTTP. `path` begins with a slash and is without the boot's token, so it may be logged.
    `number` is below 0: an owner may keep it beside TFTP's, which are above. `token` None: the URL carries none; any
    other has to be judged by `http_tokens.token_fits`."""

    token: str | None = field(default=None, repr=False)
    method: Literal["GET", "HEAD"] = "GET"


@dataclass(frozen=True, slots=True)
class HttpDone:
    """A question that was answered with a file or octets has ended. `size_bytes` counts the body that was sent."""

    number: int
    outcome: Outcome
    size_bytes: int
    seconds: float
    reason: str


class HttpBootServer:
    """Serves one address and port from `start` to `stop`.

    `answer` is awaited for each question, several at a time. `on_done` is called once for each that was not answered
    with `SendError`, and `on_refusal` for what is refused without a question: another method, too many connections.
    Both run in the event loop and must not block. `is_known` tells for an address whether it is a board's.

    Args:
        interface: serve this network interface alone; None for all of them.
        address6: serve this IPv6 address beside `address`, on the same port; `::` for all of the interface's.
    """

    def __init__(  # noqa: PLR0913  # where it serves, and whom it asks and tells
        self,
        address: str,
        port: int,
        *,
        answer: Callable[[HttpQuestion], Awaitable[Answer]],
        on_done: Callable[[HttpDone], None],
        on_refusal: Callable[[WorkerRefusal], None],
        is_known: Callable[[str], bool] = lambda _client: True,
        interface: str | None = None,
        address6: str | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        self._addresses = (address,) if address6 is None else (address, address6)
        self._port, self._interface = port, interface
        self._answer, self._on_done, self._on_refusal = answer, on_done, on_refusal
        limits = limits or HttpLimits()
        self._rate = RequestRate(limits.requests_per_s)
        self._pace = Pace(limits.stall_s, limits.slowest_bytes_s)
        self._gate = ConnectionGate(
            most=limits.max_connections,
            most_per_client=limits.max_per_client,
            most_strangers=limits.max_strangers,
            is_known=is_known,
            idle_s=limits.idle_s,
            on_refusal=lambda client, reason: self._refused(client, "", reason),
        )
        self._number = 0
        self._web: web.Server | None = None
        self._acceptors: list[Acceptor] = []
        self._threads: Threads | None = None
        self.counters: Counter[str] = Counter()

    async def start(self) -> int:
        """Listen; returns the port (of use when it was 0).

        Raises:
            HttpStartError: the address or port cannot be used.
        """
        listeners = self._listeners()
        self._threads = Threads()
        self._web = web.Server(
            self._handle,
            handler_cancellation=True,  # a client that is gone frees its place at once
            access_log=None,
            logger=_quiet,
            keepalive_timeout=self._gate.idle_s,
            lingering_time=0,  # a GET with a body is not worth reading it
        )
        make_protocol = self._web
        self._acceptors = [Acceptor(listener, lambda: self._gate.guard(make_protocol())) for listener in listeners]
        return self._port

    def _listeners(self) -> list[socket.socket]:
        listeners: list[socket.socket] = []
        try:
            for address in self._addresses:
                listeners.append(self._listener(address))
                self._port = int(listeners[0].getsockname()[1])  # a new start serves the port that clients know
        except HttpStartError:
            for listener in listeners:
                listener.close()
            raise
        return listeners

    def _listener(self, address: str) -> socket.socket:
        name, _, scope = address.partition("%")
        try:
            family = socket.AF_INET6 if ":" in name else socket.AF_INET
            where = (name, self._port, 0, socket.if_nametoindex(scope) if scope else 0)
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise self._start_error(address, error) from error
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._interface is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode() + b"\0")
            listener.bind(where if family == socket.AF_INET6 else where[:2])
            listener.setblocking(False)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise self._start_error(address, error) from error
        return listener

    def _start_error(self, address: str, error: OSError) -> HttpStartError:
        return HttpStartError(f"cannot serve HTTP on {address} port {self._port}: {error.strerror}")

    async def stop(self) -> None:
        """End all transfers and connections. May be called twice."""
        acceptors, self._acceptors = self._acceptors, []
        inner, self._web = self._web, None
        threads, self._threads = self._threads, None
        for acceptor in acceptors:
            await acceptor.stop()
        if inner is not None:
            for connection in list(self._gate.open.values()):
                connection.transport.abort()
            await inner.shutdown(SHUTDOWN_S)
        if threads is not None:
            threads.stop()

    # --- one request ---

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        with self._gate.busy(request.transport):
            peer = request.transport.get_extra_info("peername") if request.transport is not None else None
            if not peer:
                raise ConnectionResetError("the client is gone")
            client, port = str(peer[0]), int(peer[1])
            delay_s = self._rate.delay_s(client, time.monotonic())
            if delay_s:
                self.counters["slowed"] += 1
                await asyncio.sleep(delay_s)
            token, path = split_token(request.path)
            if request.method == hdrs.METH_GET:
                method: Literal["GET", "HEAD"] = "GET"
            elif request.method == hdrs.METH_HEAD:
                method = "HEAD"
            else:
                self._refused(client, path, "only GET and HEAD are served")
                return _said(405, "only GET and HEAD are served", last=True, allow="GET, HEAD")
            self._number -= 1
            self.counters["requests"] += 1
            question = HttpQuestion(self._number, client, port, path, token, method)
            try:
                answer = await self._answer(question)
            except Exception:  # whatever our owner did wrong, the client must hear something and others go on
                log.exception("cannot decide on %s for %s", path, client)
                answer = SendError(0, "internal error, try again")
            if isinstance(answer, SendError):
                return _said(_STATUS.get(answer.code, 503), answer.message)
            return await self._carry_out(request, question, answer)

    async def _carry_out(
        self, request: web.BaseRequest, question: HttpQuestion, answer: SendFile | SendBytes
    ) -> web.StreamResponse:
        """Send an answer and tell the owner how it ended, whatever happens."""
        progress, reason, began = Progress(outcome=Outcome.FAULT), "", time.monotonic()
        transport = request.transport
        try:
            return await self._send(request, question, answer, progress)
        except OSError as error:
            # Nobody is there to hear it, except where nothing was sent: then the file is at fault.
            reason = error.strerror or str(error)
            if not progress.begun:
                return _said(_fault_status(error), "this file cannot be sent now")
            if transport is not None:
                transport.abort()
            raise ConnectionResetError(reason) from error
        except asyncio.CancelledError:
            reason = "the client ended the connection"
            progress.outcome = Outcome.CUT
            raise
        finally:
            self._done(
                HttpDone(question.number, progress.outcome, progress.sent_bytes, time.monotonic() - began, reason)
            )

    async def _send(
        self, request: web.BaseRequest, question: HttpQuestion, answer: SendFile | SendBytes, progress: Progress
    ) -> web.StreamResponse:
        threads = self._threads
        if threads is None:
            raise ConnectionResetError("the server is being stopped")
        answering = Answering(request, threads, self._pace, progress)
        if isinstance(answer, SendBytes):
            return await answering.octets(question.path, answer.data)
        file, efi_program = await threads.open(lambda: _opened(answer))
        return await answering.file(question.path, file, efi_program=efi_program)

    def _done(self, done: HttpDone) -> None:
        self.counters[done.outcome] += 1
        self.counters["bytes"] += done.size_bytes
        try:
            self._on_done(done)
        except Exception:  # a fault of the owner's must not end the client's connection
            log.exception("the owner of HTTP boot failed on the end of a transfer")

    def _refused(self, client: str, path: str, reason: str) -> None:
        self.counters["refused"] += 1
        try:
            self._on_refusal(WorkerRefusal(client, path, reason))
        except Exception:  # as above
            log.exception("the owner of HTTP boot failed on a refusal")


def _opened(answer: SendFile) -> tuple[OpenFile, bool]:
    """In a thread: the open file, and whether it is an EFI program."""
    file = OpenFile(answer.path, answer.root)
    try:
        return file, file.is_efi_program()
    except BaseException:
        file.close()
        raise


def _fault_status(error: OSError) -> int:
    if isinstance(error, FileNotFoundError):
        return 404
    return 403 if isinstance(error, UnsafePathError | PermissionError) else 503


def _said(status: int, text: str, *, last: bool = False, allow: str | None = None) -> web.Response:
    """An answer in words. `last` ends the connection after it."""
    headers = {hdrs.CACHE_CONTROL: "no-store", hdrs.SERVER: SERVER_NAME}
    if allow is not None:
        headers[hdrs.ALLOW] = allow
    if status == 503:
        headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER_S)
    response = web.Response(status=status, text=f"{text}\n", headers=headers)
    if last:
        response.force_close()
    return response
