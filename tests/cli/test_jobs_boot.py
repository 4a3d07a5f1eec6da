"""A job with its own boot on a farm of light boards: real agent, netboot, broker and Mosquitto; only the boards' Linux
is played."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.farm_double import boardhand, clean_environment, wait_for

JOB = "name: own boot\nboard: {board}\nboot: {boot}\nsteps: [echo booted]\nartifacts: ['*.log']\n"


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[str]:
    """`boardhand up` with two light boards; gives its MQTT server."""
    (tmp_path / "run").mkdir()
    env = clean_environment(XDG_RUNTIME_DIR=str(tmp_path / "run"), XDG_STATE_HOME=str(tmp_path / "state"))
    command = [sys.executable, "-m", "cli", "up", "--boards", "0", "--light", "2", "--idle-s", "600", "--json"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        said: list[str] = []
        assert child.stdout is not None
        reader = threading.Thread(target=lambda stream=child.stdout: said.extend(stream), daemon=True)
        reader.start()
        try:
            wait_for(lambda: any('"ready"' in line for line in list(said)), "the farm is up", 60)
            ready = next(json.loads(line) for line in said if '"ready"' in line)
            yield str(ready["mqtt"])
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(60)
            reader.join(60)


def test_the_board_boots_for_the_job_and_goes_back(farm: str) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return boardhand(*arguments, "--mqtt", farm)

    def boards() -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(run("boards", "--json").stdout)["boards"]
        return found

    board = str(boards()[0]["board"])
    submitted = subprocess.run(
        [sys.executable, "-m", "cli", "submit", "-", "--follow", "--mqtt", farm],
        input=JOB.format(board=board, boot="light"), env=clean_environment(),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "booted" in submitted.stdout
    told = json.loads(run("job", "show", "job-1", "--json").stdout)
    lines = [entry["what"] for entry in told["timeline"]]
    asked = next(n for n, line in enumerate(lines) if "was asked to boot profile light" in line)
    new = next(n for n, line in enumerate(lines) if "has registered in boot" in line)
    offered = next(n for n, line in enumerate(lines) if line.startswith("offered"))
    assert asked < new < offered
    assert any(": power" in line for line in lines[asked:offered]), lines
    assert any(": registered" in line for line in lines[asked:]), lines
    assert told["artifacts"][0]["problem"] == "a light board has no files"
    wait_for(lambda: boards()[0]["power"] == "off", "the board is switched off, and has its own profile back", 30)
    wrong = subprocess.run(
        [sys.executable, "-m", "cli", "submit", "-", "--wait", "--mqtt", farm],
        input=JOB.format(board=board, boot="{kernel: {url: 'http://127.0.0.1:9/Image', sha256: " + "ab" * 32 + "}}")
        + "queue_timeout_s: 3\n", env=clean_environment(), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert wrong.returncode == 6, wrong.stdout + wrong.stderr
    assert "its agent cannot boot Image" in wrong.stdout, wrong.stdout
