"""Real links and neighbours of a real kernel, in network namespaces of our own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def board() -> Iterator[int]:
    """The process that is a board: it has a network of its own, and nothing in it yet."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo there; exec sleep 300"], stdout=-1) as found:
        assert found.stdout is not None
        assert found.stdout.readline() == b"there\n"
        yield found.pid
        found.kill()


def story(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--net", sys.executable, Path(__file__).with_name(name), *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": PATH}
    told = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT, env=environment)
    assert told.returncode == 0, told.stderr
    return told


def test_a_board_is_seen_without_client_and_console(board) -> None:
    told = story("namespace_story.py", board)
    lines = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("[")]
    assert lines == [
        ["by-other-name", "link up on bh-front-port", True, False],
        ["pi", "link up on bhk0", True, False],
        ["pi", "answers as 10.9.0.2 on bhk0", True, False],
        ["pi", "answers no more as 10.9.0.2 on bhk0", False, False],
        ["by-other-name", "link down on bh-front-port", False, False],
        ["pi", "link down on bhk0", False, False],
    ]
    assert "looking at everything anew" in told.stderr


def test_an_agent_tells_of_it(board, tmp_path) -> None:
    story("agent_story.py", board, tmp_path)
