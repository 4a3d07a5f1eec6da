"""The API's boards: what they are, their timelines, and power that respects leases."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from broker.web.access import Person, Role
from broker.web.board_listing import BoardListing
from broker.web.desk import Desk
from broker.web.guard import ApiError, api_error
from broker.web.lease_rules import held_by_another
from broker.web.models import (
    AgentView,
    BoardView,
    Joining,
    Maintenance,
    Sleep,
    Switched,
    SwitchPower,
    Timeline,
)
from wire.payloads import Lease, PowerCommand
from wire.phases import ErrorKind, PowerAction

MOST_EVENTS = 500
HEARD_S = 5.0
"""A browser opens few connections at once: one that waits long for an agent holds up others."""


def routes(desk: Desk) -> APIRouter:
    """The routes over `desk`."""
    router = APIRouter(tags=["boards"])
    reader = Annotated[Person, Depends(desk.guard.needs(Role.READER))]
    user = Annotated[Person, Depends(desk.guard.needs(Role.USER))]
    operator = Annotated[Person, Depends(desk.guard.needs(Role.OPERATOR))]

    listing = BoardListing()

    @router.get("/boards", response_model=list[BoardView])
    async def boards(_who: reader) -> Response:
        """All boards of the farm."""
        return Response(listing.encoded(desk.mirror.boards()), media_type="application/json")

    @router.get("/boards/{board}")
    async def board(board: str, _who: reader) -> BoardView:
        """One board."""
        return BoardView.model_validate(desk.known(board), strict=False)

    @router.get("/boards/{board}/timeline")
    async def timeline(
        board: str,
        _who: reader,
        limit: Annotated[int, Query(ge=1, le=MOST_EVENTS)] = 100,
        before: Annotated[int | None, Query(ge=1)] = None,
    ) -> Timeline:
        """What happened to a board, the newest first; `before` is an event's `seq`."""
        desk.known(board)
        events = await desk.timeline.events(board, limit, before)
        return Timeline(events=events, more=len(events) == limit)

    @router.get("/boards/{board}/netboot")
    async def netboot(board: str, _who: reader) -> dict[str, object]:
        """What it would be served, why, and its last boots request by request."""
        return await desk.asker.agent(desk.agent_of(board), "netboot", {"board": board}, timeout_s=HEARD_S)

    @router.post("/boards/{board}/power")
    async def power(board: str, asked: SwitchPower, who: user) -> Switched:
        """Switch a board, and answer with what the hardware says then."""
        desk.agent_of(board)
        command = power_command(board, asked, who, desk.mirror.lease(board), datetime.now(UTC))
        result = await desk.asker.power(board, command)
        if result.error is not None:
            raise ApiError(result.error)
        return Switched(ok=result.ok, power=result.power, took_ms=result.took_ms)

    @router.post("/boards/{board}/maintenance")
    async def maintenance(board: str, asked: Maintenance, _who: operator) -> dict[str, object]:
        """Take a board out of work, or give it back."""
        return await desk.asker.agent(desk.agent_of(board), "maintenance", {"board": board, "on": asked.on})

    @router.post("/boards/{board}/rest/{what}")
    async def rest(board: str, what: Sleep, _who: operator) -> dict[str, object]:
        """Put an idle board to sleep, or wake one."""
        desk.known(board)
        return await desk.asker.broker(what, {"board": board})

    @router.get("/agents")
    async def agents(_who: reader) -> list[AgentView]:
        """The agents, with their controllers and boards."""
        return [AgentView.model_validate(found, strict=False) for found in desk.mirror.agents()]

    @router.post("/agents/{agent}/joining")
    async def joining(agent: str, asked: Joining, _who: operator) -> dict[str, object]:
        """Let unknown boards join for a time, or stop that."""
        desk.known_agent(agent)
        return await desk.asker.agent(agent, "joining", {"open": asked.open, "for_s": asked.for_s})

    return router


def power_command(board: str, asked: SwitchPower, who: Person, lease: Lease | None, now: datetime) -> PowerCommand:
    """The command that `who` may give: with the lease's token where the lease is his own.

    Raises:
        ApiError: the board is somebody else's, or nobody's and the role is not enough.
    """
    held = lease is not None and lease.expires > now
    if asked.force:
        if not who.role.covers(Role.ADMIN):
            raise api_error(ErrorKind.NOT_ALLOWED, f"{who.name} is {who.role.value}; only an admin may force")
        return PowerCommand(power=asked.power, force=True)
    if held and lease is not None:
        if (message := held_by_another(board, who, lease, now)) is not None:
            raise api_error(ErrorKind.NOT_ALLOWED, message, HTTPStatus.CONFLICT)
        return PowerCommand(power=asked.power, token=lease.token)
    if not who.role.covers(Role.OPERATOR):
        message = f"board {board}: nobody holds it; reserve it first, then it obeys you"
        raise api_error(ErrorKind.NOT_ALLOWED, message, HTTPStatus.CONFLICT)
    return PowerCommand(power=PowerAction(asked.power))
