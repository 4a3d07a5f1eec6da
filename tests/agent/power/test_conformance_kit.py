"""The conformance kit finds what it is there for: one broken driver, at least, for each check."""

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from agent.power import conformance
from agent.power.errors import AuthenticationError, PowerError
from wire.phases import Power


def _beside(name):
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


good = _beside("good_driver")
BROKEN = _beside("broken_drivers").BROKEN


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr("agent.power.conformance_calls.RELEASE_TIMEOUT_S", 0.3)
    monkeypatch.setattr("agent.power.conformance_calls.SLACK_S", 0.3)


@pytest.mark.parametrize("check", conformance.CHECKS)
async def test_a_driver_that_keeps_its_promises_passes(check):
    result = await conformance.run_check(check, good.Bench())
    assert (result.problem, result.skipped) == (None, None)
    assert result.promise


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_broken_driver_is_found(kind):
    for check in BROKEN[kind]:
        with pytest.raises(conformance.ConformanceError, match=f"^{check}: "):
            await conformance.run_check(check, good.Bench(kind))
    for kept in kind.__dict__.get("kept", []):
        kept.close()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


def test_every_check_has_a_driver_that_only_it_can_be_trusted_to_find():
    assert set().union(*BROKEN.values()) == set(conformance.CHECKS)


async def test_all_at_once_has_one_line_for_each_broken_promise():
    assert len(await conformance.check_driver(good.Bench())) == len(conformance.CHECKS)
    (negative,) = (kind for kind in BROKEN if kind.__name__ == "NegativeWatts")
    with pytest.raises(conformance.ConformanceError) as caught:
        await conformance.check_driver(good.Bench(negative))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("watts: read('1') returned -1.0 (promise: `read` gives watts")


async def test_an_error_of_a_device_that_answers_is_a_broken_promise():
    class Refuses(good.Good):
        async def set(self, outlet, on):
            raise AuthenticationError("wrong password", controller="fake")

    with pytest.raises(conformance.ConformanceError, match=r"the device answers, .* AuthenticationError: fake: wrong"):
        await conformance.run_check("switches", good.Bench(Refuses))


async def test_a_driver_without_read_back_passes():
    class Blind(good.Good):
        reads_back = False

        def power(self, outlet):
            return Power.UNKNOWN

    assert len(await conformance.check_driver(good.Bench(Blind))) == len(conformance.CHECKS)


async def test_what_a_bench_cannot_do_is_said_and_not_counted_as_kept():
    class Poor(good.Bench):
        outlets = ("1",)
        secrets = ()
        can_press = can_silence = False

    results = {result.check: result.skipped for result in await conformance.check_driver(Poor())}
    assert {name for name, reason in results.items() if reason} == {
        "only_the_named", "hand", "no_guess", "silence", "recovery", "secrets"
    }  # fmt: skip


async def test_wrong_credentials_are_looked_at_too():
    class Careless(good.Good):
        async def ask(self):
            raise AuthenticationError(f"{good.SECRET} was refused", controller="fake")

    bench = good.Bench()
    bench.make_unauthorised = lambda: Careless(bench.device)
    with pytest.raises(conformance.ConformanceError, match=r"secret 1 is in .*\*\*\* was refused") as caught:
        await conformance.run_check("secrets", bench)
    assert good.SECRET not in str(caught.value), "the kit itself must not tell it"


def test_the_kit_needs_no_pytest():
    code = "import sys, agent.power.conformance; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_errors_of_the_kit_are_failed_assertions():
    assert issubclass(conformance.ConformanceError, AssertionError)
    assert not issubclass(conformance.ConformanceError, PowerError)
