"""Brings boards from one mode into another, and knows in which they are.

While a board is in another mode than `normal` it is in maintenance: nobody gives it work, and nobody cycles it for not
having booted. Only what we put there ourselves is taken out of it again.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from agent.flash_record import Record, Records
from agent.flash_settings import Flashable, actuators_of, steps_of
from agent.requests import Answer, RequestError, text
from firmware_tools.flash.actuators import Hands, Walker
from firmware_tools.flash.errors import ModeError
from firmware_tools.flash.modes import NORMAL, POWER
from firmware_tools.flash.passage import Passage, Stage
from wire.payloads import Alert
from wire.phases import ErrorKind

log = logging.getLogger(__name__)

ALERT = "flash"
ADVICE = "flash the board again, or look at its straps and cables: boardhand mode BOARD"


class Progress(Protocol):
    """As `agent.actions.Progress`."""

    def __call__(self, stage: str, percent: float | None = None, message: str = "", /) -> None: ...


@dataclass(frozen=True, slots=True)
class ModeCalls:
    """What the desks need of their agent, in the event loop.

    Attributes:
        hands: who switches a board's actuators.
        maintain: put a board into maintenance, or back into service; returns whether that changed anything.
        alert: raise the board's alert `flash`, or clear it.
        ready: whether the board has registered and is at its work, or nobody looks at that because it is in
            maintenance; None: it is in a fault.
        boot: the id of the boot that has registered; None: none has since its power came on.
        compatible: what the board has said that it is.
    """

    hands: Callable[[str], Hands]
    maintain: Callable[[str, bool], bool]
    alert: Callable[[str, Alert | None], None]
    ready: Callable[[str], bool | None]
    boot: Callable[[str], str | None]
    compatible: Callable[[str], frozenset[str]]


class ModeDesk:
    """The modes of one agent's boards."""

    def __init__(self, boards: Mapping[str, Flashable], calls: ModeCalls) -> None:
        self._boards = boards
        self.calls = calls
        self.records = Records()
        self._walkers = {name: self._walker_of(name) for name, board in boards.items() if board.modes}
        self.recovering: set[str] = set()
        """Boards that are being put back after the agent's last end."""
        self._passages: dict[str, Passage] = {}
        """What each board was sent through last."""

    def _walker_of(self, name: str) -> Walker:
        return Walker(self.calls.hands(name), actuators_of(self._boards[name]))

    async def follow(self, boards: Mapping[str, Flashable], touched: Collection[str]) -> None:
        """Other boards from now on; `touched` are those that are new or whose actuators or modes are others. Nothing
        is under way on those.

        Raises:
            sqlite3.Error: what was stored of a board cannot be read.
        """
        await self.records.know([name for name in boards if name not in self._boards])
        self._boards = boards
        kept = {name: walker for name, walker in self._walkers.items() if name in boards and name not in touched}
        made = {name: self._walker_of(name) for name in touched if name in boards and boards[name].modes}
        self._walkers = {**kept, **made}

    def walker(self, board: str) -> Walker:
        """Who walks a board's passages.

        Raises:
            RequestError: it has no modes.
        """
        found = self._walkers.get(board)
        if found is None:
            message = f"board {board}: has no modes; declare [boards.{board}.modes] in the agent's settings"
            raise RequestError(ErrorKind.CONFIGURATION, message, "board")
        return found

    async def mode(self, board: str, data: dict[str, object], progress: Progress) -> Answer:
        """The action `mode`: `{"board", "mode"}`. Where a step fails the board is put back into `normal`.

        Raises:
            RequestError: there is no such mode, or it could not be reached; says in which mode the board is.
        """
        self.walker(board)
        mode = text(data, "mode")
        if mode not in self._boards[board].modes:
            known = ", ".join(sorted(self._boards[board].modes))
            raise RequestError(
                ErrorKind.NOT_FOUND, f"board {board}: there is no mode {mode}; known are: {known}", "mode"
            )
        self.check_free(board)
        passage = await self.enter(board, mode, NORMAL, f"mode {mode}", progress)
        if passage.stage is not Stage.ARRIVED:
            await self.power_as_before(board)
        await self.store(board, replace(self.records.of(board), under_way=None))
        if passage.stage is not Stage.ARRIVED:
            raise RequestError(ErrorKind.NOT_VERIFIED, failure(board, passage))
        return {"board": board, "mode": mode, "actuators": await self.walker(board).states()}

    def is_normal(self, board: str) -> bool:
        """Whether a boot that begins now is the board's usual one, and not a way to flash it."""
        passage = self._passages.get(board)
        mode = self.records.of(board).mode if passage is None else passage.bound_for
        return mode in {None, NORMAL}

    def check_free(self, board: str) -> None:
        """Raises `RequestError` while the board is being put back after the agent's last end."""
        if board in self.recovering:
            message = f"board {board}: is being put back after what the agent's last end cut short; try again"
            raise RequestError(ErrorKind.BUSY, message)

    async def enter(
        self, board: str, mode: str, back: str, under_way: str, progress: Progress, *, method: str | None = None
    ) -> Passage:
        """Bring the board into a mode; where a step fails, into `back`. What fails stands in the passage. Cancelled, it
        goes back first.

        Raises:
            RequestError: nothing can be stored, so nothing was switched.
        """
        walker = self.walker(board)
        before = self.records.of(board)
        record = replace(before, mode=None, under_way=under_way, method=method)
        if before.under_way is None:
            record = replace(record, was_off=await _power(walker) == "off")
        await self.store(board, self.taken_out(board, record))
        settings = self._boards[board]
        passage = Passage(mode, steps_of(settings, mode), back, steps_of(settings, back))
        self._passages[board] = passage
        try:
            await walker.walk(passage, _teller(progress))
        except asyncio.CancelledError:
            passage.turn_back("it was cancelled")
            await self.finish_back(board, passage, progress)
            raise
        await self._arrived(board, passage, progress)
        return passage

    async def finish_back(self, board: str, passage: Passage, progress: Progress) -> None:
        """Walk what is left of a passage that was turned back, store where that led, and have the power as before."""
        await self.walker(board).walk(passage, _teller(progress))
        await self._arrived(board, passage, progress)
        await self.power_as_before(board)
        await self.store(board, replace(self.records.of(board), under_way=None))

    async def power_as_before(self, board: str) -> None:
        """A board that was off before is off again. Others are as their mode leaves them."""
        walker = self.walker(board)
        if not self.records.of(board).was_off or await _power(walker) == "off":
            return
        try:
            await walker.hands.switch(POWER, "off")
        except ModeError as error:
            log.warning("board %s: was off before, and cannot be switched off: %s", board, error)

    async def _arrived(self, board: str, passage: Passage, progress: Progress) -> None:
        progress("mode", 100.0, f"in mode {passage.mode or 'unknown'}")
        record = replace(self.records.of(board), mode=passage.mode)
        if passage.stage is Stage.STRANDED:
            record = record.hurt("; ".join(filter(None, (record.damaged, failure(board, passage)))))
            self.calls.alert(board, Alert(what=(record.damaged or "")[:1024], since=record.since, do=ADVICE))
        elif passage.mode == NORMAL:
            record = self.given_back(board, record)
        await self.store(board, record)

    def taken_out(self, board: str, record: Record) -> Record:
        """The board goes into maintenance, if no person has put it there."""
        return record if record.took_out else replace(record, took_out=self.calls.maintain(board, True))

    def given_back(self, board: str, record: Record) -> Record:
        """What we took out goes back to work."""
        if record.took_out:
            self.calls.maintain(board, False)
        return replace(record, took_out=False)

    async def store(self, board: str, record: Record) -> None:
        """Raises `RequestError` where the disk does not take it."""
        try:
            await self.records.put(board, record)
        except sqlite3.Error as error:
            message = f"board {board}: the state file cannot be written ({error}); mend the disk"
            raise RequestError(ErrorKind.INTERNAL, message) from error

    async def hurt(self, board: str, why: str) -> None:
        """The board's flash may hold half an image: told until one was written whole."""
        record = self.records.of(board).hurt(why)
        self.calls.alert(board, Alert(what=why[:1024], since=datetime.now(UTC), do=ADVICE))
        await self.store(board, record)

    async def tell(self, data: dict[str, object]) -> Answer:
        """The request `modes`: what boards can be brought into and by what they are flashed; asked of the hardware
        where `board` names one.

        Raises:
            RequestError: there is no such board.
        """
        wanted = data.get("board")
        if wanted is not None and not (isinstance(wanted, str) and wanted in self._boards):
            raise RequestError(ErrorKind.UNKNOWN_BOARD, f"there is no board {wanted} here", "board")
        boards = []
        for name, board in self._boards.items():
            if (wanted is not None and name != wanted) or not (board.modes or board.flash or wanted):
                continue
            record = self.records.of(name)
            told: dict[str, object] = {
                "board": name,
                "mode": record.mode,
                "modes": {mode: list(steps) for mode, steps in board.modes.items()},
                "flash": {method: {"tool": table.tool, "mode": table.mode} for method, table in board.flash.items()},
                "under_way": record.under_way,
                "damaged": record.damaged,
            }
            if wanted is not None and name in self._walkers:
                told["actuators"] = await self._walkers[name].states()
            boards.append(told)
        return {"boards": boards}


def failure(board: str, passage: Passage) -> str:
    """What became of a passage that did not arrive, in one sentence."""
    where = "nobody knows in which mode it is" if passage.mode is None else f"it is in mode {passage.mode} again"
    also = f"; on the way back: {'; '.join(passage.also)}" if passage.also else ""
    return f"board {board}: {passage.why or 'cut short'}; {where}{also}"[:4096]


def _teller(progress: Progress) -> Callable[[str, float], None]:
    return lambda step, percent: progress("mode", percent, step)


async def _power(walker: Walker) -> str | None:
    try:
        return await walker.hands.look(POWER)
    except ModeError:
        return None
