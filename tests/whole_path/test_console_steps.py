"""A board without a client, with a real shell behind a login on its console: jobs run on it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.bench import OUTLET
from tests.cli.farm_double import ROOT, boardhand, boardhand_process, wait_for

PATIENCE_S = 60.0
BOARD = ROOT / "tests" / "agent" / "console" / "shell_board.py"

JOB = """\
name: on the console
board: pi
timeout_s: 60
env: {GREETING: "it's $HOME"}
files: [{path: data/lines.txt, text: "one\\ntwo\\n"}]
steps:
  - {name: greet, run: "echo \\"$GREETING\\"; wc -l <data/lines.txt; echo said to stderr >&2", output: "it's $HOME"}
  - {name: slow, run: "for n in 1 2 3; do echo line $n; sleep 0.3; done; printf 'no end'", timeout_s: 20}
  - {name: board, run: "test $BOARDHAND_BOARD = pi && exit 77", exit_codes: [77]}
artifacts: [data/lines.txt]
"""


class ConsoleFarm:
    """A broker, an agent, and a board that has a serial port."""

    def __init__(self, folder: Path, mqtt, noise_s: float) -> None:
        self.folder, self.mqtt = folder, mqtt
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        outlets = folder / "outlets"
        outlets.mkdir()
        script = folder / "outlet.py"
        script.write_text(OUTLET)
        (folder / "password").write_text("s3cret word\n")
        run = [sys.executable, "-S", "-E", str(script), str(outlets), "{outlet}"]
        self.settings = folder / "farm.toml"
        self.settings.write_text(
            f'[agent]\nname = "lab"\nstate_dir = "{folder}/agent"\n[mqtt]\nurl = "{mqtt.url}"\n'
            f'[broker]\nstate_dir = "{folder}/broker"\nsettle_s = 0.2\ntick_s = 0.1\nlost_grace_s = 20\nmin_on_s = 0\n'
            '[controllers.rack]\ndriver = "command"\n'
            + "".join(f"{verb} = {json.dumps([*run, verb])}\n" for verb in ("on", "off", "state"))
            + '[boards.pi]\nfeed = ["rack:pi"]\nmin_off_s = 0.0\nboot_timeout_s = 120\nclient = "console"\n'
            f'[boards.pi.console]\ndevice = "unix:{folder}/pi.port"\nuser = "root"\n'
            f'password_file = "{folder}/password"\n'
        )
        board = [sys.executable, str(BOARD), f"{folder}/pi.port", f"{outlets}/pi", "dash", "-i"]
        environment = {**os.environ, "BOARD_LOGIN": "root:s3cret word", "BOARD_NOISE_S": str(noise_s)}
        self.start("board", board, environment)
        self.start("broker", [sys.executable, "-m", "broker", "--settings", str(self.settings)])
        self.start_agent()

    def start(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def start_agent(self) -> None:
        self.start("agent", [sys.executable, "-m", "agent", "--settings", str(self.settings), "--log-level", "DEBUG"])

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return boardhand("--mqtt", self.mqtt.url, *words)

    def submit(self, text: str) -> str:
        path = self.folder / "job.yaml"
        path.write_text(text)
        done = self.cli("submit", str(path), "--json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["job"])

    def job(self, job: str) -> dict:
        return dict(json.loads(self.cli("job", "show", job, "--json").stdout))

    def until(self, what, text: str) -> object:
        try:
            return wait_for(what, text, PATIENCE_S)
        except AssertionError as error:
            logs = [f"--- {name}\n{(self.folder / f'{name}.log').read_text()[-3000:]}" for name in self.processes]
            raise AssertionError("\n".join([str(error), *logs])) from None

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(60)
            finally:
                process.kill()
                process.wait()


@pytest.fixture
def farm(tmp_path: Path, mqtt) -> Iterator[ConsoleFarm]:
    found = ConsoleFarm(tmp_path, mqtt, noise_s=0.05)
    yield found
    found.close()


def test_a_job_runs_to_its_end_on_the_console(farm):
    """Asleep, woken, logged in, worked, its log streamed; with a kernel that talks in between."""
    (farm.folder / "job.yaml").write_text(JOB)
    farm.until(lambda: "pi" in farm.cli("boards").stdout, "the board is known")
    done = boardhand_process("--mqtt", farm.mqtt.url, "submit", str(farm.folder / "job.yaml"), "--follow")
    assert done.returncode == 0, done.stdout + done.stderr + (farm.folder / "agent.log").read_text()[-4000:]
    lines = [line for line in done.stdout.splitlines() if "noise" not in line]
    text = "\n".join(lines)
    assert "it's $HOME\n2\nsaid to stderr" in text
    assert "line 1\nline 2\nline 3\nno end" in text
    assert "@bh" not in text and "printf" not in text, "neither our marks nor our lines are the job's output"
    told = farm.job("job-1")
    assert [step["exit_code"] for step in told["steps"]][-3:] == [0, 0, 77]
    artifacts = farm.cli("job", "artifacts", "job-1")
    assert "artifacts need a client" in artifacts.stdout + artifacts.stderr
    # A command of a person's on the same shell, its exit code and its end.
    ran = farm.cli("console", "pi", "--run", "echo here; exit 3", "--json")
    assert ran.stdout, ran.stderr
    answer = json.loads(ran.stdout.splitlines()[-1])
    assert ran.returncode == 1
    assert answer["exit_code"] == 3
    assert "here\n" in answer["output"]
    expected = farm.cli("console", "pi", "--send", "echo a$((40+2))b\\r", "--expect", "a42*b", "--json")
    assert expected.returncode == 0, expected.stderr
    assert json.loads(expected.stdout.splitlines()[-1])["match"] == "a42b"
    in_vain = farm.cli("console", "pi", "--expect", "never", "--timeout", "0.2")
    assert in_vain.returncode == 1


def test_what_fails_fails_and_what_hangs_is_ended(farm):
    job = farm.submit(
        "name: hangs\nboard: pi\ntimeout_s: 60\nsteps:\n"
        "  - {name: hangs, run: 'echo begun; sleep 1000', timeout_s: 1.5, continue_on_fail: true}\n"
        "  - {name: goes on, run: exit 9}\n"
    )
    farm.until(lambda: farm.job(job)["state"] == "failed", "it has failed")
    first, second = farm.job(job)["steps"]
    assert (first.get("exit_code"), first["problem"]) == (None, "timed out after 1.5 s")
    assert second["exit_code"] == 9


def test_an_agent_that_is_killed_in_a_step_tells_so_and_the_job_is_run_again(farm):
    """And while it runs, nobody else types, and everybody reads."""
    count = farm.folder / "count"
    job = farm.submit(
        "name: interrupted\nboard: pi\ntimeout_s: 60\nattempts: 2\nsteps:\n"
        f"  - {{name: counts, run: 'echo once >>{count}; test $(wc -l <{count}) -gt 1 || sleep 1000; sleep 1'}}\n"
    )
    farm.until(count.exists, "the step runs")
    shown = farm.cli("console", "pi", "--state", "--json")
    state = json.loads(shown.stdout)
    assert state.get("writer") == job, shown
    taken = farm.cli("console", "pi", "--send", "exit\\r", "--token", "1")
    assert taken.returncode == 1
    assert "keeps the console until it is done" in taken.stderr
    farm.processes["agent"].send_signal(signal.SIGKILL)
    farm.processes["agent"].wait()
    farm.start_agent()
    farm.until(lambda: farm.job(job)["state"] in {"passed", "failed", "error"}, "it has ended")
    told = farm.job(job)
    assert told["state"] == "passed", told
    assert told["attempt"] == 2
    lines = [entry["what"] for entry in told["timeline"]]
    assert any("the agent was stopped while step counts ran" in line for line in lines), "\n".join(lines)
    assert count.read_text().splitlines() == ["once", "once"]
