"""The published schema agrees with what is taken, by the word of a foreign validator (Debian's python3-jsonschema)."""

import json
import subprocess

import pytest
import yaml

from broker.jobs import schema as job_schema
from tests.broker.live import ROOT
from tests.broker.test_job_spec import WHOLE

SCHEMA = ROOT / "docs" / "job.schema.json"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def valid(job, tmp_path):
    instance = tmp_path / "job.json"
    instance.write_text(json.dumps(job))
    check = (
        "import json, sys, jsonschema\n"
        "schema, job = (json.load(open(name)) for name in sys.argv[1:])\n"
        "jsonschema.Draft202012Validator.check_schema(schema)\n"
        "found = list(jsonschema.Draft202012Validator(schema).iter_errors(job))\n"
        "print(found)\nsys.exit(3 if found else 0)"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", check, str(SCHEMA), str(instance)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    return done.returncode == 0


def test_the_stored_schema_is_current():
    assert SCHEMA.read_text() == job_schema.text()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_fit_it(path, tmp_path):
    assert valid(yaml.safe_load(path.read_text()), tmp_path)


def test_a_whole_job_fits_it_and_typos_do_not(tmp_path):
    job = yaml.safe_load(WHOLE)
    assert valid(job, tmp_path)
    short = {"boot": "rescue", "artifacts": "*.log", "success": {"output": "ok"}, "files": [{"path": "a", "text": "b"}]}
    assert valid(job | short, tmp_path)
    for wrong in ({"stpes": []}, {"steps": []}, {"boot": {"kernal": 1}}, {"files": [{"text": "b"}]}, {"attempts": 0}):
        assert not valid(job | wrong, tmp_path), wrong
