"""A job as JUnit XML, as GitLab, Jenkins and others read it. Pure.

One test suite per job, one test case per step. The form is that of Jenkins' xunit plugin: `testsuites`, `testsuite`,
`testcase` with at most one of `failure`, `error` and `skipped`, and `system-out`.
"""

import re
from collections.abc import Mapping
from datetime import UTC
from xml.etree import ElementTree as ET

from wire.payloads import JobSummary, StepResult
from wire.phases import JobState

MAX_OUTPUT_LETTERS = 256 * 1024
"""Of each step; readers choke on more. The whole log is in the job."""
# XML 1.0, section 2.2: what a board prints and no XML can hold.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NOT_RUN = "not run:"


def clean(text: str) -> str:
    """`text` with U+FFFD for what XML cannot hold."""
    return _FORBIDDEN.sub("\ufffd", text)


def junit(job: JobSummary, outputs: Mapping[str, str]) -> str:
    """The XML document.

    Args:
        job: how it stands; of one that has not ended, what is known so far.
        outputs: what each step printed, by its name.
    """
    cases = [_case(job, step, outputs.get(step.name, "")) for step in job.steps]
    whole = _of_the_whole(job, any(case.find("failure") is not None for case in cases))
    if whole is not None:
        cases.append(whole)
    suite = ET.Element("testsuite", name=clean(job.name), hostname=job.board or "")
    suite.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    began = job.started or job.submitted
    suite.set("timestamp", began.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    suite.set("time", f"{(job.ended - began).total_seconds() if job.ended is not None else 0:.3f}")
    properties = ET.SubElement(suite, "properties")
    for name, value in (("job", job.job), ("state", job.state.value), ("attempt", str(job.attempt))):
        ET.SubElement(properties, "property", name=name, value=value)
    suite.extend(cases)
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _case(job: JobSummary, step: StepResult, output: str) -> ET.Element:
    case = ET.Element("testcase", classname=clean(job.name), name=clean(step.name), time=f"{step.took_s:.3f}")
    passed = step.passed if step.passed is not None else step.problem is None and step.exit_code == 0
    why = clean(step.problem or f"exit code {step.exit_code}")
    if not passed and why.startswith(NOT_RUN):
        ET.SubElement(case, "skipped", message=why)
    elif not passed and job.state is JobState.PASSED:
        ET.SubElement(case, "skipped", message=f"{why}; the job does not need it")
    elif not passed:
        ET.SubElement(case, "failure", message=why, type="step")
    if output:
        cut = len(output) - MAX_OUTPUT_LETTERS
        head = f"[boardhand: {cut} letters left out]\n" if cut > 0 else ""
        ET.SubElement(case, "system-out").text = clean(head + output[-MAX_OUTPUT_LETTERS:])
    return case


def _of_the_whole(job: JobSummary, step_failed: bool) -> ET.Element | None:  # noqa: FBT001  # of two lines above
    """A case for what no step tells: the farm's fault, a pattern in the output, a cancelled job."""
    case = ET.Element("testcase", classname=clean(job.name), name="job", time="0.000")
    why = clean(job.reason or job.state.value)
    if job.state is JobState.ERROR:
        ET.SubElement(case, "error", message=why, type="infrastructure")
    elif job.state is JobState.CANCELLED:
        ET.SubElement(case, "error", message=why, type="cancelled")
    elif job.state is JobState.FAILED and not step_failed:
        ET.SubElement(case, "failure", message=why, type="success")
    elif not job.state.ended:
        ET.SubElement(case, "error", message=f"{job.state.value}: {why}", type="unfinished")
    else:
        return None
    return case
