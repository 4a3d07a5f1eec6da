"""`agent/<agent>/request/<verb>`: questions and orders about the agent itself, each answered with its transaction."""

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime

from wire.payloads import ErrorInfo, PayloadError, Request, Response, decode
from wire.phases import ErrorKind

log = logging.getLogger(__name__)

Answer = dict[str, object]
Handler = Callable[[dict[str, object]], Awaitable[Answer]]


class RequestError(Exception):
    """A request that is answered with an error."""

    def __init__(self, kind: ErrorKind, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.info = ErrorInfo(kind=kind, message=message, key=key)


def text(data: Mapping[str, object], key: str) -> str:
    """A text value of a request.

    Raises:
        RequestError: it is missing or no text.
    """
    value = data.get(key)
    if not isinstance(value, str):
        raise RequestError(ErrorKind.BAD_REQUEST, f"{key}: a text is needed", key)
    return value


def flag(data: Mapping[str, object], key: str) -> bool:
    """A true or false of a request.

    Raises:
        RequestError: it is missing or neither.
    """
    value = data.get(key)
    if not isinstance(value, bool):
        raise RequestError(ErrorKind.BAD_REQUEST, f"{key}: true or false is needed", key)
    return value


async def answer(
    verb: str, payload: bytes, handlers: Mapping[str, Handler], now: datetime, *, also: Iterable[str] = ()
) -> Response:
    """The response to one request; whatever is wrong with it becomes an error in the response. `also` are verbs that
    others answer, for the list of what may be asked."""
    try:
        request = decode(Request, payload)
    except PayloadError as error:
        info = ErrorInfo(kind=ErrorKind.BAD_REQUEST, message=str(error)[:4096], key=error.key[:256] or None)
        return Response(ok=False, error=info)
    if request.expires is not None and request.expires <= now:
        late = ErrorInfo(kind=ErrorKind.EXPIRED, message="the request came after its time; send it again")
        return Response(transaction=request.transaction, ok=False, error=late)
    handler = handlers.get(verb)
    if handler is None:
        known = ", ".join(sorted([*handlers, *also]))
        info = ErrorInfo(kind=ErrorKind.NOT_FOUND, message=f"there is no request {verb}; known are {known}")
        return Response(transaction=request.transaction, ok=False, error=info)
    try:
        data = await handler(request.data)
    except RequestError as error:
        return Response(transaction=request.transaction, ok=False, error=error.info)
    except sqlite3.Error as error:
        log.exception("request %s: the state file cannot be read or written", verb)
        message = (
            f"{verb}: the agent's state file cannot be read or written ({error}); make room on its disk, or mend it"
        )
        info = ErrorInfo(kind=ErrorKind.INTERNAL, message=message[:4096])
        return Response(transaction=request.transaction, ok=False, error=info)
    return Response(transaction=request.transaction, ok=True, data=data)
