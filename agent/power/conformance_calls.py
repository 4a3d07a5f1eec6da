"""How the conformance kit calls a driver: in its time, with its errors only, and beside what is really so."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

from agent.power.conformance_bench import ConformanceError, DriverBench, NotApplicableError
from agent.power.conformance_traces import Held
from agent.power.driver import Driver, ReadsMany
from agent.power.errors import InternalError, PowerError, UnreachableError
from wire.phases import Power

T = TypeVar("T")

POLL_S = 0.01
STAY_S = 0.1
"""What comes through late comes through by then, on a bench; families that need seconds would make the checks slow."""
SLACK_S = 1.0
"""A busy host may be so late."""
CLOSE_TIMEOUT_S = 5.0
"""As the core waits for a driver to close."""
RELEASE_TIMEOUT_S = 5.0
"""By then the tasks, threads and descriptors of a closed driver are gone."""


async def call(driver: Driver, what: str, doing: Awaitable[T], *, within_s: float | None = None) -> T:
    """Await a call as the core does, and pass its `PowerError` on.

    Raises:
        ConformanceError: it took longer than `within_s`, or `timing.call_timeout_s`, or raised what no driver raises.
    """
    limit_s = driver.timing.call_timeout_s if within_s is None else within_s
    task = asyncio.ensure_future(doing)
    try:
        done, _ = await asyncio.wait([task], timeout=limit_s + SLACK_S)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()  # not waited for: what hangs may hang in its cancellation, too
        raise ConformanceError(f"{what} did not end within {limit_s:g} s")
    if task.cancelled():
        raise ConformanceError(f"{what} ended as cancelled, and nobody had cancelled it")
    problem = task.exception()
    if problem is None:
        return task.result()
    if isinstance(problem, PowerError) and not isinstance(problem, InternalError):
        raise problem
    raise ConformanceError(
        f"{what} raised {described(problem)}; a driver raises PowerErrors only, and no InternalError"
    ) from problem


def described(problem: BaseException | None) -> str:
    """The class and the text."""
    return f"{type(problem).__name__}: {problem}"


def needs_silence(bench: DriverBench) -> None:
    if not bench.can_silence:
        raise NotApplicableError("nobody can make this device deaf")


@asynccontextmanager
async def fresh_driver(bench: DriverBench) -> AsyncIterator[Driver]:
    try:
        driver = bench.make()
    except Exception as problem:  # foreign code; whatever it raises here, it may not
        raise ConformanceError(f"making the driver raised {described(problem)}") from problem
    try:
        yield driver
    finally:
        await call(driver, "close", driver.close(), within_s=CLOSE_TIMEOUT_S)


@asynccontextmanager
async def silenced(bench: DriverBench) -> AsyncIterator[None]:
    await bench.silence()
    try:
        yield
    finally:
        await bench.restore()


async def cancelled(driver: Driver, what: str, doing: Awaitable[object], after_s: float) -> None:
    """Begin a call and cancel it after that time.

    Raises:
        ConformanceError: it does not end, or ends with what no driver raises.
    """
    task = asyncio.ensure_future(doing)
    await asyncio.sleep(after_s)
    task.cancel()
    await asyncio.wait([task], timeout=driver.timing.call_timeout_s)
    if not task.done():
        raise ConformanceError(f"{what} does not end when it is cancelled")
    if not task.cancelled() and not isinstance(problem := task.exception(), PowerError | None):
        raise ConformanceError(f"{what}, cancelled after {after_s:g} s, raised {described(problem)}")


def calls_of(driver: Driver, bench: DriverBench) -> Mapping[str, Callable[[], Awaitable[object]]]:
    """All calls that ask the device. The set comes first, so that later ones could overtake it."""
    outlet = bench.outlets[0]
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        f"set({outlet!r}, True)": lambda: driver.set(outlet, True),
        f"get({outlet!r})": lambda: driver.get(outlet),
        "describe()": driver.describe,
    }
    if isinstance(driver, ReadsMany):
        many: ReadsMany = driver
        calls["get_many"] = lambda: many.get_many(list(bench.outlets))
    return calls


def told_power(driver: Driver, *, on: bool) -> Power:
    return (Power.ON if on else Power.OFF) if driver.reads_back else Power.UNKNOWN


async def switch(bench: DriverBench, driver: Driver, outlet: str, *, on: bool) -> None:
    await call(driver, f"set({outlet!r}, {on})", driver.set(outlet, on))
    await becomes(bench, driver, outlet, on=on)


async def becomes(bench: DriverBench, driver: Driver, outlet: str, *, on: bool) -> None:
    until = now() + driver.timing.verify_deadline_s
    while await bench.truth(outlet) != on:
        if now() > until:
            raise ConformanceError(
                f"set({outlet!r}, {on}) was accepted, and after {driver.timing.verify_deadline_s:g} s the outlet is not"
            )
        await asyncio.sleep(POLL_S)


async def stays(bench: DriverBench, driver: Driver, outlet: str, *, on: bool, why: str) -> None:
    until = now() + min(driver.timing.settle_s, STAY_S)
    while now() < until:
        if await bench.truth(outlet) != on:
            raise ConformanceError(why)
        await asyncio.sleep(POLL_S)


async def tells(driver: Driver, outlet: str, *, on: bool) -> int:
    """`get` says so within the family's time; where the driver cannot read back it never says anything else than
    unknown. Returns how often it was asked."""
    until = now() + driver.timing.verify_deadline_s
    asked = 1
    while (told := await call(driver, f"get({outlet!r})", driver.get(outlet))) is not told_power(driver, on=on):
        if not driver.reads_back:
            raise ConformanceError(f"reads_back is False, and get({outlet!r}) returned {told!r}, not unknown")
        if now() > until:
            raise ConformanceError(f"outlet {outlet} is {'on' if on else 'off'}, and get says {told!r}")
        await asyncio.sleep(POLL_S)
        asked += 1
    return asked


async def claims_nothing(driver: Driver, outlet: str) -> None:
    try:
        told = await call(driver, f"get({outlet!r})", driver.get(outlet))
    except UnreachableError:
        return
    if told is not Power.UNKNOWN:
        raise ConformanceError(f"get({outlet!r}) returned {told!r} although the device did not answer")


async def answers_again(driver: Driver, outlet: str, *, on: bool) -> None:
    """Within the family's time both get and a set to what is so work; until then they may find it unreachable."""
    until = now() + driver.timing.answer_deadline_s
    doings: dict[str, Callable[[], Awaitable[object]]] = {
        f"get({outlet!r})": lambda: driver.get(outlet),
        f"set({outlet!r}, {on})": lambda: driver.set(outlet, on),
    }
    for what, doing in doings.items():
        while True:
            try:
                await call(driver, what, doing(), within_s=2 * driver.timing.call_timeout_s)
            except UnreachableError as problem:
                if now() > until:
                    raise ConformanceError(
                        f"the device answers for {driver.timing.answer_deadline_s:g} s, and {what} raises: {problem}"
                    ) from problem
                await asyncio.sleep(POLL_S)
            else:
                break


async def released(before: Held, bench: DriverBench) -> None:
    until = now() + RELEASE_TIMEOUT_S
    while left := Held.now().beyond(before):
        if now() > until:
            raise ConformanceError(f"after close of the driver there are left: {', '.join(left)}")
        await bench.truth(bench.outlets[0])  # a virtual device in this process lets go of its side, too
        await asyncio.sleep(POLL_S)


async def collect(driver: Driver, bench: DriverBench, seen: list[str]) -> None:
    doings = list(calls_of(driver, bench).values())
    if (wrong := bench.no_such_outlet) is not None:
        doings.append(lambda: driver.get(wrong))
    for doing in doings:
        try:
            seen.append(repr(await call(driver, "a call", doing())))
        except PowerError as problem:
            chain: BaseException | None = problem
            while chain is not None:
                seen += [str(chain), repr(chain)]
                chain = chain.__cause__ or chain.__context__


def now() -> float:
    return asyncio.get_running_loop().time()
