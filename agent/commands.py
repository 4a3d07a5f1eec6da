"""Power commands from MQTT and from the agent itself: checked, done once, answered.

A command with an id is noted on disk before anything is switched, and its result after; the same id again gets the
stored result. A command that was under way when the agent was killed is answered `interrupted` with the read-back.
"""

import asyncio
import functools
import logging
import sqlite3
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent import bootloader_bridge, power_desk
from agent.hook_settings import HookPoint
from agent.outbox import NewEvent
from agent.power_desk import LeaseBook, Refused
from agent.shelf import BOOT_ALERT
from agent.unit import Effects
from wire.payloads import ErrorInfo, PowerCommand, PowerResult, encode
from wire.phases import ErrorKind, EventType, Power, PowerAction, Purpose

if TYPE_CHECKING:
    from agent.daemon import Agent

log = logging.getLogger(__name__)

Objection = Callable[[], ErrorInfo | None]
"""Why a board must not be switched now; None where it may."""

MAX_WAITING_PER_BOARD = 8
"""A person toggles; a program that sends more than this before the first is done is in a loop."""


def _result_name(board: str, command_id: str) -> str:
    """How a result is called that could not be stored; no transaction of an action's has such a name."""
    return f"power of {board}, command {command_id}"


class CommandDesk:
    """Carries out power commands, one at a time per board, in the order of their arrival."""

    def __init__(self, agent: "Agent", *, force_allowed: bool) -> None:
        self._agent = agent
        self._force_allowed = force_allowed
        self.leases = LeaseBook()
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: dict[str, int] = {}

    def follow(self, *, force_allowed: bool, gone: Iterable[str]) -> None:
        """The settings have changed; boards that are gone are listened to no more."""
        self._force_allowed = force_allowed
        for board in gone:
            self.leases.forget(board)

    def received(self, board: str, payload: bytes) -> None:
        """Take a message on `power/set`; answered in any case."""
        verdict = power_desk.judge(
            board, payload, now=datetime.now(UTC), leases=self.leases, force_allowed=self._force_allowed
        )
        if isinstance(verdict, Refused):
            log.warning("%s", verdict.error.message)
            self._refuse(board, verdict.id, None, verdict.error)
            return
        objection = self._objection(board, verdict)
        if objection is not None:
            self._refuse(board, verdict.id, verdict.power, objection)
            return
        self._agent.begin(self._carry_out(board, verdict), f"power-{board}")

    async def asked(
        self, board: str, action: PowerAction, *, min_off_s: float | None = None, token: int | None = None
    ) -> PowerResult:
        """Switch a board for somebody within the agent, or one who may show no lease's token, as pdudaemon's clients:
        checked as on MQTT, and answered to the caller alone. Never raises for hardware."""
        payload = encode(PowerCommand(power=action, token=token))
        verdict = power_desk.judge(board, payload, now=datetime.now(UTC), leases=self.leases, force_allowed=False)
        error = verdict.error if isinstance(verdict, Refused) else self._objection(board, verdict)
        if error is not None:
            power = self._agent.power.last(board)
            return PowerResult(ok=False, power=power, action=action, error=error, took_ms=0)
        busy = functools.partial(self._busy, board, action)
        return await self.switch(board, action, Purpose.OPERATOR, min_off_s=min_off_s, unless=busy)

    async def at_rest(self, board: str) -> None:
        """Wait for the commands under way that move the board's power, for an action that is to hold it. What waits
        behind them is refused when its turn comes."""
        moves = self._agent.power.moved_with
        for other, lock in list(self._locks.items()):
            if lock.locked() and (other == board or board in moves(other, PowerAction.CYCLE)):
                async with lock:
                    pass

    def _objection(self, board: str, command: PowerCommand) -> ErrorInfo | None:
        """Why a command that is in order cannot be taken now."""
        bound = self._bound_neighbour(board, command)
        if bound is not None:
            return bound
        if self._agent.stopping:
            message = f"board {board}: the agent is being stopped; try again later"
            return ErrorInfo(kind=ErrorKind.BUSY, message=message)
        busy = None if command.force and self._force_allowed else self._busy(board, command.power)
        if busy is not None:
            return busy
        if self._waiting.get(board, 0) >= MAX_WAITING_PER_BOARD:
            message = f"board {board}: {MAX_WAITING_PER_BOARD} commands wait already; try later"
            return ErrorInfo(kind=ErrorKind.BUSY, message=message)
        return None

    def _busy(self, board: str, power: PowerAction) -> ErrorInfo | None:
        """Which action wants the power left alone: the board's own, or of one that would lose its power with it."""
        found = self._first(board, power, self._agent.actions.objection)
        if found is None:
            return None
        return ErrorInfo(kind=ErrorKind.BUSY, message=f"board {board}: {found}; wait for it, or cancel it")

    def _first(self, board: str, power: PowerAction, objection: Callable[[str], str | None]) -> str | None:
        """The first objection of the board and those that would lose their power with it."""
        found = objection(board)
        if found is not None or power is PowerAction.ON:
            return found
        for other in self._agent.power.moved_with(board, power):
            found = objection(other)
            if found is not None:
                return f"shares its outlet with {other}, of which {found}"
        return None

    def _bound_neighbour(self, board: str, command: PowerCommand) -> ErrorInfo | None:
        """Why a board that would lose its power with this one must not."""
        if command.power is PowerAction.ON or (command.force and self._force_allowed):
            return None
        for other in self._agent.power.moved_with(board, command.power):
            lease = self.leases.held(other, datetime.now(UTC))
            if lease is not None and lease.token != command.token:
                message = f"board {board}: shares its outlet with {other}, which {lease.holder} has leased; wait for it"
                return ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message=message)
        return None

    def _refuse(self, board: str, command_id: str | None, action: PowerAction | None, error: ErrorInfo) -> None:
        power = self._agent.power.last(board)
        result = PowerResult(id=command_id, ok=False, power=power, action=action, error=error, took_ms=0)
        self._agent.voice.say(self._agent.topics.power_result(board), encode(result))

    async def _carry_out(self, board: str, command: PowerCommand) -> None:
        agent = self._agent
        if command.id is not None:
            try:
                new, stored = await agent.memory.begin_command(board, command.id)
            except sqlite3.Error as error:
                message = (
                    f"board {board}: {agent.settings.agent.state_dir} cannot be written ({error}), so once-only cannot "
                    "be promised; mend the disk, or send the command without an id"
                )
                info = ErrorInfo(kind=ErrorKind.INTERNAL, message=message)
                self._refuse(board, command.id, command.power, info)
                return
            if not new:
                stored = stored or agent.actions.unstored.get(_result_name(board, command.id))
                if stored is not None:
                    agent.voice.say(agent.topics.power_result(board), stored)
                return
        if command.force:
            self._tell_forced(board, command)
        force = command.force and self._force_allowed
        busy = None if force else functools.partial(self._busy, board, command.power)
        result = await self.switch(board, command.power, command.purpose, command.id, force=force, unless=busy)
        payload = encode(result)
        if command.id is not None:
            write = functools.partial(agent.memory.end_command, board, command.id)
            await agent.actions.unstored.keep(_result_name(board, command.id), payload, write)
        agent.voice.say(agent.topics.power_result(board), payload)

    def _tell_forced(self, board: str, command: PowerCommand) -> None:
        """Whoever held the board finds in its timeline what happened to it."""
        log.warning("board %s: %s forced", board, command.power.value)
        lease = self.leases.held(board, datetime.now(UTC))
        if lease is None or lease.token == command.token:
            return
        power = self._agent.power.last(board).value
        details: dict[str, object] = {"forced": command.power.value, "held_by": lease.holder, "power": power}
        self._agent.submit(Effects(events=[NewEvent(board, EventType.POWER, details)]))

    async def switch(
        self,
        board: str,
        action: PowerAction,
        purpose: Purpose,
        command_id: str | None = None,
        *,
        min_off_s: float | None = None,
        force: bool = False,
        unless: Objection | None = None,
    ) -> PowerResult:
        """Switch a board; the shelf knows before and after. Never raises for hardware. `unless` is asked when its turn
        has come: much may have happened since the command."""
        agent = self._agent
        lock = self._locks.setdefault(board, asyncio.Lock())
        self._waiting[board] = self._waiting.get(board, 0) + 1
        try:
            async with lock:
                error = await self._refusal(board, action, purpose, unless or (lambda: None))
                if error is not None:
                    power = agent.power.last(board) if board in agent.shelf else Power.UNKNOWN
                    return PowerResult(id=command_id, ok=False, power=power, action=action, error=error, took_ms=0)
                moved = [name for name in agent.power.moved_with(board, action) if name in agent.shelf]
                for name in (board, *moved):
                    agent.submit(agent.shelf.command_begun(name, action, purpose))
                bootloader_bridge.power_begins(agent, board, action)
                began = agent.moment().wall
                operation = f"{board}/{command_id or f'op-{uuid.uuid4()}'}"
                outcome = await agent.power.switch(
                    board, action, operation_id=operation, min_off_s=min_off_s, force=force
                )
                effects = Effects()
                for name in (name for name in (board, *moved) if name in agent.shelf):
                    power = outcome.power if name == board else agent.power.last(name)
                    effects.add(agent.shelf.command_ended(name, action, power, outcome.error, agent.moment()))
                if outcome.ok and action is PowerAction.CYCLE:
                    for name in (board, *moved):
                        agent.boots.cycled(name, began)
                await agent.apply(effects)
        finally:
            self._waiting[board] -= 1
        if outcome.error is not None:
            log.warning("board %s: %s: %s", board, action.value, outcome.error.message)
        return PowerResult(
            id=command_id,
            ok=outcome.ok,
            power=outcome.power,
            action=action,
            error=outcome.error,
            took_ms=round(outcome.took_ms, 3),
        )

    async def _refusal(self, board: str, action: PowerAction, purpose: Purpose, unless: Objection) -> ErrorInfo | None:
        """Why a board whose turn has come is not switched."""
        objection = unless()
        if objection is not None:
            return objection
        veto = await self._veto(board, self._agent.power.moved_with(board, action), action, purpose)
        if veto is not None:
            return ErrorInfo(kind=ErrorKind.REFUSED, message=f"board {board}: not switched; {veto}"[:4096])
        if board not in self._agent.shelf:
            return ErrorInfo(kind=ErrorKind.UNKNOWN_BOARD, message=f"board {board}: was taken out meanwhile")
        return unless()  # hooks take their time

    async def _veto(self, board: str, moved: Iterable[str], action: PowerAction, purpose: Purpose) -> str | None:
        """Why a hook of the admin's does not want this board, or one that moves with it, to get power now."""
        if action is PowerAction.OFF:
            return None
        facts = {"action": action.value, "purpose": purpose.value}
        for name in (board, *moved):
            veto = await self._agent.hooks.run(HookPoint.BEFORE_POWER_ON, name, facts)
            if veto is not None:
                return veto
        return None

    async def enforce(self, board: str, action: PowerAction, purpose: Purpose) -> None:
        """Somebody else changed the board's power, and its settings want it back; after an action that holds it."""
        agent = self._agent
        log.warning("board %s: its power was changed by somebody else; switching it %s", board, action.value)
        result = await self.switch(board, action, purpose, unless=functools.partial(self._busy, board, action))
        if result.error is not None and result.error.kind is ErrorKind.BUSY and board in agent.shelf:
            agent.shelf.unit(board).watch.try_again(agent.moment().monotonic)
            agent.submit(Effects())  # the deadlines are looked at anew

    async def cycle_for_boot(self, board: str) -> None:
        """The board did not come up: cycle it once, unless somebody has switched it meanwhile. Where an action is under
        way it is left alone: the retry is not spent, and comes when the board is late once more."""
        agent = self._agent
        if board not in agent.shelf or not agent.shelf.unit(board).life.phase.coming_up:
            return
        unless = functools.partial(self._no_retry, board, agent.shelf.unit(board).life.boot_deadline)
        result = await self.switch(board, PowerAction.CYCLE, Purpose.OPERATOR, unless=unless)
        if result.error is None or result.error.kind is not ErrorKind.BUSY or board not in agent.shelf:
            return
        life = agent.shelf.unit(board).life
        life.retries_left, life.retrying = min(life.retries_left + 1, life.boot_retries), False
        details: dict[str, object] = {"name": BOOT_ALERT, "what": f"not cycled now: {result.error.message}"}
        agent.submit(Effects(events=[NewEvent(board, EventType.ALERT, details)]))

    def _no_retry(self, board: str, deadline: float | None) -> ErrorInfo | None:
        """Why a board that was late is not cycled when its turn has come; `deadline` is that of the retry."""
        if board not in self._agent.shelf:
            return ErrorInfo(kind=ErrorKind.UNKNOWN_BOARD, message=f"board {board}: was taken out meanwhile")
        life = self._agent.shelf.unit(board).life
        found = self._first(board, PowerAction.CYCLE, self._agent.actions.retry_objection)
        if found is None and (not life.phase.coming_up or life.boot_deadline != deadline):
            found = "was switched, or came up, meanwhile"
        return None if found is None else ErrorInfo(kind=ErrorKind.BUSY, message=f"board {board}: {found}")

    async def answer_interrupted(self) -> None:
        """Answer the commands that a killed agent left without a result."""
        agent = self._agent
        for board, command_id in await agent.memory.interrupted_commands():
            power = agent.power.last(board) if board in agent.shelf else Power.UNKNOWN
            message = f"board {board}: the agent was stopped while this was under way; power reads {power.value} now"
            error = ErrorInfo(kind=ErrorKind.INTERRUPTED, message=message)
            payload = encode(PowerResult(id=command_id, ok=False, power=power, error=error, took_ms=0))
            await agent.memory.end_command(board, command_id, payload)
            if board in agent.shelf:
                agent.voice.say(agent.topics.power_result(board), payload)
