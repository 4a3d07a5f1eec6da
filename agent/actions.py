"""Requests that take time or reach below a board's system: console, bootloader, mode, flash.

They have in common: one at a time per board, the lease, progress as events, an end that is told, done once per
transaction. What they do is in their desks.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent import power_desk
from agent.action_store import ActionStore
from agent.outbox import NewEvent
from agent.requests import Answer, RequestError, text
from agent.unit import Effects
from agent.unstored_ends import UnstoredEnds
from wire.payloads import ErrorInfo, PayloadError, Request, Response, decode, encode
from wire.phases import ErrorKind, EventType

if TYPE_CHECKING:
    from agent.daemon import Agent

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 1.0
"""How often one stage may tell how far it is: a person reads no faster, and each is an event that is stored."""
WHOLE_PERCENT = 100.0
MAX_TIMEOUT_S = 24 * 3600.0
"""The longest `timeout_s` a request may ask for; the slowest flash known takes an hour."""
LETS_RETRY = frozenset({"console-expect"})
"""Actions during which a board that does not come up is cycled as ever."""
STOP_GRACE_S = 10.0
"""For actions to put their boards back when the agent stops; the agent's own grace for power comes after."""
END_TOLD_S = 2.0
"""For the ends of those to be stored and said; else the next start says that they were interrupted."""
REASON_CHARACTERS = 1000
"""Of a reason in an event; the whole one is in the response."""


@dataclass(slots=True)
class Progress:
    """How far an action is; call it in the event loop, as often as you like.

    A stage's first call and one at 100 per cent are told at once, others once in `PROGRESS_EVERY_S`. What comes between
    is held back, and its last told when that time is over, or before the next stage and the end.
    """

    tell: Callable[[dict[str, object]], None]
    _stage: str = ""
    _told: dict[str, object] | None = None
    _told_s: float = -PROGRESS_EVERY_S
    _held: dict[str, object] | None = None
    _timer: asyncio.TimerHandle | None = None
    _ended: bool = False

    def __call__(self, stage: str, percent: float | None = None, message: str = "") -> None:
        if self._ended:
            return
        details: dict[str, object] = {"stage": stage}
        if percent is not None:
            details["percent"] = round(min(WHOLE_PERCENT, max(0.0, percent)), 1)
        if message:
            details["message"] = message[:REASON_CHARACTERS]
        due_s = self._told_s + PROGRESS_EVERY_S - time.monotonic()
        if stage != self._stage:
            self._flush()
        elif due_s > 0 and (details == self._told or percent is None or percent < WHOLE_PERCENT):
            self._hold(None if details == self._told else details, due_s)
            return
        self._stage, self._held = stage, details
        self._flush()

    def end(self) -> None:
        """Tell what was held back; what a thread of the action's still says is not told after its end."""
        self._flush()
        self._ended = True

    def _hold(self, details: dict[str, object] | None, due_s: float) -> None:
        self._held = details
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(due_s, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        details, self._held = self._held, None
        if details is not None:
            self._told, self._told_s = details, time.monotonic()
            self.tell(details)


ActionWork = Callable[[str, dict[str, object], Progress], Awaitable[Answer]]
"""`work(board, data, progress)`: does it and returns what is answered. Raises `RequestError` for what went wrong; when
it is cancelled it puts the board back."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One verb."""

    work: ActionWork
    holds_power: bool
    """Whether others may not switch the board meanwhile: a board that loses its power in a flash is a brick."""


@dataclass(slots=True)
class Running:
    """An action under way."""

    transaction: str
    board: str
    verb: str
    holds_power: bool
    task: asyncio.Task[Answer]
    answering: asyncio.Task[object] | None
    """Stores its end and says it, when `task` is done."""
    why_cancelled: str | None = field(default=None)

    def cut(self, why: str) -> None:
        """Cancel it, once: a second cancellation would hit it while it puts its board back."""
        if self.why_cancelled is None:
            self.why_cancelled = why
            self.task.cancel()


class Actions:
    """The actions of one agent."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._kinds: dict[str, Kind] = {}
        self._running: dict[str, Running] = {}
        self._store: ActionStore | None = None
        self.unstored = UnstoredEnds(agent)
        self._closed: set[str] = set()

    def add(self, verb: str, work: ActionWork, *, holds_power: bool = False) -> None:
        """Take `agent/<agent>/request/<verb>` for `work`."""
        self._kinds[verb] = Kind(work, holds_power)

    def __contains__(self, verb: str) -> bool:
        return verb in self._kinds

    @property
    def verbs(self) -> list[str]:
        """What may be asked for."""
        return sorted(self._kinds)

    async def start(self, store: ActionStore) -> list[tuple[str, str]]:
        """Begin to take requests. What a killed agent left without an end is told as interrupted and returned as
        `(board, verb)`.

        Raises:
            sqlite3.Error: the state file cannot be used.
        """
        self._store = store
        self.unstored.start(store)
        found = []
        for action in await store.interrupted():
            message = f"board {action.board}: the agent was stopped while {action.verb} was under way"
            response = _failed(action.transaction, ErrorInfo(kind=ErrorKind.INTERRUPTED, message=message))
            await self.unstored.end(action.transaction, encode(response))
            if action.board in self._agent.shelf:
                self._tell(action.board, action.verb, action.transaction, {"stage": "failed", "reason": message})
                found.append((action.board, action.verb))
        return found

    def under_way(self, board: str) -> str | None:
        """The verb of the board's action; None where there is none."""
        running = self._running.get(board)
        return None if running is None else running.verb

    def objection(self, board: str) -> str | None:
        """Why the board's power must be left alone now."""
        running = self._running.get(board)
        if running is None and board in self._agent.modes.recovering:
            return "it is being put back after what the agent's last end cut short"
        return f"{running.verb} is under way" if running is not None and running.holds_power else None

    def retry_objection(self, board: str) -> str | None:
        """Why a board that is late must not be cycled for it now: also what does not hold its power, as a boot loader's
        dialogue, would have to begin anew. Who waits for words on the console is waiting for that boot."""
        running = self._running.get(board)
        if running is None or running.verb in LETS_RETRY:
            return self.objection(board)
        return f"{running.verb} is under way"

    @contextmanager
    def closed(self, boards: Collection[str]) -> Iterator[None]:
        """Begin nothing on these boards meanwhile: their settings are being changed."""
        self._closed.update(boards)
        try:
            yield
        finally:
            self._closed.difference_update(boards)

    async def answer(self, verb: str, payload: bytes, now: datetime) -> Response | None:
        """The response to one request, when it has ended. None: the same request is under way, and will be answered."""
        try:
            request = decode(Request, payload)
        except PayloadError as error:
            info = ErrorInfo(kind=ErrorKind.BAD_REQUEST, message=str(error)[:4096], key=error.key[:256] or None)
            return Response(ok=False, error=info)
        if request.expires is not None and request.expires <= now:
            late = ErrorInfo(kind=ErrorKind.EXPIRED, message="the request came after its time; send it again")
            return _failed(request.transaction, late)
        try:
            return await self._once(verb, request)
        except RequestError as error:
            return _failed(request.transaction, error.info)

    async def cancel(self, data: dict[str, object]) -> Answer:
        """End a board's action: request `cancel-action` with `board`, the lease's `token`, and maybe `transaction`.

        Raises:
            RequestError: nothing is under way, or a lease stands against it.
        """
        board = self._board(data)
        running = self._running.get(board)
        wanted = data.get("transaction")
        if running is None or (wanted is not None and wanted != running.transaction):
            raise RequestError(ErrorKind.NOT_FOUND, f"board {board}: no such action is under way", "board")
        running.cut("it was cancelled on request")
        return {"board": board, "cancelled": running.verb, "transaction": running.transaction}

    async def stop(self) -> None:
        """Cancel what is under way, and give it the time to put its boards back."""
        running = list(self._running.values())
        for action in running:
            action.cut("the agent is being stopped")
        if running:
            await asyncio.wait([action.task for action in running], timeout=STOP_GRACE_S)
        ends = [action.answering for action in running if action.answering is not None and action.task.done()]
        if ends:
            await asyncio.wait(ends, timeout=END_TOLD_S)
        await self.unstored.stop()

    # --- one request -----------------------------------------------------------------------------------------

    def _board(self, data: dict[str, object]) -> str:
        board = text(data, "board")
        if board not in self._agent.shelf:
            raise RequestError(ErrorKind.UNKNOWN_BOARD, f"agent {self._agent.name} has no board {board}", "board")
        token = data.get("token")
        if token is not None and (not isinstance(token, int) or isinstance(token, bool)):
            raise RequestError(ErrorKind.BAD_REQUEST, "token: the number of the board's lease is needed", "token")
        problem = power_desk.lease_problem(board, token, self._agent.commands.leases, datetime.now(UTC))
        if problem is not None:
            raise RequestError(problem.kind, problem.message, problem.key)
        return board

    async def _once(self, verb: str, request: Request) -> Response | None:
        store, transaction = self._store, request.transaction
        if store is None or self._agent.stopping:
            raise RequestError(ErrorKind.BUSY, f"agent {self._agent.name} is starting or stopping; try again")
        timeout_s = _timeout(request.data)
        board = text(request.data, "board")
        under_way = self._running.get(board)
        if under_way is not None and under_way.transaction == transaction:
            return None
        try:
            new, before = await store.begin(transaction, board, verb)
        except sqlite3.Error as error:
            state_dir = self._agent.settings.agent.state_dir
            message = f"{verb}: {state_dir} cannot be written ({error}), so once-only cannot be promised; mend the disk"
            raise RequestError(ErrorKind.INTERNAL, message[:4096]) from error
        if not new:
            before = self.unstored.get(transaction) if before is None else before
            return None if before is None else decode(Response, before)
        response = await self._run(verb, request, timeout_s)
        # It is done, whether that can be stored or not.
        await self.unstored.end(transaction, encode(response))
        return response

    async def _run(self, verb: str, request: Request, timeout_s: float | None) -> Response:
        kind, transaction = self._kinds[verb], request.transaction
        try:
            board = self._board(request.data)
        except RequestError as error:
            return _failed(transaction, error.info)
        under_way = self._running.get(board)
        if under_way is not None:
            message = f"board {board}: {under_way.verb} is under way; wait for it, or cancel it by cancel-action"
            return _failed(transaction, ErrorInfo(kind=ErrorKind.BUSY, message=message))
        if board in self._closed:
            message = f"board {board}: its settings are being changed; try again"
            return _failed(transaction, ErrorInfo(kind=ErrorKind.BUSY, message=message))

        def tell(details: dict[str, object]) -> None:
            self._tell(board, verb, transaction, details)

        progress = Progress(tell)
        task = asyncio.ensure_future(self._work(kind, board, request.data, progress))
        running = Running(transaction, board, verb, kind.holds_power, task, asyncio.current_task())
        self._running[board] = running
        tell({"stage": "begun"})
        try:
            _, pending = await asyncio.wait({task}, timeout=timeout_s)
            if pending:
                running.cut(f"it did not end within timeout_s, {timeout_s:g} s")
                await asyncio.wait({task})
        finally:
            # Cancelled ourselves, or done: nothing of it goes on without us.
            task.cancel()
            if self._running.get(board) is running:
                del self._running[board]
            progress.end()
        response = _response(running)
        end: dict[str, object] = {"stage": "done"}
        if response.error is not None:
            end = {"stage": "failed", "reason": response.error.message[:REASON_CHARACTERS]}
        tell(end)
        return response

    async def _work(self, kind: Kind, board: str, data: dict[str, object], progress: Progress) -> Answer:
        if kind.holds_power:
            # A cycle that began before us would cut the power in our middle.
            await self._agent.commands.at_rest(board)
        return await kind.work(board, data, progress)

    def _tell(self, board: str, verb: str, transaction: str, details: dict[str, object]) -> None:
        facts: dict[str, object] = {"action": verb, "transaction": transaction, **details}
        self._agent.submit(Effects(events=[NewEvent(board, EventType.ACTION, facts)]))


def _response(running: Running) -> Response:
    """What an ended task means."""
    task, name = running.task, f"board {running.board}: {running.verb}"
    if task.cancelled():
        kind = ErrorKind.INTERRUPTED
        info = ErrorInfo(kind=kind, message=f"{name}: {running.why_cancelled or 'it was cut short'}")
        return _failed(running.transaction, info)
    fault = task.exception()
    if fault is None:
        return Response(transaction=running.transaction, ok=True, data=task.result())
    if isinstance(fault, RequestError):
        return _failed(running.transaction, fault.info)
    log.error("%s failed", name, exc_info=fault)
    message = f"{name}: a fault of the agent's; its log has it ({type(fault).__name__})"
    return _failed(running.transaction, ErrorInfo(kind=ErrorKind.INTERNAL, message=message))


def _failed(transaction: str | None, info: ErrorInfo) -> Response:
    return Response(transaction=transaction, ok=False, error=info)


def _timeout(data: dict[str, object]) -> float | None:
    value = data.get("timeout_s")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_TIMEOUT_S:
        raise RequestError(ErrorKind.BAD_REQUEST, f"timeout_s: seconds from 0 to {MAX_TIMEOUT_S:g}", "timeout_s")
    return float(value)
