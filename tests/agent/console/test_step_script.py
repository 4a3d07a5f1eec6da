"""What is made of a step and of the settings before anything is typed."""

import subprocess
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from agent.console.settings import ConsoleTable
from agent.console.shell_line import ShellError, password_of, ways_of
from agent.console_steps import step_script
from wire.payloads import Step, WorkOffer


def offer(**env):
    step = Step(name="s", run="true")
    later = datetime(2030, 1, 1, tzinfo=UTC)
    return WorkOffer(job="job-1", token=1, expires=later, name="j", steps=[step], env=env)


def test_a_step_has_its_folder_and_its_environment_and_no_other(tmp_path):
    (tmp_path / "work").mkdir()
    program = tmp_path / "bin" / "brought"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho brought\n")
    program.chmod(0o755)
    nasty = 'it\'s $(id) `id` \\ "x"\n; exit 1'
    script = step_script(
        offer(NASTY=nasty), 'printf %s "$NASTY"; pwd; brought; echo $BOARDHAND_BOARD', "pi", str(tmp_path)
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{nasty}{tmp_path}/work\nbrought\npi\n"


@pytest.mark.parametrize(
    ("env", "run", "why"),
    [
        ({"A-B": "x"}, "true", "no name"),
        ({}, "x" * 130_000, "bytes"),
        ({}, "a\0b", "bytes"),
        ({"É": ""}, "", "no name"),
    ],
)
def test_what_cannot_be_brought_is_told(env, run, why):
    with pytest.raises(ShellError, match=why):
        step_script(offer(**env), run, "pi", "/tmp/boardhand")  # noqa: S108  # on the board


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"prompt": "("}, "no regular expression"),
        ({"password_file": "/etc/hostname"}, "without user"),
        ({"user": "root", "password_file": "/nowhere"}, "is not there"),
        ({"user": "a\nb"}, "pattern"),
        ({"line_characters": 20}, "120"),
    ],
)
def test_settings_that_are_wrong(keys, why):
    with pytest.raises(ValidationError, match=why):
        ConsoleTable(device="/dev/ttyS0", **keys)


def test_settings_become_ways(tmp_path):
    (tmp_path / "password").write_text("s3cret word\r\nmore\n")
    table = ConsoleTable(
        device="/dev/ttyS0", user="root", password_file=tmp_path / "password", prompt="=> ", char_delay_ms=5
    )
    ways = ways_of(table, password_of(table.password_file))
    assert (ways.user, ways.password, ways.char_delay_s) == ("root", "s3cret word", 0.005)
    assert ways.prompt.search(b"x => ") is not None
    assert password_of(None) is None
    with pytest.raises(ShellError, match="cannot be read"):
        password_of(tmp_path / "gone")
