"""The API's word on boards' health, and a person's; boards that would join."""

from typing import Annotated

from fastapi import APIRouter, Depends

from broker.web.access import Person, Role
from broker.web.board_routes import HEARD_S
from broker.web.desk import Desk
from broker.web.farm_mirror import Change
from broker.web.guard import api_error
from broker.web.models import Trust
from wire.phases import ErrorKind


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

    @router.get("/strangers")
    async def strangers(_who: reader) -> list[dict[str, object]]:
        """Boards that asked to register and were refused: what they said, unproven, and why not."""
        return desk.strangers.all()

    @router.post("/strangers/{mac}/forget")
    async def forget(mac: str, _who: operator) -> dict[str, object]:
        """Take one off the list, until it asks again."""
        if not desk.strangers.forget(mac):
            raise api_error(ErrorKind.NOT_FOUND, f"{mac}: no such board has asked, or it is off the list already")
        desk.live.tell(Change("stranger", mac, {"mac": mac, "gone": True}))
        return {"mac": mac}

    @router.get("/agents/{agent}/strangers")
    async def on_the_wire(agent: str, _who: reader) -> dict[str, object]:
        """Who asked on the agent's board network (DHCP, TFTP) and is no board of its."""
        desk.known_agent(agent)
        # The agent tells it beside any board's boots.
        board = next((name for name in desk.mirror.board_names if desk.mirror.agent_of(name) == agent), None)
        if board is None:
            return {"strangers": []}
        found = await desk.asker.agent(agent, "netboot", {"board": board, "boots": 1}, timeout_s=HEARD_S)
        return {"strangers": found.get("strangers", [])}

    return router
