"""Test cases in a job's output, and what they do to its verdict."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.groups.lava_tools import NAMES, bring_script
from broker.jobs.lava_signals import MAX_CASES, Signals
from broker.jobs.spec import parse_job
from broker.jobs.steps import BRING_NAME, bring_count, wire_steps
from broker.jobs.verdict import Kind, OutputWatch, judge, judged
from wire.payloads import StepResult, WorkOutcome
from wire.phases import Outcome

LAVA = parse_job("name: x\nlava: true\nsteps: [x]\n")
FAIL = "<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=ping RESULT=fail>"


def looked(*lines):
    signals = Signals()
    for line in lines:
        signals.look(line)
    return signals


def outcome(log_chunks=1):
    steps = [StepResult(name=step.name, exit_code=0) for step in wire_steps(LAVA)]
    return WorkOutcome(job="job-1", token=1, outcome=Outcome.PASSED, steps=steps, log_chunks=log_chunks)


def test_cases_with_sets_and_measurements():
    signals = looked(
        "<LAVA_SIGNAL_TESTSET START net>",
        "[  1.2] <LAVA_SIGNAL_TESTCASE TEST_CASE_ID=up RESULT=pass MEASUREMENT=1.5 UNITS=ms>",
        "<LAVA_SIGNAL_TESTSET STOP>",
        "<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=a RESULT=skip><LAVA_SIGNAL_TESTCASE TEST_CASE_ID=b RESULT=unknown>",
    )
    assert [(c.name, c.passed, c.problem) for c in signals.cases] == [
        ("net/up", True, "measured 1.5 ms"), ("a", False, "not run: skipped"), ("b", False, "result unknown"),
    ]  # fmt: skip
    assert signals.failure() is None


@pytest.mark.parametrize(
    "line",
    ["<LAVA_SIGNAL_TESTCASE>", "<LAVA_SIGNAL_TESTCASE RESULT=pass>", "<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=a RESULT=x>"],
)
def test_broken_signals_are_passed_over(line):
    assert looked(line).cases == []


@given(st.text(max_size=300))
def test_no_output_is_an_error(text):
    looked(f"<LAVA_SIGNAL_{text}", f"<LAVA_SIGNAL_TESTCASE {text}>")


def test_all_failures_count_though_not_all_are_listed():
    many = looked(*(f"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=c{n} RESULT=pass>" for n in range(MAX_CASES)), FAIL)
    assert (len(many.cases), many.dropped, many.failure()) == (MAX_CASES, 1, "test case ping failed")
    assert looked("<LAVA_SIGNAL_TESTRAISE no disk>", FAIL).failure() == "lava-test-raise: no disk"


def test_a_failed_case_fails_the_job_and_stands_behind_its_steps():
    watch = OutputWatch.of(LAVA)
    assert not watch.idle
    watch.feed(0, BRING_NAME, FAIL + "\n")
    watch.feed(1, "step 1", FAIL.replace("ping", "own"))
    told = outcome(2)
    assert [step.name for step in judged(LAVA, told, watch)] == [BRING_NAME, "step 1", "own"]
    verdict = judge(LAVA, told, watch)
    assert (verdict.kind, verdict.reason) == (Kind.FAILED, "test case own failed")
    assert judge(LAVA, outcome(5), OutputWatch.of(LAVA)).kind is Kind.FAULT, "the log was lost"


def test_only_jobs_that_want_them_have_signals_and_programs():
    plain = parse_job("name: x\nsteps: [x]\n")
    assert (bring_count(plain), bring_count(LAVA)) == (0, 1)
    assert OutputWatch.of(plain).idle
    assert parse_job("name: x\nlava: false\ngroup: {a: {steps: [x]}}\n").with_lava is False


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_the_programs_are_laid_down_by_any_shell_and_run(tmp_path, shell):
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "BOARDHAND_BIN": str(tmp_path), "BOARDHAND_BOARD": "b1"}
    run = [*shell.split(), "-c"]
    subprocess.run([*run, bring_script()], env=env, check=True, timeout=60)
    assert {path.name for path in tmp_path.iterdir()} == {*NAMES, "lava-calls"}
    done = subprocess.run(
        [*run, "lava-self; lava-send x"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "b1\n")
    assert "this job has no group" in done.stderr
    old = subprocess.run(
        [*run, bring_script()], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (old.returncode, "too old" in old.stdout) == (1, True)
