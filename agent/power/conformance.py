"""A kit that any driver's tests can run: does it keep the promises of `agent.power.driver.Driver`?

A test gives a `DriverBench`: the driver, a device (virtual or real) whose truth can be seen by other eyes than the
driver's, and a way of making that device deaf. Then either

    await conformance.check_driver(bench)

or one test per promise, with pytest:

    @pytest.mark.parametrize("check", conformance.CHECKS)
    async def test_acme(check, bench):
        await conformance.run_check(check, bench)

The checks switch outlets. What they need is in `docs/drivers.md`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from agent.power import conformance_checks
from agent.power.conformance_bench import ConformanceError, DriverBench, NotApplicableError
from agent.power.conformance_calls import described
from agent.power.errors import PowerError

__all__ = [
    "CHECKS",
    "CheckResult",
    "ConformanceError",
    "DriverBench",
    "NotApplicableError",
    "check_driver",
    "run_check",
]


CHECKS: Mapping[str, Callable[[DriverBench], Awaitable[None]]] = {
    "switches": conformance_checks.switches,
    "again": conformance_checks.again,
    "only_the_named": conformance_checks.only_the_named,
    "hand": conformance_checks.hand,
    "no_guess": conformance_checks.no_guess,
    "unknown_outlet": conformance_checks.unknown_outlet,
    "silence": conformance_checks.silence,
    "recovery": conformance_checks.recovery,
    "cancellation": conformance_checks.cancellation,
    "queue": conformance_checks.queue,
    "close": conformance_checks.close,
    "event_loop": conformance_checks.event_loop,
    "describe": conformance_checks.describe,
    "many": conformance_checks.many,
    "watts": conformance_checks.watts,
    "untouched": conformance_checks.untouched,
    "secrets": conformance_checks.secrets,
}
"""Name -> check. Each one's docstring is the promise."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check ended. With neither `problem` nor `skipped` the promise was kept."""

    check: str
    promise: str
    problem: str | None = None
    skipped: str | None = None


async def run_check(name: str, bench: DriverBench) -> CheckResult:
    """Run one of `CHECKS`.

    Raises:
        ConformanceError: the promise was not kept; the text says how.
    """
    check = CHECKS[name]
    promise = " ".join((check.__doc__ or name).split())
    try:
        await check(bench)
    except NotApplicableError as reason:
        return CheckResult(name, promise, skipped=str(reason))
    except PowerError as problem:
        raise ConformanceError(f"{name}: the device answers, and the driver raised {described(problem)}") from problem
    except ConformanceError as problem:
        raise ConformanceError(f"{name}: {problem} (promise: {promise})") from problem
    return CheckResult(name, promise)


async def check_driver(bench: DriverBench) -> list[CheckResult]:
    """Run all `CHECKS`; those that do not apply say why.

    Raises:
        ConformanceError: promises were not kept; the text has one line for each.
    """
    results: list[CheckResult] = []
    problems: list[str] = []
    for name in CHECKS:
        try:
            results.append(await run_check(name, bench))
        except ConformanceError as problem:
            problems.append(str(problem))
    if problems:
        raise ConformanceError("\n".join(problems))
    return results
