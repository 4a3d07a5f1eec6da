"""pdudaemon's HTTP queries, a state call, and labgrid's `rest` shape.

`GET /power/control/{on,off,reboot}?hostname=&port=[&delay=]` or `?alias=` answers, after the switch was verified, 200
`OK - accepted request`, or a status from 400 on with the reason: labgrid and pduclient look at the status alone.
`GET /power/state?…` answers `on`, `off` or `unknown`. `GET /power/outlet/HOSTNAME/PORT` and `/power/alias/NAME` answer
exactly `0` or `1`, and `PUT` there takes `0` or `1`. With `Accept: application/json` answers are JSON.
"""

import asyncio
import base64
import binascii
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import hdrs, web

from agent.pdu_listener.connections import ConnectionGate
from agent.pdu_listener.desk import Answer
from agent.pdu_listener.settings import Endpoint
from agent.pdu_listener.words import MAX_WORD, Asked, Verb, WordsError, parse_query
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind, Power

CarryOut = Callable[[Asked, str], Awaitable[Answer]]
"""Takes the request and who asked."""

ACCEPTED = "OK - accepted request\n"
"""As pdudaemon says it, for clients that look at the text."""
INVALID = "Invalid request"
"""How pdudaemon's answer to a bad request begins; ours goes on with the reason."""
BODY_TIMEOUT_S = 5.0
MAX_BODY_BYTES = 16
"""`0` or `1`, and blanks."""
SHUTDOWN_S = 2.0
"""For answers that are being written when the agent stops."""

STATUS: dict[ErrorKind, int] = {
    ErrorKind.BAD_REQUEST: 400,
    ErrorKind.EXPIRED: 400,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.UNKNOWN_BOARD: 404,
    ErrorKind.NOT_ALLOWED: 409,
    ErrorKind.CONFIGURATION: 500,
    ErrorKind.INTERNAL: 500,
    ErrorKind.AUTHENTICATION: 502,
    ErrorKind.REFUSED: 502,
    ErrorKind.NOT_VERIFIED: 502,
    ErrorKind.BUSY: 503,
    ErrorKind.INTERRUPTED: 503,
    ErrorKind.UNREACHABLE: 504,
}
"""Every failure has a status from 400 on. 502 and 504: the device's fault, 503: try later, 409: a lease or a rule."""

_log = logging.getLogger(__name__)


class HttpServer:
    """Hears HTTP on one endpoint.

    Args:
        carry_out: does what was asked; never raises.
        token: what a request has to show, as `Authorization: Bearer` or as the password of Basic (which is how
            labgrid and curl send `http://any:TOKEN@host`); None for no token.
    """

    def __init__(self, carry_out: CarryOut, token: bytes | None, gate: ConnectionGate | None = None) -> None:
        self._carry_out = carry_out
        self._token = token
        self._gate = gate or ConnectionGate()
        self._web = web.Server(self._handle, access_log=None, keepalive_timeout=self._gate.idle_s)
        self._server: asyncio.Server | None = None

    async def start(self, endpoint: Endpoint) -> Endpoint:
        """Listen; returns where, which tells the port if any free one was asked for.

        Raises:
            OSError: the address or port cannot be used.
        """
        self._server = await asyncio.get_running_loop().create_server(
            lambda: self._gate.guard(self._web()), endpoint.host, endpoint.port, reuse_address=True, backlog=256
        )
        return Endpoint(endpoint.host, self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Let nobody new in."""
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """End what is open, after answers that are being written."""
        self.close()
        await self._web.shutdown(SHUTDOWN_S)
        for transport in list(self._gate.open):
            cast("asyncio.Transport", transport).abort()

    # --- one request -------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        with self._gate.busy(request.transport):
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
            try:
                return await self._route(request)
            except WordsError as error:
                return _failed(request, ErrorInfo(kind=ErrorKind.BAD_REQUEST, message=str(error)))

    def _refusal(self, request: web.BaseRequest) -> web.Response | None:
        # A page in a browser on this host could switch a loopback listener by an <img> alone. No page of ours does.
        if hdrs.ORIGIN in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
            return _text(request, 403, "Forbidden: web pages may not switch power\n")
        if self._token is None:
            return None
        shown = _shown_token(request.headers.get(hdrs.AUTHORIZATION, ""))
        if shown is None:
            answer = _text(request, 401, "Unauthorized: show the token, as `Authorization: Bearer TOKEN`\n")
            answer.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            return answer
        if not hmac.compare_digest(shown, self._token):
            _log.warning("%s: showed a wrong token for %.200r", request.remote, request.path)
            return _text(request, 403, "Forbidden: this is not the token\n")
        return None

    async def _route(self, request: web.BaseRequest) -> web.Response:
        match request.rel_url.parts:
            case ("/", "power", "control", "on" | "off" | "reboot" as verb):
                return await self._control(request, Verb(verb))
            case ("/", "power", "state"):
                return await self._state(request)
            case ("/", "power", "outlet", hostname, port):
                return await self._rest(request, {"hostname": hostname, "port": port})
            case ("/", "power", "alias", alias):
                return await self._rest(request, {"alias": alias})
        return _text(
            request, 404, f"{INVALID}: there are /power/control/on, off and reboot, /power/state, and /power/outlet/…\n"
        )

    async def _control(self, request: web.BaseRequest, verb: Verb) -> web.Response:
        if request.method != hdrs.METH_GET:
            return _method(request, hdrs.METH_GET)
        answer = await self._carry_out(parse_query(verb, request.query.items()), _who(request))
        if answer.error is not None:
            return _failed(request, answer.error, answer.power)
        if _wants_json(request):
            return web.json_response({"ok": True, "power": answer.power})
        return _text(request, 200, ACCEPTED)

    async def _state(self, request: web.BaseRequest) -> web.Response:
        if request.method != hdrs.METH_GET:
            return _method(request, hdrs.METH_GET)
        answer = await self._carry_out(parse_query(Verb.STATE, request.query.items()), _who(request))
        if answer.error is not None and STATUS[answer.error.kind] in {400, 404}:
            return _failed(request, answer.error)
        if _wants_json(request):
            return web.json_response({"power": answer.power, "error": _said(answer.error)})
        return _text(request, 200, f"{answer.power}\n")

    async def _rest(self, request: web.BaseRequest, target: dict[str, str]) -> web.Response:
        if request.method == hdrs.METH_GET:
            answer = await self._carry_out(parse_query(Verb.STATE, target.items()), _who(request))
            if answer.power is Power.UNKNOWN:
                error = answer.error or ErrorInfo(kind=ErrorKind.UNREACHABLE, message="its state is not known")
                status = STATUS[error.kind] if STATUS[error.kind] in {400, 404} else 503
                return _failed(request, error, status=status)
            return _text(request, 200, "1" if answer.power is Power.ON else "0")
        if request.method == hdrs.METH_PUT:
            asked = parse_query(await _wanted(request), target.items())
            answer = await self._carry_out(asked, _who(request))
            return _text(request, 200, "") if answer.error is None else _failed(request, answer.error, answer.power)
        return _method(request, f"{hdrs.METH_GET}, {hdrs.METH_PUT}")


async def _wanted(request: web.BaseRequest) -> Verb:
    """The body of a PUT."""
    body = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    break
    except TimeoutError:
        raise WordsError("the body did not come; send 0 or 1") from None
    verbs = {b"0": Verb.OFF, b"1": Verb.ON}
    if body.strip() not in verbs:
        raise WordsError(f"the body {body[:MAX_BODY_BYTES]!r} is neither 0 nor 1")
    return verbs[body.strip()]


def _shown_token(authorization: str) -> bytes | None:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return None
    return None


def _who(request: web.BaseRequest) -> str:
    return f"{request.remote or 'somebody'} by HTTP"


def _wants_json(request: web.BaseRequest) -> bool:
    return "application/json" in request.headers.get(hdrs.ACCEPT, "")


def _said(error: ErrorInfo | None) -> dict[str, object] | None:
    return None if error is None else {"kind": error.kind, "message": error.message}


def _failed(
    request: web.BaseRequest, error: ErrorInfo, power: Power = Power.UNKNOWN, *, status: int | None = None
) -> web.Response:
    status = status or STATUS[error.kind]
    if _wants_json(request):
        return web.json_response({"ok": False, "power": power, "error": _said(error)}, status=status)
    start = INVALID if status in {400, 404} else "Failed"
    return _text(request, status, f"{start}: {' '.join(error.message.split())}\n")


def _method(request: web.BaseRequest, allowed: str) -> web.Response:
    answer = _text(request, 405, f"{INVALID}: {request.method[:MAX_WORD]} is not {allowed}\n")
    answer.headers[hdrs.ALLOW] = allowed
    return answer


def _text(request: web.BaseRequest, status: int, text: str) -> web.Response:
    answer = web.Response(status=status, text=text, headers={hdrs.CACHE_CONTROL: "no-store"})
    if status == 400 and not request.content.is_eof():
        # What is left of a body that nobody wants is not the next request.
        answer.force_close()
    return answer
