"""Roots, as the agent tells of them: events of a board, and an alert where its root is in trouble."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.hook_settings import HookPoint
from agent.outbox import NewEvent
from agent.unit import Effects
from wire.payloads import Alert
from wire.phases import EventType

if TYPE_CHECKING:
    from agent.daemon import Agent
    from agent.roots_desk import RootsDesk

ROOT_ALERT = "root"
_ADVICE = "ask the agent: request 'roots' with check; look at the agent's log and at the NFS server"


def roots_desk(agent: "Agent") -> "RootsDesk | None":
    """The desk of an agent's roots, None where it has no `[roots]` table."""
    if agent.settings.roots is None:
        return None
    from agent.roots_desk import RootsDesk  # noqa: PLC0415  # few need it, and what it brings is large

    watch = _RootWatch(agent)
    return RootsDesk(agent.settings, job=watch.job, told=watch.told, alarm=watch.alarm, may_reset=watch.may_reset)


class _RootWatch:
    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._raised: set[str] = set()

    def job(self, board: str) -> str:
        lease = self._agent.commands.leases.held(board, datetime.now(UTC))
        return "" if lease is None else f"{lease.holder}:{lease.token}"

    async def may_reset(self, board: str, root: str) -> str | None:
        return await self._agent.hooks.run(HookPoint.BEFORE_ROOT_RESET, board, {"root": root})

    def told(self, board: str, details: dict[str, object]) -> None:
        self._agent.submit(Effects(events=[NewEvent(board, EventType.ROOT, details)]))

    def alarm(self, boards: Sequence[str], trouble: str | None) -> None:
        effects = Effects()
        alert = None if trouble is None else Alert(what=trouble[:1024], since=datetime.now(UTC), do=_ADVICE)
        for board in boards:
            effects.alerts.append((board, ROOT_ALERT, alert))
            if trouble is not None:
                self._raised.add(board)
                details: dict[str, object] = {"name": ROOT_ALERT, "what": trouble}
                effects.events.append(NewEvent(board, EventType.ALERT, details))
            elif board in self._raised:
                self._raised.discard(board)
                effects.events.append(NewEvent(board, EventType.ALERT, {"name": ROOT_ALERT, "cleared": True}))
        self._agent.submit(effects)
