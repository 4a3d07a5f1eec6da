"""The README's first real task, done by the README alone: my own board on my own PDU."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.jobs.spec import parse_job

ROOT = Path(__file__).resolve().parents[2]
OUTLET_STATE = ".1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.3"  # rPDU2OutletSwitchedStatusState of outlet 3: 1 off, 2 on


def readme_block(after: str) -> str:
    """The first code block of the README that follows `after`, without its indentation."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```[a-z]*\n(.*?)```", text[text.index(after) :], re.DOTALL)
    assert block is not None
    return textwrap.dedent(block[1])


@pytest.fixture
def pdu(tmp_path: Path) -> Iterator[int]:
    """A virtual PDU of APC's rPDU2 family; gives its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "virtual_lab.snmp_pdu", "--family", "apc-rpdu2", "--stop-at-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    yield int(json.loads(process.stdout.readline())["port"])
    process.terminate()
    process.communicate(timeout=60)


def boardhand(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *words],
        cwd=folder,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def outlet_reads(port: int) -> str:
    command = ["snmpget", "-v2c", "-c", "private", "-Oqv", f"127.0.0.1:{port}", OUTLET_STATE]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def test_my_own_board_on_my_own_pdu(tmp_path: Path, pdu: int) -> None:
    subprocess.run(["sh", "-c", readme_block("Write the community into")], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "pdu-community").stat().st_mode & 0o077 == 0
    settings = readme_block("<!-- example: farm.toml -->")
    assert 'host = "192.0.2.10"' in settings
    (tmp_path / "farm.toml").write_text(settings.replace('host = "192.0.2.10"', f'host = "127.0.0.1"\nport = {pdu}'))
    checked = boardhand(tmp_path, "check", "farm.toml")
    assert checked.returncode == 0, checked.stderr

    up = subprocess.Popen(
        [sys.executable, "-m", "cli", "up", "--settings", "farm.toml", "--state-dir", str(tmp_path / "up"), "--json"],
        cwd=tmp_path,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert up.stdout is not None
        assert any(json.loads(line).get("ready") for line in up.stdout)
        assert outlet_reads(pdu) == "1"
        done = boardhand(tmp_path, "power", "my-board", "on")
        while "unknown board" in done.stderr:  # `up` does not wait for a real agent's PDU
            done = boardhand(tmp_path, "power", "my-board", "on")
        assert (done.returncode, done.stdout[:22]) == (0, "my-board on (verified,"), done.stderr
        assert outlet_reads(pdu) == "2"
        status = boardhand(tmp_path, "power", "my-board", "status")
        assert status.stdout.startswith("my-board on")
        done = boardhand(tmp_path, "power", "my-board", "off")
        assert (done.returncode, outlet_reads(pdu)) == (0, "1")
    finally:
        up.send_signal(signal.SIGTERM)
        up.communicate(timeout=60)


def test_the_readmes_job_is_a_job() -> None:
    job = parse_job(readme_block("Then hand in a job"))
    assert [step.name for step in job.steps] == ["kernel"]
