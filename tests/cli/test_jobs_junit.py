"""JUnit XML of jobs: whatever boards and users say, it stays XML, and its counts are right."""

from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.jobs.junit import MAX_OUTPUT_LETTERS, junit
from wire.payloads import JobSummary, StepResult
from wire.phases import JobState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(state=JobState.PASSED, *steps, **more):
    return JobSummary(
        job="job-1", name="t", state=state, submitted=NOW, started=NOW, ended=NOW, steps=list(steps), **more
    )


def suite_of(text):
    return ET.fromstring(text)[0]  # noqa: S314  # our own


def counts(suite):
    return tuple(int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped"))


OK = StepResult(name="a", exit_code=0, took_s=1.5, passed=True)
BAD = StepResult(name="b", exit_code=3, passed=False)
NOT_RUN = StepResult(name="c", problem="not run: step b did not pass", passed=False)


@pytest.mark.parametrize(
    ("summary", "wanted"),
    [
        (job(JobState.PASSED, OK), (1, 0, 0, 0)),
        (job(JobState.FAILED, OK, BAD, NOT_RUN), (3, 1, 0, 1)),
        (job(JobState.PASSED, OK, BAD), (2, 0, 0, 1)),
        (job(JobState.PASSED, StepResult(name="a", exit_code=77, passed=True)), (1, 0, 0, 0)),
        (job(JobState.FAILED, OK, reason="the output lacks 'ok'"), (2, 1, 0, 0)),
        (job(JobState.ERROR, reason="no board came up"), (1, 0, 1, 0)),
        (job(JobState.CANCELLED, reason="cancelled"), (1, 0, 1, 0)),
        (job(JobState.RUNNING), (1, 0, 1, 0)),
    ],
)
def test_counts(summary, wanted):
    assert counts(suite_of(junit(summary, {}))) == wanted


def test_output_stands_with_its_step_and_is_bounded():
    suite = suite_of(junit(job(JobState.PASSED, OK), {"a": "x" * (MAX_OUTPUT_LETTERS + 5) + "end", "b": "other"}))
    text = suite.findtext("testcase/system-out")
    assert text.startswith("[boardhand: 8 letters left out]\n") and text.endswith("xend")
    assert len(text) < MAX_OUTPUT_LETTERS + 100
    assert suite.find("testcase").get("time") == "1.500"


anything = st.text(max_size=40)


@given(anything, anything, anything)
def test_whatever_is_said_it_stays_xml(name, problem, output):
    step = StepResult(name=name[:256], problem=problem)
    summary = job(JobState.FAILED, step, reason=problem)
    suite = suite_of(junit(summary, {step.name: output}))
    assert counts(suite)[0] == len(suite.findall("testcase"))
