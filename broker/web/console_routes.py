"""The API's consoles: a board's serial console as a WebSocket."""

import logging
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket
from fastapi.responses import JSONResponse

from broker.web.access import Person, Role
from broker.web.console_session import ConsoleSession, Surroundings
from broker.web.console_stream import text_of
from broker.web.desk import Desk
from broker.web.guard import ApiError
from broker.web.open_consoles import TooManyConsolesError

log = logging.getLogger(__name__)

TRY_LATER = 1013
"""WebSocket close code: the server is overloaded (IANA's registry of RFC 6455)."""


def routes(desk: Desk) -> APIRouter:
    """The routes over `desk`."""
    router = APIRouter(tags=["boards"])

    @router.websocket("/boards/{board}/console")
    async def console(browser: WebSocket, board: str, *, recorded: Annotated[bool, Query()] = True) -> None:
        """Binary messages are the board's bytes, and what is typed; the others are JSON (docs/web.md)."""

        def still() -> Person:
            return desk.guard.at_socket(browser, Role.READER)

        try:
            who = still()
            desk.known(board)
        except ApiError as error:
            problem = {"error": error.info.model_dump(mode="json", exclude_none=True)}
            await browser.send_denial_response(JSONResponse(problem, status_code=error.status))
            return
        await browser.accept()
        try:
            with desk.consoles.opened(who):
                log.info("%s reads the console of %s", who.name, board)
                around = Surroundings(desk.mirror, desk.asker, still)
                await ConsoleSession(board, who, browser, around, recorded=recorded).run()
        except TooManyConsolesError as error:
            await browser.send_text(text_of({"refused": str(error), "over": True}))
            await browser.close(TRY_LATER)

    return router
