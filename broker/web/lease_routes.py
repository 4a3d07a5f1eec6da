"""The API's leases: a board for a person, for a time."""

from typing import Annotated

from fastapi import APIRouter, Depends

from broker.web.access import Person, Role
from broker.web.asking import ANSWER_S, Data
from broker.web.desk import Desk
from broker.web.models import Extend, HandOver, Reserve

MOST_LEASES = 10_000


def _owned(lease: str, who: Person) -> dict[str, object]:
    """Whose lease it must be: one's own, or anybody's for an operator."""
    return {"lease": lease} if who.role.covers(Role.OPERATOR) else {"lease": lease, "holder": who.name}


def _without_token(answer: Data) -> Data:
    """The API switches a holder's board with the token itself; nobody has to see it."""
    return {key: value for key, value in answer.items() if key != "token"}


async def all_leases(desk: Desk, *, timeout_s: float = ANSWER_S) -> tuple[list[object], bool]:
    """Who holds which board, and who waits; and whether there are more than `MOST_LEASES`.

    Raises:
        broker.web.asking.AskError: the broker says no, or nothing.
    """
    found: list[object] = []
    more: object = True
    while more and len(found) < MOST_LEASES:
        part = await desk.asker.broker("leases", {"start": len(found)}, timeout_s=timeout_s)
        lines = part.get("leases")
        found += lines if isinstance(lines, list) else []
        more = part.get("more") and lines
    return found, bool(more)


def routes(desk: Desk) -> APIRouter:
    """The routes over `desk`."""
    router = APIRouter(tags=["leases"])
    reader = Annotated[Person, Depends(desk.guard.needs(Role.READER))]
    user = Annotated[Person, Depends(desk.guard.needs(Role.USER))]

    @router.get("/leases")
    async def leases(_who: reader) -> dict[str, object]:
        """Who holds which board, since when and why, and who waits."""
        found, more = await all_leases(desk)
        return {"leases": found, "more": more}

    @router.post("/leases", status_code=201)
    async def reserve(asked: Reserve, who: user) -> dict[str, object]:
        """Reserve a board."""
        data: dict[str, object] = {**asked.model_dump(exclude_none=True), "holder": who.name}
        return _without_token(await desk.asker.broker("reserve", data))

    @router.post("/leases/{lease}/extend")
    async def extend(lease: str, asked: Extend, who: user) -> dict[str, object]:
        """Hold it for so long from now on."""
        return _without_token(await desk.asker.broker("extend", {**_owned(lease, who), "for_s": asked.for_s}))

    @router.post("/leases/{lease}/release")
    async def release(lease: str, who: user) -> dict[str, object]:
        """Give the board back."""
        return await desk.asker.broker("release", _owned(lease, who))

    @router.post("/leases/{lease}/hand-over")
    async def hand_over(lease: str, asked: HandOver, who: user) -> dict[str, object]:
        """Give the board to somebody else, with the rest of its time."""
        return _without_token(await desk.asker.broker("hand-over", {**_owned(lease, who), "to": asked.to}))

    return router
