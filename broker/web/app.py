"""The web application: routes, errors in the contract's words, and headers that keep the page to itself."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from broker.web import board_routes, console_routes, job_routes, lease_routes, trust_routes
from broker.web.access import SESSION_S, Person, Role
from broker.web.asking import AskError
from broker.web.desk import Desk
from broker.web.guard import HTTP_STATUS, OWN_HEADER, SESSION_COOKIE, ApiError, api_error
from broker.web.live import TooManyReadersError, stream
from broker.web.models import FarmView, Login, Me, Problem
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
HEADERS = {
    # xterm.js writes style elements for its colours and cell sizes; scripts come from files of ours alone.
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""The page loads nothing from elsewhere and is shown in nobody's frame."""
SCRAPE_S = 2.0
"""Prometheus waits ten seconds for all."""
PROBLEMS = {status: {"model": Problem} for status in (400, 401, 403, 404, 409, 429, 500, 502, 503, 504)}


def application(desk: Desk, closing: asyncio.Event) -> FastAPI:
    """The application over `desk`; streams end when `closing` is set."""
    app = FastAPI(
        title="boardhand",
        version=version("boardhand"),
        description="A farm of boards over HTTP. Everything here can be done over MQTT as well (docs/contract.md).",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    api = APIRouter(prefix="/api/v1", responses=dict(PROBLEMS))  # type: ignore[arg-type]  # keys are plain numbers
    api.include_router(_farm_routes(desk, closing))
    api.include_router(board_routes.routes(desk))
    api.include_router(console_routes.routes(desk))
    api.include_router(job_routes.routes(desk))
    api.include_router(lease_routes.routes(desk))
    api.include_router(trust_routes.routes(desk))
    app.include_router(api)
    _errors(app)

    @app.middleware("http")
    async def headers(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await go_on(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.url.path.startswith("/api/"):
            response.headers.setdefault("cache-control", "no-store")
        return response

    reader = Depends(desk.guard.needs(Role.READER))

    @app.get("/metrics", dependencies=[reader], response_class=PlainTextResponse, include_in_schema=False)
    async def metrics() -> PlainTextResponse:
        # Whoever waits for a board waits in the broker, which may be away.
        waiting: int | None = None
        try:
            leases, _ = await lease_routes.all_leases(desk, timeout_s=SCRAPE_S)
            waiting = sum(isinstance(lease, dict) and lease.get("board") is None for lease in leases)
        except AskError as error:
            log.debug("metrics: %s", error)
        return PlainTextResponse(desk.metrics.text(waiting), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


def _farm_routes(desk: Desk, closing: asyncio.Event) -> APIRouter:
    router = APIRouter(tags=["farm"])
    reader = Annotated[Person, Depends(desk.guard.needs(Role.READER))]

    @router.get("/farm")
    async def farm(who: reader) -> FarmView:
        """The farm in numbers, and who you are to it."""
        broker = desk.mirror.broker
        return FarmView(
            version=version("boardhand"),
            broker=None if broker is None else broker.state,
            phases=desk.mirror.phases(),
            watts=desk.mirror.watts(),
            you=who.name,
            role=who.role,
        )

    @router.get("/live", response_class=StreamingResponse)
    async def live(_who: reader) -> StreamingResponse:
        """Changes as server-sent events: `board`, `job`, `agent`, `broker`, `event`, `stranger`; `reload` says: read
        everything anew."""

        async def changes() -> AsyncIterator[bytes]:
            async with desk.live.reading() as queue:
                async for text in stream(queue, closing=closing):
                    yield text

        return StreamingResponse(changes(), media_type="text/event-stream")

    @router.get("/energy")
    async def energy(_who: reader, since_s: float = 86400, by: str | None = None) -> dict[str, object]:
        """What the boards used, as each agent says it; agents that do not meter are named."""
        reports: dict[str, object] = {}
        problems: dict[str, str] = {}
        asked: dict[str, object] = {"since": since_s} | ({} if by is None else {"by": by})
        names = [str(agent["agent"]) for agent in desk.mirror.agents() if desk.mirror.online(str(agent["agent"]))]
        answers = await asyncio.gather(
            *(desk.asker.agent(name, "energy", asked) for name in names), return_exceptions=True
        )
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, AskError):
                problems[name] = answer.info.message
            elif isinstance(answer, BaseException):
                raise answer
            else:
                reports[name] = answer
        return {"agents": reports, "problems": problems}

    _login_routes(router, desk)
    return router


def _login_routes(router: APIRouter, desk: Desk) -> None:
    @router.post("/login")
    async def login(asked: Login, request: Request, response: Response) -> Me:
        """Begin a browser's session with a token."""
        secret = desk.door.open_session(asked.token.strip(), asyncio.get_running_loop().time())
        person = desk.door.by_token(asked.token.strip())
        if secret is None or person is None:
            raise api_error(ErrorKind.NOT_ALLOWED, "this token is not known", HTTPStatus.UNAUTHORIZED)
        response.set_cookie(
            SESSION_COOKIE,
            secret,
            max_age=int(SESSION_S),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return Me(name=person.name, role=person.role)

    @router.post("/logout", status_code=204)
    async def logout(request: Request, response: Response) -> None:
        """End the browser's session."""
        if OWN_HEADER in request.headers and (secret := request.cookies.get(SESSION_COOKIE)) is not None:
            desk.door.close_session(secret)
            response.delete_cookie(SESSION_COOKIE)


def _problem(info: ErrorInfo, status: HTTPStatus) -> JSONResponse:
    return JSONResponse({"error": info.model_dump(mode="json", exclude_none=True)}, status_code=status)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api(_request: Request, error: ApiError) -> JSONResponse:
        return _problem(error.info, error.status)

    @app.exception_handler(AskError)
    async def ask(_request: Request, error: AskError) -> JSONResponse:
        return _problem(error.info, HTTP_STATUS[error.info.kind])

    @app.exception_handler(TooManyReadersError)
    async def readers(_request: Request, error: TooManyReadersError) -> JSONResponse:
        return _problem(ErrorInfo(kind=ErrorKind.BUSY, message=str(error)), HTTPStatus.TOO_MANY_REQUESTS)

    @app.exception_handler(RequestValidationError)
    async def validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != "body")
        info = ErrorInfo(kind=ErrorKind.BAD_REQUEST, message=f"{key}: {first['msg']}"[:4096], key=key[:256] or None)
        return _problem(info, HTTPStatus.BAD_REQUEST)
