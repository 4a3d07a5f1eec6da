"""The stand-ins of an agent, for its boards without a client, and what they need of it."""

import asyncio
import functools
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.console_steps import StandIn, StandInCalls
from agent.hook_settings import HookPoint
from agent.hooks import DueHooks
from daemon.mqtt_link import Message, MqttLink, Will
from wire.payloads import PayloadError, WorkOutcome, decode, encode
from wire.phases import LeaseKind, Phase, Power

if TYPE_CHECKING:
    from agent.daemon import Agent


log = logging.getLogger(__name__)


class ConsoleSteps:
    """All stand-ins of one agent, between `start` and `stop`."""

    def __init__(self, agent: "Agent", boards: Sequence[str]) -> None:
        """`boards` have `client = "console"`."""
        self._agent = agent
        self._boards = boards
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Begin to look for shells. What a killed agent left is told as interrupted; nothing of it is run again.

        Raises:
            sqlite3.Error: the state file cannot be used.
        """
        await self._begin(self._boards)

    async def follow(self, boards: Sequence[str], touched: Collection[str]) -> None:
        """Stand in for these boards from now on; for those `touched` anew: their consoles are others.

        Raises:
            sqlite3.Error: the state file cannot be used.
        """
        await self._end([board for board in self._tasks if board in touched or board not in boards])
        await self._begin([board for board in boards if board not in self._tasks])

    async def _begin(self, boards: Sequence[str]) -> None:
        agent = self._agent
        phases = {board: agent.shelf.unit(board).life.phase for board in boards}
        calls = StandInCalls(
            is_on=functools.partial(_is_on, agent),
            was_up=lambda board: phases.get(board) in {Phase.READY, Phase.BUSY},
            person_holds=functools.partial(_person_holds, agent),
            token=functools.partial(_token, agent),
            register=functools.partial(_register, agent),
            keep=functools.partial(_keep, agent),
            link=functools.partial(_link, agent),
        )
        for board in boards:
            await _tell_interrupted(agent, board)
            shell = agent.consoles.shells[board]
            stand_in = StandIn(shell, agent.name, agent.topics, calls)
            task = asyncio.create_task(stand_in.run(), name=f"console steps {board}")
            task.add_done_callback(_ended)
            self._tasks[board] = task

    async def stop(self) -> None:
        """End what runs, and say offline for the boards."""
        await self._end(list(self._tasks))

    async def _end(self, boards: Collection[str]) -> None:
        ending = [self._tasks.pop(board) for board in boards]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


def _ended(task: asyncio.Task[None]) -> None:
    """A fault of ours costs this one board, and is shown whole."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.error("%s failed", task.get_name(), exc_info=fault)


def _fact(board: str) -> str:
    return f"console-steps/{board}"


async def _tell_interrupted(agent: "Agent", board: str) -> None:
    stored = await agent.memory.fact(_fact(board))
    if stored is None:
        return
    try:
        outcome = decode(WorkOutcome, json.dumps(stored).encode())
    except PayloadError as error:
        # Of another version: the broker sees that the board has another boot.
        log.warning("board %s: the end of its last job cannot be read: %s", board, error)
    else:
        agent.voice.say(agent.topics.work_result(board), encode(outcome))
    await agent.memory.remember(_fact(board), None)


def _is_on(agent: "Agent", board: str) -> bool:
    if board not in agent.shelf:
        return False  # it is being taken out of the settings
    unit = agent.shelf.unit(board)
    return unit.power is not Power.OFF and unit.life.phase not in {Phase.MAINTENANCE, Phase.UNCLAIMED}


def _person_holds(agent: "Agent", board: str) -> bool:
    lease = agent.commands.leases.held(board, datetime.now(UTC))
    return lease is not None and lease.kind is LeaseKind.PERSON


def _token(agent: "Agent", board: str) -> int | None:
    lease = agent.commands.leases.held(board, datetime.now(UTC))
    return None if lease is None else lease.token


async def _register(agent: "Agent", board: str, boot_id: str) -> None:
    """As a board that has proved itself: its cable is the proof. Stored before it is said."""
    agent.boots.registered(board, boot_id)
    details: dict[str, object] = {"client": f"agent {agent.name}, on its console"}
    await agent.apply(agent.shelf.registered(board, boot_id, details))
    await agent.netboot.registered(board)
    agent.run_hooks(DueHooks(HookPoint.AFTER_REGISTRATION, board, {"boot_id": boot_id}))


async def _keep(agent: "Agent", board: str, outcome: WorkOutcome | None) -> None:
    value = None if outcome is None else outcome.model_dump(mode="json")
    try:
        await agent.memory.remember(_fact(board), value)
    except sqlite3.Error as error:
        # The job goes on; if we are killed now, the broker learns of it by the board's next boot.
        log.error("board %s: the state of its job cannot be stored: %s", board, error)  # noqa: TRY400  # a full disk


def _link(
    agent: "Agent",
    board: str,
    will: Will,
    on_message: Callable[[Message], None],
    on_connect: Callable[[], Awaitable[None]],
) -> MqttLink:
    return MqttLink(
        agent.settings.mqtt,
        f"boardhand-console-{board}"[:64],
        will=will,
        subscriptions=[agent.topics.work(board)],
        on_message=on_message,
        on_connect=on_connect,
    )
