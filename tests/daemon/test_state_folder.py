"""One daemon per state folder, seen with a real second process."""

import subprocess
import sys

import pytest

from daemon.foreground import DaemonError
from daemon.state_folder import held

HOLD = """
import sys
from pathlib import Path
from daemon.state_folder import held
with held(Path(sys.argv[1]), "agent"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_one_is_told_and_a_killed_one_lets_go(tmp_path):
    folder = tmp_path / "new" / "state"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        assert (folder / "agent.lock").read_text() == f"{other.pid}\n"
        with pytest.raises(DaemonError, match="another agent runs with this state_dir; stop it"), held(folder, "agent"):
            pytest.fail("two hold it")
        with held(folder, "broker"):
            pass
    finally:
        other.kill()
        other.communicate()
    with held(folder, "agent"):
        pass


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DaemonError, match="cannot be used as state_dir"), held(tmp_path / "file" / "state", "agent"):
        pytest.fail("there is no such folder")
