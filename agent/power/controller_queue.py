"""One queue per physical controller: calls to one device never overlap, and a device that hangs delays nobody else.

A call that does not return in the driver's time counts as unanswered, and the queue goes on without it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agent.power.driver import Driver, Identifies, OutletDescription, ReadsMany, ShowsPhase
from agent.power.errors import BusyError, InternalError, PowerError, UnreachableError
from wire.phases import Phase, Power

T = TypeVar("T")

MAX_WAITING = 64
"""More calls than a 48-outlet PDU has outlets: beyond that nobody gains from queueing."""
CLOSE_TIMEOUT_S = 5.0
"""A driver that cannot even close in this time is left behind."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Call:
    work: Callable[[], Awaitable[object]]
    outlet: str | None
    answer: "asyncio.Future[object]"


class ControllerQueue:
    """Carries out calls on one driver, one after the other, each within `driver.timing.call_timeout_s`."""

    def __init__(self, name: str, driver: Driver, *, max_waiting: int = MAX_WAITING, held: bool = False) -> None:
        """`held`: calls wait for `release`, because the device is still another queue's."""
        self.name = name
        self.driver = driver
        self._calls: asyncio.Queue[_Call] = asyncio.Queue(max_waiting)
        self._worker: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Future[object]] = set()
        self._closed = False
        self._released = asyncio.Event()
        if not held:
            self._released.set()
        self._rounds = 0
        self._no_round = asyncio.Event()
        self._no_round.set()

    def release(self) -> None:
        """Carry out calls from now on."""
        self._released.set()

    async def drained(self, within_s: float) -> None:
        """Wait until nobody is in the middle of asking, for `within_s` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._no_round.wait()

    @contextlib.contextmanager
    def _round(self) -> Iterator[None]:
        """A call, or several that belong together."""
        self._rounds += 1
        self._no_round.clear()
        try:
            yield
        finally:
            self._rounds -= 1
            if self._rounds == 0:
                self._no_round.set()

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        """`Driver.set`. Raises `PowerError` only, as all calls here."""
        await self._submit(lambda: self.driver.set(outlet, on), outlet)

    async def get(self, outlet: str) -> Power:
        return await self._submit(lambda: self.driver.get(outlet), outlet)

    async def read(self, outlet: str) -> float | None:
        return await self._submit(lambda: self.driver.read(outlet), outlet)

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        """The state of each outlet, or why it is not known. Asked in one question where the device can; otherwise
        one by one, so that a command need not wait for all, and no further once the device is silent."""
        with self._round():
            return await self._get_many(outlets)

    async def _get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        driver = self.driver
        if isinstance(driver, ReadsMany):
            many: ReadsMany = driver
            try:
                return await self._submit(lambda: many.get_many(outlets), None)
            except PowerError as problem:
                return dict.fromkeys(outlets, problem)
        found: dict[str, Power | PowerError] = {}
        silence: UnreachableError | None = None
        for outlet in outlets:
            try:
                found[outlet] = silence or await self.get(outlet)
            except UnreachableError as problem:
                found[outlet] = silence = problem
            except PowerError as problem:
                found[outlet] = problem
        return found

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        """Watts of each outlet; None where it is not measured.

        Raises:
            PowerError: the device did not answer, or answered no.
        """
        with self._round():
            return await self._read_many(outlets)

    async def _read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        driver = self.driver
        if isinstance(driver, ReadsMany):
            many: ReadsMany = driver
            return await self._submit(lambda: many.read_many(outlets), None)
        return {outlet: await self.read(outlet) for outlet in outlets}

    async def identify(self) -> str | None:
        """What the device is; None where its driver does not ask."""
        driver = self.driver
        if not isinstance(driver, Identifies):
            return None
        identifies: Identifies = driver
        return await self._submit(identifies.identify, None)

    async def describe(self) -> list[OutletDescription]:
        return await self._submit(self.driver.describe, None)

    async def show(self, outlet: str, phase: Phase) -> None:
        """Does nothing where the device has no LEDs."""
        driver = self.driver
        if isinstance(driver, ShowsPhase):
            shows: ShowsPhase = driver
            await self._submit(lambda: shows.show(outlet, phase), outlet)

    async def close(self) -> None:
        """Stop after the call under way was cancelled; calls that wait end with `UnreachableError`."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        while not self._calls.empty():
            self._refuse_closed(self._calls.get_nowait())
        for left in self._abandoned:
            left.cancel()
        closing = asyncio.ensure_future(self.driver.close())
        done, _ = await asyncio.wait([closing], timeout=CLOSE_TIMEOUT_S)
        if not done:
            closing.cancel()
            _log.warning("%s: its driver did not close within %g s; left behind", self.name, CLOSE_TIMEOUT_S)
        elif (problem := closing.exception()) is not None:
            _log.error("%s: its driver failed to close: %s", self.name, problem)

    async def _submit(self, work: Callable[[], Awaitable[T]], outlet: str | None) -> T:
        if self._closed:
            raise UnreachableError("is being closed", controller=self.name, outlet=outlet)
        if self._worker is None:
            self._worker = asyncio.create_task(self._run(), name=f"power queue of {self.name}")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            # The queue holds calls of every result type; only `answer` knows which one this is.
            self._calls.put_nowait(_Call(work, outlet, answer))  # type: ignore[arg-type]
        except asyncio.QueueFull:
            raise BusyError(
                f"{self._calls.maxsize} calls wait already",
                controller=self.name,
                outlet=outlet,
                do="try again later; if it stays so, the controller hangs",
            ) from None
        with self._round():
            return await answer

    async def _run(self) -> None:
        await self._released.wait()
        while True:
            call = await self._calls.get()
            if call.answer.cancelled():
                continue
            try:
                result = await self._carry_out(call)
            except PowerError as problem:
                if not call.answer.done():
                    call.answer.set_exception(problem)
            except asyncio.CancelledError:
                self._refuse_closed(call)
                raise
            else:
                if not call.answer.done():
                    call.answer.set_result(result)

    async def _carry_out(self, call: _Call) -> object:
        timeout_s = self.driver.timing.call_timeout_s
        task = asyncio.ensure_future(call.work())
        try:
            done, _ = await asyncio.wait([task], timeout=timeout_s)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            raise UnreachableError(
                f"did not answer within {timeout_s:g} s",
                controller=self.name,
                outlet=call.outlet,
                do="check its power and its cable or network",
            )
        try:
            return task.result()
        except PowerError as problem:
            if problem.outlet is None:  # a driver may know only that its device is gone
                problem.outlet = call.outlet
            raise
        except asyncio.CancelledError:
            raise UnreachableError("the call was cancelled", controller=self.name, outlet=call.outlet) from None
        except Exception as defect:  # a driver's defect must not end the queue of its controller
            _log.exception("%s: defect in its driver", self.name)
            raise InternalError(
                f"defect in the driver: {type(defect).__name__}: {defect}",
                controller=self.name,
                outlet=call.outlet,
                do="report it with the agent's log",
            ) from defect

    def _abandon(self, task: "asyncio.Future[object]") -> None:
        """Cancel, without waiting: a call that hangs may also hang in its cancellation."""
        task.cancel()
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Future[object]") -> None:
        self._abandoned.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            _log.debug("%s: an abandoned call ended with %s", self.name, problem)

    def _refuse_closed(self, call: _Call) -> None:
        if not call.answer.done():
            call.answer.set_exception(UnreachableError("is being closed", controller=self.name, outlet=call.outlet))
