"""Two parsers read jobs, and nobody may be able to tell which: the same values, lines and words of a fault."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.jobs import strict_yaml as job_yaml

EXAMPLES = [path.read_text(encoding="utf-8") for path in (Path(__file__).parents[2] / "examples").glob("*.yaml")]
TEXTS = [
    *EXAMPLES,
    "name: a\nsteps:\n  - run: |\n      x\n      y\n    timeout_s: 3\nenv: {A: 0x10, B: 1_000, C: 1:20, D: ~}\n",
    "a: >-\n  folded\n\n  text\nb: 2001-01-01\n",
    "? a\n: \"\\u00e9\\x41\"\n'b': !!str 1\n",
    "<<: {a: &x b}\n---\nc: *x\n",
]
INDICATORS = "\n :-[]{}#&*!|>'\"%@`,?\t\\a1.~é\u2028\x85\ufeff\r=<"


def read(loader, text):
    try:
        return job_yaml._load(loader, text)
    except job_yaml.JobSpecError as error:
        return error.key, error.line, error.problem


@st.composite
def nearly_yaml(draw):
    letters = list(draw(st.sampled_from(TEXTS)))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(letters)))
        letters[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from(INDICATORS))
    return "".join(letters)


def whichever(text):
    try:
        return job_yaml.load(text)
    except job_yaml.JobSpecError as error:
        return error.key, error.line, error.problem


@given(nearly_yaml())
def test_both_parsers_say_the_same(text):
    assert repr(whichever(text)) == repr(read(job_yaml._Loader, text))  # repr: a NaN is not itself


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a:-\t1\n",
            "a: [b?, c]\n",
            "a: !\n",
            "- [!, b]\n",
            "---\n#a",
            "a: >#-\n  b\n",
            "a: b\u2028c: d\n",
            "\ufeffa: b",
        ),
        *("a: \ud800", "a: \0", "a: *b", "a: " + "[" * 30, "a: 1\na: 2", "a: !x y"),
    ],
)
def test_what_they_read_differently_goes_to_one_of_them(text):
    assert repr(whichever(text)) == repr(read(job_yaml._Loader, text))


def test_an_ordinary_job_goes_through_libyaml(monkeypatch):
    monkeypatch.setattr(job_yaml, "_Loader", None)
    assert job_yaml.load("name: a\nsteps: [make test]\n")[0] == {"name": "a", "steps": ["make test"]}


def test_without_libyaml_jobs_are_read_as_well(monkeypatch):
    monkeypatch.setattr(job_yaml, "_FastLoader", None)
    assert job_yaml.load("a: [b, 1]")[0] == {"a": ["b", 1]}
