import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.jobs.spec import parse_job
from broker.jobs.verdict import MAX_LINE_LETTERS, Kind, OutputWatch, judge, judged
from wire.payloads import StepResult, WorkOutcome
from wire.phases import Outcome

TWO = "name: t\nsteps:\n- {name: a, run: x}\n- {name: b, run: y}\n"


def outcome(*codes, names=("a", "b"), log_chunks=0, said=None, **more):
    steps = [
        StepResult(name=name, exit_code=code) if isinstance(code, int) else StepResult(name=name, problem=code)
        for name, code in zip(names, codes, strict=False)
    ]
    worst = Outcome.FAILED if any(code != 0 for code in codes) else Outcome.PASSED
    return WorkOutcome(job="job-1", token=1, outcome=said or worst, steps=steps, log_chunks=log_chunks, **more)


@pytest.mark.parametrize(
    ("yaml", "codes", "kind", "reason"),
    [
        (TWO, (0, 0), Kind.PASSED, None),
        (TWO, (0, 1), Kind.FAILED, "b: exit code 1"),
        (TWO, (2, "not run: step a did not pass"), Kind.FAILED, "a: exit code 2"),
        (TWO, (0,), Kind.FAILED, "b: the board told nothing of it"),
        (TWO.replace("run: x", "run: x, exit_codes: [0, 77]"), (77, 0), Kind.PASSED, None),
        (TWO.replace("run: x", "run: x, exit_codes: [77]"), (0, 0), Kind.FAILED, "a: exit code 0"),
        (TWO + "success: {steps: b}", (1, 0), Kind.PASSED, None),
        (TWO + "success: {steps: b}", (1, "not run: x"), Kind.FAILED, "b: not run: x"),
        (TWO + "success: {output: ok}", (0, 0), Kind.FAILED, "the output lacks 'ok'"),
        (TWO + "files: [{path: f, text: x}]", (0, 0, 0), Kind.PASSED, None),
        (TWO + "files: [{path: f, text: x}]", (1, "no", "no"), Kind.FAULT, "the files could not be brought"),
    ],
)
def test_verdicts(yaml, codes, kind, reason):
    spec = parse_job(yaml)
    names = ("boardhand: files", "a", "b") if spec.files else ("a", "b")
    verdict = judge(spec, outcome(*codes, names=names), OutputWatch.of(spec))
    assert verdict.kind is kind
    assert (reason is None and verdict.reason is None) or verdict.reason.startswith(reason)


def test_output_is_looked_through_as_it_comes():
    spec = parse_job(
        "name: t\nsteps: [{name: a, run: x, output: 'eth*: link * up'}, {name: b, run: y}]\n"
        "success: {output: [done], not_output: ['*Oops*', '* BUG*cpu*']}\n"
    )
    watch = OutputWatch.of(spec)
    watch.feed(0, "a", "eth0: li")
    watch.feed(0, "a", "eth0: li")  # QoS 1: again
    watch.feed(1, "a", "nk is up\nlink BUG\non cpu\n")
    watch.feed(2, "b", "do")
    watch.feed(3, "b", "ne")
    verdict = judge(spec, outcome(0, 0, log_chunks=4), watch)
    assert verdict.kind is Kind.PASSED, verdict
    watch.feed(4, "b", "\nkernel Oops: 1")
    verdict = judge(spec, outcome(0, 0, log_chunks=5), watch)
    assert (verdict.kind, verdict.reason) == (Kind.FAILED, "the output holds '*Oops*'")


def test_a_pattern_in_another_step_does_not_count():
    spec = parse_job("name: t\nsteps: [{name: a, run: x, output: ok}, {name: b, run: y}]")
    watch = OutputWatch.of(spec)
    watch.feed(0, "b", "ok\n")
    found = judged(spec, outcome(0, 0, log_chunks=1), watch)
    assert [step.passed for step in found] == [False, True]
    assert judge(spec, outcome(0, 0, log_chunks=1), watch).reason == "a: its output lacks 'ok'"


def test_a_log_with_holes_is_no_ground_for_a_verdict():
    spec = parse_job("name: t\nsteps: [{name: a, run: x}]\nsuccess: {output: ok}")
    watch = OutputWatch.of(spec)
    watch.feed(0, "a", "one\n")
    watch.feed(2, "a", "three\n")
    verdict = judge(spec, outcome(0, log_chunks=4), watch)
    assert verdict.kind is Kind.FAULT and verdict.reason.startswith("2 pieces")
    assert judge(spec, outcome(1, log_chunks=4), watch).kind is Kind.FAILED


def test_a_line_without_end_fills_no_memory():
    watch = OutputWatch.of(parse_job("name: t\nsteps: [{name: a, run: x}]\nsuccess: {output: ok}"))
    for seq in range(40):
        watch.feed(seq, "a", "x" * 60_000)
        assert len(watch._line) <= MAX_LINE_LETTERS


words = st.text(st.sampled_from("ab \n"), max_size=12)


@given(
    st.lists(words, max_size=8),
    st.lists(st.text(st.sampled_from("ab "), min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_cutting_the_output_into_pieces_changes_nothing(pieces, parts):
    spec = parse_job("name: t\nsteps: [x]").model_copy(deep=True)
    object.__setattr__(spec.success, "output", ["*".join(parts)])
    whole, cut = OutputWatch.of(spec), OutputWatch.of(spec)
    whole.feed(0, None, "".join(pieces))
    for seq, piece in enumerate(pieces):
        cut.feed(seq, None, piece)
    whole.flush()
    cut.flush()
    assert whole.not_found(None) == cut.not_found(None)
