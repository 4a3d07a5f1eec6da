"""The API's word on boards' health, and a person's."""

from typing import Annotated

from fastapi import APIRouter, Depends

from broker.web.access import Person, Role
from broker.web.desk import Desk
from broker.web.models import Trust


def routes(desk: Desk) -> APIRouter:
    """The routes over `desk`."""
    router = APIRouter(tags=["boards"])
    reader = Annotated[Person, Depends(desk.guard.needs(Role.READER))]
    operator = Annotated[Person, Depends(desk.guard.needs(Role.OPERATOR))]

    @router.get("/boards/{board}/health")
    async def health(board: str, _who: reader) -> dict[str, object]:
        """Whether the board is trusted with work, and the evidence where it is not."""
        return await desk.asker.broker("health", {"board": board})

    @router.post("/boards/{board}/trust/{what}")
    async def trust(board: str, what: Trust, _who: operator) -> dict[str, object]:
        """Accept a board, check it, retire it, or forget a retired one that no agent has any more."""
        return await desk.asker.broker(what, {"board": board})

    return router
