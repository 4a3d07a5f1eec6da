import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from broker.jobs.labels import Want
from broker.jobs.spec import MAX_YAML_BYTES, BootSpec, FileSpec, JobSpec, JobSpecError, StepSpec, parse_job
from broker.jobs.steps import MAX_SCRIPT_BYTES, wire_steps

WHOLE = """\
name: kernel smoke
labels:
  arch: arm64
  memory_mb: ">= 2048"
  soc: [rk3588, bcm2711]
board: rpi4-07
priority: 5
env: {MODE: 0755, DEBUG: yes, EMPTY: ""}
timeout_s: 900
attempts: 3
queue_timeout_s: 3600
steps:
  - uname -a
  - true
  - {name: test, run: make check, timeout_s: 60}
"""


def test_whole_job():
    spec = parse_job(WHOLE)
    assert spec.env == {"MODE": "0755", "DEBUG": "yes", "EMPTY": ""}
    assert [str(want) for want in spec.wants()] == ["arch=arm64", "memory_mb >= 2048", "soc=rk3588 or bcm2711"]
    steps = wire_steps(spec)
    assert [(step.name, step.run, step.timeout_s) for step in steps] == [
        ("step 1", "uname -a", 900),
        ("step 2", "true", 900),
        ("test", "make check", 60),
    ]


def test_defaults():
    spec = parse_job("name: a\nsteps: [b]")
    assert (spec.priority, spec.attempts, spec.timeout_s, spec.queue_timeout_s, spec.board) == (0, 2, 3600, None, None)


@pytest.mark.parametrize(
    ("text", "key", "line", "problem"),
    [
        ("", "", None, "mapping"),
        ("- a", "", None, "mapping"),
        ("name: a", "steps", 1, "required"),
        ("name: a\nsteps: []", "steps", 2, "at least 1"),
        ("name: a\nstpes: [a]\nsteps: [a]", "stpes", 2, "no such key"),
        ("name: a\nsteps:\n- run: a\n  timout: 5", "steps.0.timout", 4, "has name, run, timeout_s, exit_codes"),
        ("name: a\nname: b\nsteps: [a]", "name", 2, "twice"),
        ("name: a\nsteps: [a]\nboard: Bad_Name", "board", 3, "pattern"),
        ("name: a\nsteps: [a]\ntimeout_s: -1", "timeout_s", 3, "greater than 0"),
        ("name: a\nsteps: [a]\ntimeout_s: .inf", "timeout_s", 3, "finite"),
        ("name: a\nsteps: [a]\ntimeout_s: soon", "timeout_s", 3, "number"),
        ("name: a\nsteps: [a]\nattempts: 0", "attempts", 3, "greater"),
        ("name: a\nsteps: [a]\nlabels:\n  memory_mb: '>= lots'", "labels", 3, "memory_mb: '>= lots' compares"),
        ("name: a\nsteps: [a]\nlabels: {a: {b: c}}", "labels", 3, "a: write a word"),
        ("name: a\nsteps: [a]\nlabels: {a: []}", "labels", 3, "at least one"),
        ("name: a\nsteps: [a]\nenv: {1A: b}", "env.1A.[key]", 3, "pattern"),
        ("name: a\nsteps: [a]\nenv: {A: [b]}", "env.A", 3, "string"),
        ("name: a\nsteps: [*x]", "", 2, "aliases"),
        ("name: a\nsteps: [a", "", 2, "not YAML"),
        ("name: a\n\tsteps: [a]", "", 2, "not YAML"),
        ("name: a\nsteps: [a]\n? [x]\n: y", "", 3, "plain words"),
        ("a: " + "[" * 50, "", 1, "nested deeper"),
        ("name: a\nsteps: !!python/object/apply:os.system [id]", "steps", 2, "tags such as"),
        ('name: "\\ud800"\nsteps: [a]', "name", 1, "surrogate"),
        ("name: a\x00b\nsteps: [a]", "", None, "not YAML"),
        ("name: a\nsteps: [a]\n---\nname: b", "", 3, "not YAML"),
        ("name: a\nsteps: [null]", "steps.0", 2, ""),
        ("name: a\nsteps: [a]\npriority: " + "9" * 5000, "priority", 3, ""),
        ("x" * (MAX_YAML_BYTES + 1), "", None, "bytes are more"),
        ("name: a\nsteps:\n- run: a\n  exit_codes: [256]", "steps.0.exit_codes.0", 4, "less than or equal to 255"),
        ("name: a\nsteps:\n- run: a\n  exit_codes: []", "steps.0.exit_codes", 4, "at least 1"),
        ("name: a\nsteps:\n- run: a\n  continue_on_fail: maybe", "steps.0.continue_on_fail", 4, "boolean"),
        ("name: a\nsteps:\n- run: a\n  output: ['*']", "steps.0.output.0", 4, "pattern"),
        ("name: a\nsteps: [a]\nboot:\n  kernel: {url: ftp://x/y}", "boot.kernel.url", 4, "pattern"),
        ("name: a\nsteps: [a]\nboot:\n  cmdline: quiet", "boot", 3, "either profile or kernel"),
        ("name: a\nsteps: [a]\nboot:\n  profile: p\n  cmdline: quiet", "boot", 3, "leave out"),
        ("name: a\nsteps: [a]\nboot:\n  kernal: x", "boot.kernal", 4, "has profile, kernel"),
        ("name: a\nsteps: [a]\nboot:\n  kernel:\n    ulr: x", "boot.kernel.url", 4, "required"),
        ("name: a\nsteps: [a]\nboot: Not_An_Id", "boot.profile", 3, "pattern"),
        ("name: a\nsteps: [a]\nfiles:\n- path: x", "files.0", 4, "either text or url"),
        ("name: a\nsteps: [a]\nfiles:\n- path: x\n  url: http://a/b", "files.0", 4, "sha256 belongs"),
        ("name: a\nsteps: [a]\nfiles:\n- path: x\n  url: http://a/b\n  sha256: abc", "files.0.sha256", 6, "pattern"),
        ("name: a\nsteps: [a]\nfiles:\n- {path: x, text: a, mode: rwx}", "files.0.mode", 4, "pattern"),
        ("name: a\nsteps: [a]\nfiles:\n- {path: x, txet: a}", "files.0.txet", 4, "has path, text"),
        ('name: a\nsteps: [a]\nfiles:\n- {path: "x\\ny", text: a}', "files.0.path", 4, "pattern"),
        ("name: a\nsteps: [a]\nsuccess:\n  steps: [b]", "success.steps", 4, "the steps are step 1"),
        ("name: a\nsteps: [a]\nsuccess: {stpes: b}", "success.stpes", 3, "has steps, output"),
        ("name: a\nsteps: [a]\nartifacts: []", "artifacts.paths", 3, "at least 1"),
        ("name: a\nsteps: [a]\nartifacts: {paths: [a], max_mb: 9999}", "artifacts.max_mb", 3, "less than"),
        ('name: a\nsteps: [a]\nartifacts: ["a\\nb"]', "artifacts.paths.0", 3, "pattern"),
        ("name: a\nsteps: [a]\nnotify: {}", "notify", 3, "mqtt, webhook or both"),
        ("name: a\nsteps: [a]\nnotify: {mqtt: a/b}", "notify.mqtt", 3, "pattern"),
        ("name: a\nsteps: [a]\nnotify: {webhook: 'file:///etc/passwd'}", "notify.webhook", 3, "pattern"),
        ("name: a\nsteps: [a]\nnotify: {mqtt: a, on: [never]}", "notify.on.0", 3, "passed"),
    ],
)
def test_errors_name_key_and_line(text, key, line, problem):
    with pytest.raises(JobSpecError) as caught:
        parse_job(text)
    assert (caught.value.key, caught.value.line) == (key, line)
    assert problem in caught.value.problem


@given(st.text(max_size=300))
def test_any_text_is_a_job_or_a_job_error(text):
    try:
        parse_job(text)
    except JobSpecError:
        return


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["name", "labels", "board", "priority", "steps", "env", "timeout_s", "attempts", "queue_timeout_s", "run"]
KEYS += ["boot", "files", "success", "artifacts", "notify"]


def test_whole_job_of_the_newer_keys():
    spec = parse_job(
        """\
name: kernel
boot: {kernel: {url: "https://ci/Image.gz", sha256: SUM}, cmdline: console=ttyAMA0}
files:
  - {path: a/b.txt, text: 12, mode: 0755}
  - {path: c, url: "http://ci/it's", sha256: SUM}
steps:
  - {name: probe, run: true, exit_codes: [0, 77], output: "eth* up"}
  - {run: false, continue_on_fail: yes}
success: {steps: probe, not_output: ["*Oops*"]}
artifacts: out/*.log
notify: {mqtt: ci, on: [failed]}
""".replace("it's", "its").replace("SUM", "ab" * 32)
    )
    boot = spec.boot.request()
    assert (
        boot["kernel"] == {"url": "https://ci/Image.gz", "sha256": "ab" * 32} and boot["cmdline"] == "console=ttyAMA0"
    )
    more = {"family": "uboot", "root": "debian", "overlays": [{"url": "https://ci/spi.dtbo", "sha256": "cd" * 32}]}
    whole = BootSpec.model_validate({**boot, **more})
    assert whole.request() == {**boot, **more}
    bring, probe, second = wire_steps(spec)
    assert "printf %s '12' >'./a/b.txt'" in bring.run and "chmod 0755 './a/b.txt'" in bring.run
    assert probe.exit_codes == [0, 77] and second.continue_on_fail and second.exit_codes is None
    assert spec.success.steps == ["probe"] and spec.artifacts.wish().max_bytes == 16 << 20
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec


@given(st.lists(st.text(max_size=9000), max_size=9))
def test_whatever_the_files_hold_the_steps_can_be_sent(texts):
    files = [FileSpec(path=f"f{n}", text=text.replace("\0", "")) for n, text in enumerate(texts)]
    for step in wire_steps(JobSpec(name="t", steps=[StepSpec(run="true")], files=files)):
        assert len(step.run) <= 65536 and len(step.run.encode()) < 2 * MAX_SCRIPT_BYTES


@given(st.dictionaries(st.sampled_from(KEYS), values | st.sampled_from(["a", ["a"], {"a": "b"}, 3]), max_size=9))
def test_any_yaml_is_a_job_or_a_job_error(given_job):
    try:
        spec = parse_job(yaml.safe_dump(given_job))
    except JobSpecError:
        return
    assert len(wire_steps(spec)) >= len(spec.steps)
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("written", "have", "met"),
    [
        ("arm64", "arm64", True),
        ("arm64", "arm", False),
        ("arm64", None, False),
        (4, "4", True),
        ("4", 4.0, True),
        (True, True, True),
        (True, "true", True),
        (True, 1, False),
        ([1, "b"], "b", True),
        ([1, "b"], "c", False),
        (">= 2048", 2048, True),
        (">=2048", 2047, False),
        ("> 1", "2", True),
        ("<= 1", True, False),
        ("< 1", "many", False),
        ("!= acme", "other", True),
        ("!= acme", "acme", False),
        ("!= acme", None, False),
        ("== 5", 5, True),
        ("rpi", ("raspberrypi", "rpi"), True),
        ("!= rpi", ("raspberrypi", "rpi"), False),
        (">= 2", ("1", "3"), True),
    ],
)
def test_wants(written, have, met):
    labels = {} if have is None else {"x": have}
    assert Want.parse("x", written).met_by(labels) is met


@pytest.mark.parametrize("written", [None, {}, [], [None], ">= x", object()])
def test_what_cannot_be_wanted(written):
    with pytest.raises(ValueError, match=r"write|list"):
        Want.parse("x", written)
