"""The checks of the conformance kit. Each one's docstring is the promise of `Driver` that it looks at."""

import asyncio
import contextlib
import math

from agent.power.conformance_bench import ConformanceError, DriverBench, NotApplicableError
from agent.power.conformance_calls import (
    CLOSE_TIMEOUT_S,
    POLL_S,
    answers_again,
    becomes,
    call,
    calls_of,
    cancelled,
    claims_nothing,
    collect,
    described,
    fresh_driver,
    needs_silence,
    released,
    silenced,
    stays,
    switch,
    tells,
    told_power,
)
from agent.power.conformance_traces import Held, LogRecorder, longest_stall_s
from agent.power.controller_queue import ControllerQueue
from agent.power.driver import ReadsMany
from agent.power.errors import ConfigurationError, PowerError, UnreachableError
from wire.phases import Power

MAX_STALL_S = 0.1
"""An event loop that stands still for longer delays every other controller, and MQTT."""
STALL_TRIES = 3
"""A busy host stalls the loop once; a driver that blocks does so every time."""
CANCEL_AFTER_S = (0.0, 0.001, 0.01, 0.05)
"""From before the first await of a call to after most devices have answered."""
MAX_AT_ONCE = 8


async def switches(bench: DriverBench) -> None:
    """`set` switches the outlet, and `get` tells so; where it cannot tell, it says `unknown` and nothing else."""
    async with fresh_driver(bench) as driver:
        for outlet in bench.outlets:
            for on in (True, False, True, False):
                await switch(bench, driver, outlet, on=on)
                await tells(driver, outlet, on=on)


async def again(bench: DriverBench) -> None:
    """Setting an outlet to what it already is has no effect on the board."""
    async with fresh_driver(bench) as driver:
        outlet = bench.outlets[0]
        for on in (True, False):
            await switch(bench, driver, outlet, on=on)
            before = await bench.edges(outlet)
            await call(driver, f"set({outlet!r}, {on})", driver.set(outlet, on))
            await stays(bench, driver, outlet, on=on, why=f"a second set({outlet!r}, {on}) switched it")
            if (after := await bench.edges(outlet)) != before:
                raise ConformanceError(f"a second set({outlet!r}, {on}) made {(after or 0) - (before or 0)} changes")


async def only_the_named(bench: DriverBench) -> None:
    """Only the named outlet switches."""
    if len(bench.outlets) < 2:
        raise NotApplicableError("the bench has one outlet")
    async with fresh_driver(bench) as driver:
        for others_on in (False, True):
            for outlet in bench.outlets:
                await switch(bench, driver, outlet, on=others_on)
            for outlet in bench.outlets:
                await switch(bench, driver, outlet, on=not others_on)
                changed = [o for o in bench.outlets if o != outlet and await bench.truth(o) != others_on]
                if changed:
                    raise ConformanceError(f"set({outlet!r}, {not others_on}) also switched {', '.join(changed)}")
                await switch(bench, driver, outlet, on=others_on)


async def hand(bench: DriverBench) -> None:
    """`get` tells what the device says now, after a hand at its button too, and never what was asked for."""
    if not bench.can_press:
        raise NotApplicableError("nobody can press a button at this bench")
    async with fresh_driver(bench) as driver:
        for outlet in bench.outlets:
            for on in (True, False):
                await switch(bench, driver, outlet, on=not on)
                await tells(driver, outlet, on=not on)
                await bench.press(outlet, on)
                await tells(driver, outlet, on=on)


async def no_guess(bench: DriverBench) -> None:
    """What the device does not tell is not guessed: not from what was asked for, not from what it said before."""
    needs_silence(bench)
    outlet = bench.outlets[0]
    async with fresh_driver(bench) as driver:
        await switch(bench, driver, outlet, on=True)
        await tells(driver, outlet, on=True)
        async with silenced(bench):
            await claims_nothing(driver, outlet)
    async with silenced(bench), fresh_driver(bench) as driver:
        await claims_nothing(driver, outlet)


async def unknown_outlet(bench: DriverBench) -> None:
    """An outlet that is not there is a `ConfigurationError` that names it, and nothing is switched."""
    wrong = bench.no_such_outlet
    if wrong is None:
        raise NotApplicableError("the driver takes any outlet")
    async with fresh_driver(bench) as driver:
        await switch(bench, driver, bench.outlets[0], on=False)
        before = [await bench.truth(outlet) for outlet in bench.outlets]
        for what, doing in (
            (f"set({wrong!r}, True)", driver.set(wrong, True)),
            (f"get({wrong!r})", driver.get(wrong)),
        ):
            try:
                answer = await call(driver, what, doing)
            except ConfigurationError as problem:
                if problem.outlet != wrong and wrong not in problem.problem:
                    raise ConformanceError(f"{what} raised an error that does not name the outlet: {problem}") from None
            except PowerError as problem:
                raise ConformanceError(f"{what} raised {described(problem)}, not ConfigurationError") from problem
            else:
                raise ConformanceError(f"{what} returned {answer!r}")
        if [await bench.truth(outlet) for outlet in bench.outlets] != before:
            raise ConformanceError(f"set({wrong!r}, True) switched another outlet")


async def silence(bench: DriverBench) -> None:
    """A deaf device is an `UnreachableError` within `timing.call_timeout_s`, for every call."""
    needs_silence(bench)
    outlet = bench.outlets[0]
    async with fresh_driver(bench) as driver:
        await switch(bench, driver, outlet, on=False)
        await call(driver, "get", driver.get(outlet))
        async with silenced(bench):
            for what, doing in calls_of(driver, bench).items():
                try:
                    answer = await call(driver, what, doing())
                except UnreachableError:
                    continue
                except PowerError as problem:
                    raise ConformanceError(f"{what} raised {described(problem)}, not UnreachableError") from problem
                if what.startswith("set("):
                    if bench.answers_set:
                        raise ConformanceError(f"{what} returned although the device did not answer")
                elif driver.reads_back and answer:  # an empty description is that of a driver that never asks
                    raise ConformanceError(f"{what} returned {answer!r} although the device did not answer")


async def recovery(bench: DriverBench) -> None:
    """When the device answers again, so does the driver, even when a call was cancelled while it was deaf."""
    needs_silence(bench)
    outlet = bench.outlets[0]
    async with fresh_driver(bench) as driver:
        for early in (False, True):
            await switch(bench, driver, outlet, on=True)
            async with silenced(bench):
                if early:
                    await cancelled(driver, "get", driver.get(outlet), POLL_S)
                else:
                    await claims_nothing(driver, outlet)
            await answers_again(driver, outlet, on=True)
            await tells(driver, outlet, on=True)
            await switch(bench, driver, outlet, on=False)
            await tells(driver, outlet, on=False)


async def cancellation(bench: DriverBench) -> None:
    """Every call may be cancelled at any await; the next call works, has its own answer, and no earlier one comes
    through after it."""
    outlet = bench.outlets[0]
    async with fresh_driver(bench) as driver:
        prompt = True
        for on in (True, False):
            await switch(bench, driver, outlet, on=on)
            prompt = await tells(driver, outlet, on=on) == 1 and prompt
        for after_s in CANCEL_AFTER_S:
            await switch(bench, driver, outlet, on=True)
            await tells(driver, outlet, on=True)
            setting, *asking = calls_of(driver, bench).items()
            for what, doing in asking:
                await cancelled(driver, what, doing(), after_s)
            await switch(bench, driver, outlet, on=False)
            if await tells(driver, outlet, on=False) > 1 and prompt:
                raise ConformanceError(f"after {asking[0][0]} was cancelled, the next one was given its answer")
            await cancelled(driver, setting[0], setting[1](), after_s)
            await switch(bench, driver, outlet, on=False)
            await stays(bench, driver, outlet, on=False, why="a cancelled set came through after a later one")


async def queue(bench: DriverBench) -> None:
    """Many callers at once are served through a `ControllerQueue`, each with its own answer."""
    driver = bench.make()
    queue = ControllerQueue("conformance", driver)
    outlets = bench.outlets[:MAX_AT_ONCE]
    try:
        for on in (True, False):
            want = {outlet: on == (number % 2 == 0) for number, outlet in enumerate(outlets)}
            await asyncio.gather(
                *(queue.set(outlet, state) for outlet, state in want.items()), *(queue.get(o) for o in outlets)
            )
            for outlet, state in want.items():
                await becomes(bench, driver, outlet, on=state)
                await tells(driver, outlet, on=state)
            told = await asyncio.gather(*(queue.get(outlet) for outlet in [*outlets] * 3))
            for outlet, power in zip([*outlets] * 3, told, strict=True):
                if power is not told_power(driver, on=want[outlet]):
                    raise ConformanceError(f"among many callers, get({outlet!r}) was answered {power}")
            await asyncio.gather(queue.describe(), *(queue.read(outlet) for outlet in outlets))
    finally:
        await queue.close()


async def close(bench: DriverBench) -> None:
    """`close` may come twice and when the device is gone, and leaves no task, thread or descriptor behind."""

    async def use() -> None:
        driver = bench.make()
        await call(driver, "get", driver.get(bench.outlets[0]))
        for time in ("close", "a second close"):
            await call(driver, time, driver.close(), within_s=CLOSE_TIMEOUT_S)

    await use()  # what a process loads once, as libraries and shared engines, is not the driver's
    before = Held.now()
    await use()
    if bench.can_silence:
        driver = bench.make()
        await call(driver, "get", driver.get(bench.outlets[0]))
        async with silenced(bench):
            await call(driver, "close of a device that is gone", driver.close(), within_s=CLOSE_TIMEOUT_S)
        await released(before, bench)
    await released(before, bench)


async def event_loop(bench: DriverBench) -> None:
    """The event loop is never blocked, by a device that answers or one that does not."""

    async def work() -> None:
        async with fresh_driver(bench) as driver:
            for what, doing in calls_of(driver, bench).items():
                await call(driver, what, doing())
            if bench.can_silence:
                async with silenced(bench):
                    with contextlib.suppress(UnreachableError):
                        await call(driver, "get", driver.get(bench.outlets[0]))

    stalls = [await longest_stall_s(work())]
    while min(stalls) > MAX_STALL_S and len(stalls) < STALL_TRIES:
        stalls.append(await longest_stall_s(work()))
    if min(stalls) > MAX_STALL_S:
        raise ConformanceError(f"the event loop stood still for {min(stalls):.2f} s, {STALL_TRIES} times of as many")


async def describe(bench: DriverBench) -> None:
    """`describe` names each outlet once and says of it what `get` says."""
    async with fresh_driver(bench) as driver:
        for number, outlet in enumerate(bench.outlets):
            await switch(bench, driver, outlet, on=number % 2 == 0)
            await tells(driver, outlet, on=number % 2 == 0)
        described_outlets = await call(driver, "describe", driver.describe())
        if not described_outlets:
            raise NotApplicableError("the driver cannot say what outlets there are")
        names = [item.outlet for item in described_outlets]
        if len(set(names)) != len(names):
            raise ConformanceError(f"describe names an outlet twice: {', '.join(names)}")
        if missing := set(bench.outlets) - set(names):
            raise ConformanceError(f"describe lacks {', '.join(sorted(missing))}; it has {', '.join(names)}")
        for item in described_outlets:
            told = await call(driver, f"get({item.outlet!r})", driver.get(item.outlet))
            if item.power not in {told, Power.UNKNOWN}:
                raise ConformanceError(f"describe says that {item.outlet} is {item.power}, and get says {told}")


async def many(bench: DriverBench) -> None:
    """`get_many` says of each outlet what `get` says, with the error in place of one that is wrong."""
    async with fresh_driver(bench) as driver:
        if not isinstance(driver, ReadsMany):
            raise NotApplicableError("the driver has no get_many")
        for number, outlet in enumerate(bench.outlets):
            await switch(bench, driver, outlet, on=number % 2 == 1)
            await tells(driver, outlet, on=number % 2 == 1)
        wrong = bench.no_such_outlet
        asked = [*bench.outlets] if wrong is None else [*bench.outlets, wrong]
        told = dict(await call(driver, "get_many", driver.get_many(asked)))
        if sorted(told) != sorted(asked):
            raise ConformanceError(f"get_many was asked for {', '.join(asked)} and told of {', '.join(told)}")
        if wrong is not None and not isinstance(error := told.pop(wrong), ConfigurationError):
            raise ConformanceError(f"get_many has {error!r} for the outlet that is not there, not ConfigurationError")
        for outlet, power in told.items():
            one = await call(driver, f"get({outlet!r})", driver.get(outlet))
            if power is not one:
                raise ConformanceError(f"get_many says that {outlet} is {power}, and get says {one}")
        watts = await call(driver, "read_many", driver.read_many(list(bench.outlets)))
        if sorted(watts) != sorted(bench.outlets):
            raise ConformanceError(f"read_many was asked for {', '.join(bench.outlets)} and told of {', '.join(watts)}")


async def watts(bench: DriverBench) -> None:
    """`read` gives watts, 0 or more, or None where nothing is measured."""
    async with fresh_driver(bench) as driver:
        for outlet in bench.outlets:
            told: object = await call(driver, f"read({outlet!r})", driver.read(outlet))
            if told is not None and not (isinstance(told, int | float) and math.isfinite(told) and told >= 0):
                raise ConformanceError(f"read({outlet!r}) returned {told!r}")


async def untouched(bench: DriverBench) -> None:
    """A driver is made without its device, and its timing can be relied on."""
    if bench.can_silence:
        async with silenced(bench), fresh_driver(bench) as driver:
            pass
    async with fresh_driver(bench) as driver:
        timing = driver.timing
        for name in ("verify_deadline_s", "poll_interval_s", "call_timeout_s", "answer_deadline_s", "attempts"):
            if not getattr(timing, name) > 0:
                raise ConformanceError(f"timing.{name} is {getattr(timing, name)!r}")


async def secrets(bench: DriverBench) -> None:
    """No secret is ever in an error, a description, a log line or the driver's own repr."""
    if not bench.secrets:
        raise NotApplicableError("the bench names no secrets")
    seen: list[str] = []
    with LogRecorder(seen):
        for driver in (bench.make(), bench.make_unauthorised()):
            if driver is None:
                continue
            seen.append(repr(driver))
            await collect(driver, bench, seen)
            if bench.can_silence:
                async with silenced(bench):
                    await collect(driver, bench, seen)
            await call(driver, "close", driver.close(), within_s=CLOSE_TIMEOUT_S)
    for number, secret in enumerate(bench.secrets, 1):
        if where := [text for text in seen if secret in text]:
            raise ConformanceError(f"secret {number} is in {where[0].replace(secret, '***')!r}")
