"""A reload while a job's step runs on the console of a board without a client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.whole_path.test_console_steps import ConsoleFarm


@pytest.fixture
def farm(tmp_path: Path, mqtt) -> Iterator[ConsoleFarm]:
    found = ConsoleFarm(tmp_path, mqtt, noise_s=0)
    yield found
    found.close()


def test_a_step_on_a_console_goes_on_and_its_console_is_not_changed_under_it(farm):
    begun, go = farm.folder / "begun", farm.folder / "go"
    job = farm.submit(
        "name: patient\nboard: pi\ntimeout_s: 120\nattempts: 1\nsteps:\n"
        f"  - {{name: waits, run: 'echo one >>{begun}; while [ ! -e {go} ]; do sleep 0.1; done; echo the end'}}\n"
    )
    farm.until(begun.exists, "the step runs")
    farm.until(lambda: "busy" in farm.cli("boards").stdout, "the agent knows it")
    whole = farm.settings.read_text()
    # What the step does not go by is taken up.
    farm.settings.write_text(whole.replace("boot_timeout_s = 120", 'boot_timeout_s = 110\nlabels = {shelf = "3"}'))
    done = farm.cli("agent", "reload")
    assert done.returncode == 0, done.stderr
    # Its console, and who types there, are another thing.
    changes = (
        ('user = "root"\n', 'user = "root"\nspeed = 9600\n'),
        ('client = "console"\n', "trust_mac = true\n"),
    )
    for old, new in changes:
        assert whole.count(old) == 1
        farm.settings.write_text(whole.replace(old, new))
        done = farm.cli("agent", "reload")
        assert done.returncode == 1, (new, done.stdout)
        assert "board pi: a job is under way on its console" in done.stderr
    assert begun.read_text().splitlines() == ["one"]
    go.touch()
    farm.until(lambda: farm.job(job)["state"] in {"passed", "failed", "error"}, "it has ended")
    told = farm.job(job)
    assert (told["state"], told["attempt"]) == ("passed", 1), told
    assert begun.read_text().splitlines() == ["one"]
    farm.settings.write_text(whole.replace(*changes[0]))
    farm.until(lambda: farm.cli("agent", "reload").returncode == 0, "after the job it is taken up")
