"""The example job on a farm as `make demo` starts it, with a real virtual board, by the words of docs/jobs.md."""

import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.cli.farm_double import ROOT, clean_environment, wait_for

BOOT_DEADLINE_S = 240
"""One QEMU board under TCG on cores that tests share; alone it needs 12 s."""


def words_of_the_docs() -> list[str]:
    """The command of docs/jobs.md, without the program's name."""
    text = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
    block = re.search(r"```sh\n(boardhand submit examples/smoke\.yaml.*?)\n```", text, re.DOTALL)
    assert block is not None
    return shlex.split(block[1].splitlines()[0])[1:]


@pytest.mark.timeout(400)
def test_the_example_runs_on_a_virtual_board(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    env = clean_environment(XDG_RUNTIME_DIR=str(tmp_path / "run"), XDG_STATE_HOME=str(tmp_path / "state"))
    command = [sys.executable, "-m", "cli", "up", "--boards", "1", "--json"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as up:
        said: list[str] = []
        assert up.stdout is not None
        reader = threading.Thread(target=lambda stream=up.stdout: said.extend(stream), daemon=True)
        reader.start()
        try:
            wait_for(lambda: any('"ready"' in line for line in list(said)), "the farm is up", BOOT_DEADLINE_S)

            def run(*words: str) -> subprocess.CompletedProcess[str]:
                return subprocess.run(
                    [sys.executable, "-m", "cli", *words], env=env | {"PWD": str(ROOT)}, cwd=ROOT,
                    capture_output=True, text=True, timeout=BOOT_DEADLINE_S, check=False,
                )  # fmt: skip

            done = run(*words_of_the_docs(), "--junit", str(tmp_path / "smoke.xml"))
            assert done.returncode == 0, done.stdout + done.stderr
            assert "hello from boardhand on virt-1" in done.stdout and "checks: ok" in done.stdout
            got = run("job", "artifacts", "job-1", "--get", str(tmp_path / "got"), "--json")
            assert got.returncode == 0, got.stderr
            assert (tmp_path / "got" / "smoke" / "uname.txt").read_text().split()[:2] == ["Linux", "virt-1"]
            told = json.loads(run("job", "show", "job-1", "--json").stdout)
            lines = [entry["what"] for entry in told["timeline"]]
            for part in ("virt-1: power", "virt-1: netboot", "virt-1: registered", "began to work"):
                assert any(part in line for line in lines), (part, lines)
            suite = ET.parse(tmp_path / "smoke.xml").getroot()[0]  # noqa: S314  # our own
            assert (suite.get("hostname"), suite.get("failures")) == ("virt-1", "0")
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(60)
            reader.join(60)
