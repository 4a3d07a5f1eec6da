"""What the shelf decided, carried out in its order: stored in one transaction first, then said, then acted upon."""

import asyncio
import contextlib
import logging
import sqlite3
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.memory import Memory
from agent.unit import Effects, moment
from wire.payloads import encode

if TYPE_CHECKING:
    from agent.daemon import Agent

log = logging.getLogger(__name__)

POWER_TASK = "power-"
"""How tasks are named that switch power: a clean stop waits for these."""
NO_DEADLINE_S = 3600.0
"""How long the deadline task sleeps when no board is coming up; a change of any board wakes it."""


class EffectQueue:
    """Effects of all boards of one agent, one after the other."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._waiting: asyncio.Queue[tuple[Effects, asyncio.Future[None] | None]] = asyncio.Queue()
        self._deadlines_changed = asyncio.Event()
        self._unstored: set[str] = set()
        """Boards whose last state the disk did not take; it goes with what is stored next."""

    def submit(self, effects: Effects) -> None:
        """Have `effects` applied, after those that came before."""
        self._waiting.put_nowait((effects, None))

    async def apply(self, effects: Effects) -> None:
        """As `submit`, and wait until they are stored and their state is being said."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((effects, done))
        await done

    async def run(self) -> None:
        """Apply what comes, until cancelled."""
        while True:
            effects, done = await self._waiting.get()
            await self._apply(effects)
            if done is not None and not done.done():
                done.set_result(None)

    async def watch_deadlines(self) -> None:
        """Tell the shelf when a board's time is over, until cancelled."""
        agent = self._agent
        while True:
            self._deadlines_changed.clear()
            agent.submit_if_any(agent.shelf.tick(moment()))
            deadline = agent.shelf.next_deadline()
            wait_s = NO_DEADLINE_S if deadline is None else max(0.05, deadline - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._deadlines_changed.wait()

    async def _apply(self, effects: Effects) -> None:
        agent = self._agent
        # A reload may have taken the board out since; its events are still told.
        effects.changed = {board for board in effects.changed if board in agent.shelf}
        effects.alerts = [alert for alert in effects.alerts if alert[0] in agent.shelf or alert[2] is None]
        effects.cycle = [board for board in effects.cycle if board in agent.shelf]
        effects.enforce = [order for order in effects.enforce if order[0] in agent.shelf]
        if agent.energy is not None:
            for board in effects.changed:
                agent.energy.changed(board)
        await self._store(effects)
        for board in effects.changed & set(agent.shelf.boards):
            agent.voice.retain(agent.topics.board_state(board), encode(agent.shelf.state(board)))
        for board, name, alert in effects.alerts:
            agent.voice.retain(agent.topics.alert(board, name), b"" if alert is None else encode(alert))
        for board in effects.new_boot:
            agent.netboot.new_boot(board)
            agent.begin(agent.netboot.power_lost(board), f"chosen-boot-{board}")
        for due in agent.hooks.due(effects):
            agent.run_hooks(due)
        for board, action, purpose in effects.enforce:
            agent.begin(agent.commands.enforce(board, action, purpose), f"{POWER_TASK}enforce-{board}")
        for board in effects.cycle:
            agent.begin(agent.commands.cycle_for_boot(board), f"{POWER_TASK}boot-retry-{board}")
        for board, phase in effects.show:
            agent.begin(agent.power.show(board, phase), f"show-{board}")
        self._deadlines_changed.set()

    async def _store(self, effects: Effects) -> None:
        agent = self._agent
        boards = effects.changed | {board for board in self._unstored if board in agent.shelf}
        memories = {board: agent.shelf.memory(board) for board in boards}
        if not effects.events and not memories:
            return
        try:
            events = await agent.outbox.append(
                effects.events, datetime.now(UTC), also=lambda db: Memory.write_boards(db, memories)
            )
            self._unstored.clear()
        except sqlite3.Error:
            # A full disk must end neither power switching nor the truth about power; only the events are lost.
            self._unstored = boards
            log.exception("%s: cannot be written; not stored: %s", agent.settings.agent.state_dir, effects)
            events = []
        for event in events:
            if event.board in agent.shelf:
                agent.shelf.unit(event.board).seq = event.seq
        agent.voice.event_stored()
