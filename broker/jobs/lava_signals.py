"""Results of tests that stand in a job's output as LAVA's signals: lines `<LAVA_SIGNAL_TESTCASE …>`. Pure.

The scripts that jobs find on their boards print them, and so do test repositories that were written for LAVA.
"""

import re
from dataclasses import dataclass, field

from wire.payloads import MAX_SHORT_TEXT, StepResult

SIGNAL = "<LAVA_SIGNAL_"
MAX_CASES = 500
"""Of one attempt: the summary of a job must fit one message."""
MAX_PROBLEM_LETTERS = 200
_SIGNAL = re.compile(r"<LAVA_SIGNAL_(TESTCASE|STARTTC|ENDTC|TESTSET|TESTRAISE)\s+([^<>]*)>")
_RESULTS = ("pass", "fail", "skip", "unknown")


@dataclass(slots=True)
class Signals:
    """Collects the cases of one attempt, in the order in which they were told."""

    cases: list[StepResult] = field(default_factory=list)
    raised: str | None = None
    """What `lava-test-raise` said: the job cannot go on."""
    dropped: int = 0
    failed: list[str] = field(default_factory=list)
    _set: str = ""

    def look(self, line: str) -> None:
        """A line of output. One without a signal, or with a broken one, changes nothing."""
        if SIGNAL not in line:
            return
        for kind, rest in _SIGNAL.findall(line):
            if kind == "TESTSET":
                word, _, name = rest.strip().partition(" ")
                self._set = name.strip() if word == "START" else ""
            elif kind == "TESTCASE":
                self._case(dict(part.partition("=")[::2] for part in rest.split()))
            elif kind == "TESTRAISE" and self.raised is None:
                self.raised = rest.strip()[:MAX_PROBLEM_LETTERS]

    def _case(self, keys: dict[str, str]) -> None:
        name, result = keys.get("TEST_CASE_ID", ""), keys.get("RESULT", "")
        if not name or result not in _RESULTS:
            return
        group = keys.get("TEST_SET_ID") or self._set
        told = (f"{group}/{name}" if group else name)[:MAX_SHORT_TEXT]
        if result == "fail":
            self.failed.append(told)
        if len(self.cases) >= MAX_CASES:
            self.dropped += 1
            return
        value = f"{keys['MEASUREMENT']} {keys.get('UNITS', '')}".strip() if "MEASUREMENT" in keys else ""
        problem = {"pass": "", "fail": "the test case failed", "skip": "not run: skipped", "unknown": "result unknown"}
        why = "; ".join(part for part in (problem[result], value and f"measured {value}") if part)
        self.cases.append(
            StepResult(
                name=told,
                exit_code=0 if result == "pass" else None if result == "skip" else 1,
                problem=why[:MAX_PROBLEM_LETTERS] or None,
                passed=result == "pass",
            )
        )

    def failure(self) -> str | None:
        """Why the job has failed by its test cases, or None. What was skipped or is unknown fails nothing."""
        if self.raised is not None:
            return f"lava-test-raise: {self.raised}"
        if not self.failed:
            return None
        more = f", and {len(self.failed) - 1} more" if len(self.failed) > 1 else ""
        return f"test case {self.failed[0]} failed{more}"
