"""`boardhand submit` to the last artifact: real broker, real Mosquitto, and both real clients as boards. Only the agent
is played: it says that its board is there."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from board.client import MqttConnection
from tests.board.conftest import KNOWN, MAC, Board, make_root
from tests.cli.farm_double import ROOT, board_state, boardhand, mosquitto, stop, wait_for

PREFIX = "bh"
QUICK = "settle_s = 0.2\ntick_s = 0.1\noffer_timeout_s = 5\nlost_grace_s = 5\nidle_s = 0\n"


class Agent:
    """Answers registrations, and says that the board is ready."""

    def __init__(self, port: int) -> None:
        self._link = MqttConnection("127.0.0.1", port, "agent")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._link.connect()
        state = {"state": "online", "session": 1, "since": "2026-11-20T10:00:00Z"}
        self.say("agent/lab-1/state", state, retain=True)
        self._link.subscribe(f"{PREFIX}/register")
        self._thread.start()

    def say(self, tail: str, value: object, *, retain: bool = False) -> None:
        self._link.publish(f"{PREFIX}/{tail}", json.dumps(value).encode(), retain=retain)

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._link.receive(0.05)
            if message is not None:
                request = json.loads(message.payload)
                self.say(
                    f"register/{MAC.replace(':', '-')}", {"ok": True, "boot_id": request["boot_id"], "board": "b1"}
                )
                self.say("board/b1/info", {"arch": "arm64"}, retain=True)
                self.say("board/b1/state", board_state("b1", phase="ready", power="on"), retain=True)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(60)
        self._link.close()


class Farm:
    def __init__(self, folder: Path, port: int) -> None:
        self.port, self.folder = port, folder
        self.state = folder / "broker"
        self.settings = folder / "broker.toml"
        mqtt = f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\nprefix = "{PREFIX}"\n'
        self.settings.write_text(f'[broker]\nstate_dir = "{self.state}"\n{QUICK}{mqtt}')
        self.start()

    def start(self) -> None:
        with (self.folder / "broker.log").open("ab") as log:
            self.broker = subprocess.Popen(
                [sys.executable, "-m", "broker", "--settings", str(self.settings)], cwd=ROOT, stdout=log, stderr=log
            )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return boardhand(*arguments, port=self.port, BOARDHAND_PREFIX=PREFIX)

    def job(self, yaml: str, *options: str) -> subprocess.CompletedProcess[str]:
        path = self.folder / "job.yaml"
        path.write_text(yaml)
        return self.run("submit", str(path), *options)

    def shown(self, job: str) -> dict[str, object]:
        done = self.run("job", "show", job, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with mosquitto(tmp_path / "mqtt") as port:
        made = Farm(tmp_path, port)
        try:
            yield made
        finally:
            stop(made.broker)


@pytest.fixture(params=["python", "busybox"])
def board(request: pytest.FixtureRequest, farm: Farm) -> Iterator[Board]:
    agent = Agent(farm.port)
    folder = farm.folder / "board"
    make_root(folder)
    made = Board(request.param, folder, farm.port, KNOWN)
    yield made
    made.end()
    agent.end()


def test_the_example_runs_to_its_end_and_everything_is_kept(farm: Farm, board: Board, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    done = farm.run("submit", str(ROOT / "examples" / "smoke.yaml"), "--follow", "--junit", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hello from boardhand on b1" in done.stdout and "job job-1 passed on b1" in done.stdout
    suite = ET.parse(report).getroot()[0]  # noqa: S314  # our own
    assert (suite.get("name"), suite.get("failures"), suite.get("errors")) == ("smoke", "0", "0")
    assert [case.get("name") for case in suite.iter("testcase")] == ["boardhand: files", "look", "memory", "optional"]
    assert "checks: ok" in str(suite.findtext("testcase[@name='look']/system-out"))
    told = farm.shown("job-1")
    lines = [entry["what"] for entry in told["timeline"]]
    assert lines[0] == "submitted" and "b1 began to work" in lines and lines[-1] == "passed"
    got = farm.run("job", "artifacts", "job-1", "--get", str(tmp_path / "got"))
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "got" / "smoke" / "uname.txt").read_text() == " ".join(os.uname()) + "\n" or (
        tmp_path / "got" / "smoke" / "uname.txt"
    ).read_text().startswith("Linux ")
    text = farm.run("job", "show", "job-1").stdout
    assert "smoke/uptime.txt" in text and "passed (exit code 0)" in text and "submitted" in text


def test_a_job_that_fails_leaves_its_files_and_says_so_to_a_ci(farm: Farm, board: Board, tmp_path: Path) -> None:
    done = farm.job(
        "name: bad\nartifacts: [out/*, '../../../etc/hostname', nothing]\nsteps:\n"
        "- name: one\n  run: 'mkdir out; seq 1 50000 > out/numbers; echo x > \"out/a b\"; exit 3'\n"
        "  continue_on_fail: true\n"
        "- {name: two, run: 'echo FAIL: 2', exit_codes: [0, 5]}\nsuccess: {not_output: ['FAIL:*']}\n",
        "--follow",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed on b1: one: exit code 3" in done.stdout
    got = farm.run("job", "artifacts", "job-1", "--get", str(tmp_path / "got"))
    assert got.returncode == 1
    assert (tmp_path / "got" / "out" / "numbers").read_text() == "".join(f"{n}\n" for n in range(1, 50001))
    assert (tmp_path / "got" / "out" / "a b").read_text() == "x\n"
    assert not (tmp_path / "etc").exists() and "nothing has that name" in got.stderr
    suite = ET.fromstring(farm.run("job", "junit", "job-1").stdout)[0]  # noqa: S314  # our own
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    cancelled = farm.job("name: none\nboard: b9\nqueue_timeout_s: 0.5\nsteps: [x]\n", "--wait")
    assert cancelled.returncode == 6 and "board b9 is not known" in cancelled.stdout


def test_what_is_wrong_with_a_job_is_said_with_its_line(farm: Farm) -> None:
    done = farm.job("name: a\nsteps: [b]\nartefacts: [c]\n")
    assert done.returncode == 2 and "line 3: artefacts: no such key" in done.stderr
    done = farm.job("name: a\nsteps: [b]\nnotify: {webhook: 'http://127.0.0.1/x'}\n")
    assert done.returncode == 5 and "notify.webhook" in done.stderr


def test_a_full_store_refuses_new_jobs_and_loses_none(farm: Farm) -> None:
    waiting = "name: waits\nboard: b9\nsteps: [x]\n"
    assert farm.job(waiting).stdout == "job-1\n"
    hard = resource.prlimit(farm.broker.pid, resource.RLIMIT_FSIZE)[1]
    # No file of the broker can grow any more: what a full disk does, without a disk that has to be filled.
    resource.prlimit(farm.broker.pid, resource.RLIMIT_FSIZE, (1, hard))
    # Its batch waits to be written, and nothing is said of it.
    first = farm.job(waiting, "--timeout-s", "2")
    assert first.returncode == 4, first.stdout + first.stderr
    refused = farm.job(waiting, "--timeout-s", "10")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "cannot be written" in refused.stderr and "make room there" in refused.stderr
    resource.prlimit(farm.broker.pid, resource.RLIMIT_FSIZE, (hard, hard))

    def queued() -> set[str]:
        done = farm.run("jobs", "--json")
        jobs = json.loads(done.stdout)["jobs"] if done.returncode == 0 else []
        return {job["job"] for job in jobs if job["state"] == "queued"}

    wait_for(lambda: queued() == {"job-1", "job-2"}, "what waited is written")
    farm.broker.send_signal(signal.SIGKILL)
    farm.broker.wait(60)
    farm.start()
    wait_for(lambda: queued() == {"job-1", "job-2"}, "the next broker has both")
    assert farm.job(waiting).stdout == "job-3\n"
