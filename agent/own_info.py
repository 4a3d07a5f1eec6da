"""What an agent tells of itself."""

import asyncio
import socket
from importlib.metadata import version

from agent.settings import AgentSettings
from wire import CONTRACT_VERSION
from wire.payloads import AgentInfo, ControllerInfo


async def of(settings: AgentSettings, controllers: list[ControllerInfo]) -> AgentInfo:
    """`agent/<agent>/info`, with `controllers` as they were just described."""
    return AgentInfo(
        version=await asyncio.to_thread(version, "boardhand"),
        contract=CONTRACT_VERSION,
        host=socket.gethostname(),
        controllers=controllers,
        consoles=[name for name, board in settings.boards.items() if board.console],
        boards=list(settings.boards),
        hooks=sorted({hook.at.value for hook in settings.hooks}),
    )
