"""Lets requests in: a bearer token for programs, a session cookie for browsers, and what each role may."""

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.requests import HTTPConnection

from broker.web.access import Door, Person, Role
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind

SESSION_COOKIE = "boardhand_session"
OWN_HEADER = "x-boardhand"
"""Browsers send cookies with requests that other sites made them send; this header they do not."""
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

HTTP_STATUS = {
    ErrorKind.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
    ErrorKind.EXPIRED: HTTPStatus.GONE,
    ErrorKind.NOT_ALLOWED: HTTPStatus.FORBIDDEN,
    ErrorKind.UNKNOWN_BOARD: HTTPStatus.NOT_FOUND,
    ErrorKind.NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorKind.CONFIGURATION: HTTPStatus.CONFLICT,
    ErrorKind.AUTHENTICATION: HTTPStatus.BAD_GATEWAY,
    ErrorKind.UNREACHABLE: HTTPStatus.GATEWAY_TIMEOUT,
    ErrorKind.REFUSED: HTTPStatus.CONFLICT,
    ErrorKind.NOT_VERIFIED: HTTPStatus.BAD_GATEWAY,
    ErrorKind.INTERRUPTED: HTTPStatus.BAD_GATEWAY,
    ErrorKind.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorKind.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(self, info: ErrorInfo, status: HTTPStatus | None = None) -> None:
        super().__init__(info.message)
        self.info = info
        self.status = status or HTTP_STATUS[info.kind]


def api_error(kind: ErrorKind, message: str, status: HTTPStatus | None = None, key: str | None = None) -> ApiError:
    """An error in the contract's words."""
    return ApiError(ErrorInfo(kind=kind, message=message[:4096], key=key), status)


class Guard:
    """Says who asks, and stops who may not."""

    def __init__(self, door: Door, *, anonymous: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._door = door
        self._anonymous = anonymous
        self._clock = clock

    def person(self, request: Request) -> Person | None:
        """Who asks; None for somebody without a token.

        Raises:
            ApiError: a token or cookie was shown that is not good, or a browser was made to send this by another site.
        """
        by_token = self._by_token(request)
        if by_token is not None:
            return by_token
        cookie = request.cookies.get(SESSION_COOKIE)
        if cookie is None:
            return None
        if request.method not in SAFE_METHODS and OWN_HEADER not in request.headers:
            raise api_error(ErrorKind.NOT_ALLOWED, f"with a cookie, the header {OWN_HEADER} is needed, too")
        return self._door.by_session(cookie, self._clock())

    def _by_token(self, request: HTTPConnection) -> Person | None:
        """Who shows a token; None where none is shown.

        Raises:
            ApiError: it is nobody's.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return None
        person = self._door.by_token(token.strip()) if scheme.lower() == "bearer" else None
        if person is None:
            message = "this token is not known: ask the admin of the farm for one ('boardhand token')"
            raise api_error(ErrorKind.NOT_ALLOWED, message, HTTPStatus.UNAUTHORIZED)
        return person

    def at_socket(self, request: HTTPConnection, role: Role) -> Person:
        """Who opens a WebSocket, or still has it open, if the role is enough. Browsers let any page open one anywhere
        and send the cookie along, and no header can be asked for; but they say whose page it is (RFC 6455, 10.2).

        Raises:
            ApiError: nobody is known by what is shown, or it is another site's page.
        """
        origin = request.headers.get("origin")
        person = self._by_token(request)
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            message = f"a page of {origin[:100]} may not open this; behind a proxy, let it hand on the Host header"
            raise api_error(ErrorKind.NOT_ALLOWED, message)
        cookie = request.cookies.get(SESSION_COOKIE)
        if person is None and cookie is not None and origin is not None:
            person = self._door.by_session(cookie, self._clock())
        return self._enough(person, role)

    def _enough(self, person: Person | None, role: Role) -> Person:
        if person is None:
            if self._anonymous and role is Role.READER:
                return Person("anonymous", Role.READER)
            message = "show a token: 'Authorization: Bearer TOKEN', or log in on the page"
            raise api_error(ErrorKind.NOT_ALLOWED, message, HTTPStatus.UNAUTHORIZED)
        if not person.role.covers(role):
            message = f"{person.name} is {person.role.value}; this is for {role.value}s"
            raise api_error(ErrorKind.NOT_ALLOWED, message)
        return person

    def needs(self, role: Role) -> Callable[[Request], Awaitable[Person]]:
        """A dependency of FastAPI: the person who asks, if the role is enough."""

        async def check(request: Request) -> Person:
            return self._enough(self.person(request), role)

        return check
