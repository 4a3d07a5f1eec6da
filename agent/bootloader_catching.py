"""How one board comes to its boot loader's prompt: power and console together."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from agent.bootloader_line import BootloaderLine, TakenError
from agent.bootloader_requests import BootloaderRequest
from agent.bootloader_settings import BootloaderTable
from agent.console.console import Console
from agent.console.milestones import Kind
from agent.requests import RequestError
from firmware_tools.bootloader.catch import Catch, Caught, Manner, Missed
from firmware_tools.bootloader.dialect import Dialect
from firmware_tools.bootloader.errors import DialogueError, NotAtPromptError
from firmware_tools.bootloader.netboot import NetbootOrder
from firmware_tools.bootloader.shell import Line, Shell, identified
from wire.payloads import ErrorInfo, PowerResult
from wire.phases import ErrorKind, Power, PowerAction

log = logging.getLogger(__name__)

SWITCH_S = 300.0
"""For a cycle to its end: minimum off times and inrush spacing count, and queues of others."""
AT_PROMPT_S = 15.0
"""For a boot loader to show that it stands at its prompt; one that is busy does not answer."""
AT_PROMPT_TRIES = 2
AGAIN_S = 40.0
"""For one that began anew; there is no power supply that has to rise."""
ON_COUNTDOWN_S = 90.0
"""From a banner to the countdown, with a slow SPL, DDR training and PCI between."""

_SYSTEM = frozenset({Kind.KERNEL, Kind.INIT, Kind.LOGIN})
Progress = Callable[..., None]


@dataclass(frozen=True, slots=True)
class BootloaderCalls:
    """What dialogues need of their agent. Called in the event loop; only `switch` takes time.

    Attributes:
        console: the board's console; None where it has none.
        power: as last read back.
        switch: with the token of the lease that was shown.
        order: what the board is to boot from the net. Raises `RequestError`: nothing.
        hold: it stands at its prompt on purpose for so many seconds: nobody is to wait for its system before.
        release: it is to come up from now on.
        by_dialogue: whether the agent is to have it boot by itself at each power on.
        on_own: what it did by itself: `begun`, `done` or `failed`, and the reason.
    """

    console: Callable[[str], Console | None]
    power: Callable[[str], Power]
    switch: Callable[[str, PowerAction, int | None], Awaitable[PowerResult]]
    order: Callable[[str], NetbootOrder]
    hold: Callable[[str, float], None]
    release: Callable[[str], None]
    by_dialogue: Callable[[str], bool]
    on_own: Callable[[str, str, str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a prompt is wanted.

    Attributes:
        cycle: by the power; else it must be there.
        patient: without `cycle`, wait for somebody who resets the board.
        token: of the lease that was shown.
    """

    cycle: bool
    patient: bool = False
    token: int | None = None

    @classmethod
    def of(cls, request: BootloaderRequest, *, patient: bool = False) -> "Wanted":
        return cls(request.cycle, patient, request.token)


class ByItself:
    """The task of one board's boot that the agent does by itself; once for each time that the power came."""

    def __init__(self, board: str) -> None:
        self._board = board
        self._task: asyncio.Task[None] | None = None
        self._begun = False

    def start(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Begin, unless it has begun already since the power came."""
        if self._begun:
            return
        self._begun = True
        self._task = asyncio.create_task(work(), name=f"bootloader-{self._board}")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("board %s: the boot by dialogue failed", self._board, exc_info=fault)

    def begin_anew(self) -> None:
        """The next boot has begun."""
        if self._task is None or self._task.done():
            self._begun = False

    def power_off(self) -> None:
        """The power went: another boot follows."""
        self._begun = False
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """End it; somebody else speaks now."""
        self._begun = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Catching:
    """One board's way to its prompt."""

    def __init__(
        self, board: str, table: BootloaderTable, calls: BootloaderCalls, dialect: Dialect, marker: Callable[[], str]
    ) -> None:
        self._board = board
        self._table = table
        self._calls = calls
        self._dialect = dialect
        self._marker = marker
        self._is_off = asyncio.Event()
        self._awaits_off = False
        self._by_itself: Catch | None = None
        self.by_itself = ByItself(board)
        self.last_on: bool | None = None
        """The power when it was last known; None before."""

    def power(self, *, on: bool) -> None:
        """The board's power was read back, after a change."""
        self.last_on = on
        if on:
            self._is_off.clear()
            if self._by_itself is not None:
                self._by_itself.power_came(time.monotonic(), self._table.catch_s)
        else:
            self._is_off.set()
            if not self._awaits_off:
                self.by_itself.power_off()

    def _catch(self, manner: Manner) -> Catch:
        return Catch(self._dialect, self._marker(), manner, self._table.pace)

    def _manner(self, *, steady: bool, at_once: bool, tries: int | None, within_s: float) -> Manner:
        table = self._table
        stop = None if table.stop is None else table.stop.encode("ascii")
        return Manner(table.prompt, stop, steady=steady, at_once=at_once, tries=tries, within_s=within_s)

    def _system_runs(self) -> bool:
        """Whether a kernel has been seen since the boot began: what is typed would go to its shell."""
        console = self._calls.console(self._board)
        if console is None:
            return False
        console.look()
        return bool(_SYSTEM & console.story.seen.keys())

    async def caught(self, line: BootloaderLine, speaks: Line, wanted: Wanted, progress: Progress) -> Shell:
        """The boot loader at its prompt, where it stands from now on.

        Raises:
            RequestError: its power could not be cycled.
            NotAtPromptError: it does not come to its prompt; says why.
        """
        if not wanted.cycle:
            runs = self._system_runs()
            if self._calls.power(self._board) is Power.OFF and not wanted.patient:
                raise NotAtPromptError("its power is off")
            if runs and not wanted.patient:
                raise NotAtPromptError("a system runs on it, by what its console shows")
            progress("catch", message="waiting for a reset" if runs else "asking whether it stands at its prompt")
            within_s = self._table.catch_s if wanted.patient else AT_PROMPT_S
            tries = None if wanted.patient else AT_PROMPT_TRIES
            manner = self._manner(steady=False, at_once=not runs, tries=tries, within_s=within_s)
            shell = await line.follow(identified(speaks, await line.carry_out(self._catch(manner))))
            self._calls.hold(self._board, self._table.hold_s)
            return shell
        error = NotAtPromptError("never tried")
        for number in range(1, self._table.catch_tries + 1):
            progress("power", message=f"try {number} of {self._table.catch_tries}")
            try:
                found = await self._cycled(line, wanted.token, progress)
                shell = await line.follow(identified(speaks, found))
            except NotAtPromptError as missed:
                error = missed
                progress("missed", message=str(missed)[:200])
                continue
            self._calls.hold(self._board, self._table.hold_s)
            return shell
        raise NotAtPromptError(f"not caught in {self._table.catch_tries} tries: {error}", error.lines)

    async def _cycled(self, line: BootloaderLine, token: int | None, progress: Progress) -> Caught | Missed:
        """Cycle the power and catch, with keys pressed from the moment that it is off."""
        was_on = self._calls.power(self._board) is not Power.OFF
        action = PowerAction.CYCLE if was_on else PowerAction.ON
        self._is_off.clear()
        switching = asyncio.ensure_future(self._calls.switch(self._board, action, token))
        try:
            if was_on:
                await _first_of(switching, self._is_off.wait())
                _must_be_on(self._board, switching)
            line.forget()
            progress("catch", message="pressing keys")
            within_s = self._table.catch_s + (0.0 if switching.done() else SWITCH_S)
            catch = self._catch(self._manner(steady=True, at_once=False, tries=None, within_s=within_s))
            catching = asyncio.ensure_future(line.carry_out(catch))
            try:
                await asyncio.wait({switching, catching}, return_when=asyncio.FIRST_COMPLETED)
                _must_be_on(self._board, switching)
                if not catching.done():
                    self._calls.hold(self._board, self._table.hold_s)
                    catch.power_came(time.monotonic(), self._table.catch_s)
                    line.wake()
                return await catching
            finally:
                catching.cancel()
                await asyncio.gather(catching, return_exceptions=True)
        finally:
            # A cycle that is cut short would leave the board off.
            await asyncio.shield(asyncio.gather(switching, return_exceptions=True))

    async def again(self, line: BootloaderLine, speaks: Line) -> Shell | None:
        """Catch a board that began anew; None where it got away."""
        manner = self._manner(steady=True, at_once=False, tries=None, within_s=AGAIN_S)
        try:
            shell = await line.follow(identified(speaks, await line.carry_out(self._catch(manner))))
        except (DialogueError, TakenError):
            self._calls.release(self._board)
            return None
        except asyncio.CancelledError:
            self._calls.release(self._board)
            raise
        self._calls.hold(self._board, self._table.hold_s)
        return shell

    async def caught_by_itself(self, line: BootloaderLine, speaks: Line, *, after_off: bool, steady: bool) -> Shell:
        """As `caught`, beside somebody else's switching. Not `steady`: the board restarted, and may be a system that
        shows such words; only a countdown is answered.

        Raises:
            NotAtPromptError: it was not caught.
        """
        if after_off:
            self._is_off.clear()
            self._awaits_off = True
            try:
                async with asyncio.timeout(SWITCH_S):
                    await self._is_off.wait()
            except TimeoutError:
                raise NotAtPromptError("its power was not seen to go off") from None
            finally:
                self._awaits_off = False
            line.forget()
        within_s = SWITCH_S + self._table.catch_s if steady else ON_COUNTDOWN_S
        self._by_itself = self._catch(self._manner(steady=steady, at_once=False, tries=None, within_s=within_s))
        try:
            return await line.follow(identified(speaks, await line.carry_out(self._by_itself)))
        finally:
            self._by_itself = None


async def _first_of(switching: asyncio.Future[PowerResult], other: Coroutine[object, object, bool]) -> None:
    waiting = asyncio.create_task(other, name="power off")
    both: list[asyncio.Future[Any]] = [switching, waiting]
    try:
        await asyncio.wait(both, timeout=SWITCH_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _must_be_on(board: str, switching: asyncio.Future[PowerResult]) -> None:
    """A cycle that has ended has ended well.

    Raises:
        RequestError: it has not; with its own reason.
    """
    if not switching.done() or switching.result().ok:
        return
    info = switching.result().error or ErrorInfo(kind=ErrorKind.INTERNAL, message=f"board {board}: not switched")
    raise RequestError(info.kind, info.message, info.key)
