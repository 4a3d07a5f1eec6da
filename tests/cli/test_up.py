"""`boardhand up --no-farm` with the real Mosquitto and the real broker: start, stop, and what is left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.exits import Exit
from tests.cli.farm_double import (
    DEADLINE_S,
    board_state,
    boardhand,
    clean_environment,
    free_port,
    mosquitto,
    say,
    stop,
    wait_for,
)


class Up:
    """One `boardhand up --json` of a test."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        (folder / "run").mkdir(parents=True, exist_ok=True)
        self.environment = {"XDG_RUNTIME_DIR": str(folder / "run"), "XDG_STATE_HOME": str(folder / "state")}
        self.out = folder / "out"
        with self.out.open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", "up", "--json", *arguments],
                env=clean_environment(**self.environment),
                stdout=out,
                stderr=err,
            )

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def ready(self) -> dict[str, Any]:
        def look() -> object:
            assert self.process.poll() is None, (self.folder / "err").read_text() + self.out.read_text()
            return [document for document in self.documents() if document.get("ready")]

        found = wait_for(look, "up is ready", 60)
        assert isinstance(found, list)
        return dict(found[0])

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return boardhand(*arguments, **self.environment)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str, name: str = "one") -> Up:
        started.append(Up(tmp_path / name, *arguments))
        return started[-1]

    yield start
    for each in started:
        stop(each.process)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_find_use_and_stop(up: Callable[..., Up], number: signal.Signals) -> None:
    farm = up("--no-farm")
    facts = farm.ready()
    assert set(facts["pids"]) == {"mosquitto", "broker"}
    found = farm.command("jobs")  # without --mqtt: by the farm file
    assert (found.returncode, found.stdout) == (0, "no jobs\n")
    farm.process.send_signal(number)
    assert farm.process.wait(DEADLINE_S) == Exit.OK
    assert [pid for pid in facts["pids"].values() if alive(pid)] == []
    assert list((farm.folder / "run" / "boardhand").iterdir()) == []
    assert farm.command("boards", "--mqtt", facts["mqtt"]).returncode == Exit.UNREACHABLE
    assert (farm.folder / "err").read_text() == ""


def test_kill_9_of_up_leaves_no_process_and_no_stale_address(up: Callable[..., Up]) -> None:
    farm = up("--no-farm")
    pids = farm.ready()["pids"]
    farm.process.kill()
    farm.process.wait(DEADLINE_S)
    wait_for(lambda: not any(alive(pid) for pid in pids.values()), "the children follow their parent")
    again = up("--no-farm")  # same state folder: neither lock nor address of the dead one is in the way
    again.ready()
    assert again.command("jobs").returncode == 0


def test_words_of_the_dead_are_not_believed(up: Callable[..., Up], tmp_path: Path) -> None:
    """A power cut leaves 'online' in the server's store, and no will ever comes for it."""
    port = free_port()
    farm = up("--no-farm", "--port", str(port))
    farm.ready()
    said = {"state": "online", "session": 7, "since": "2026-11-20T10:00:00Z"}
    say(port, "boardhand/agent/lab-1/state", json.dumps(said).encode(), retain=True)
    say(port, "boardhand/board/virt-1/state", json.dumps(board_state(power="on", session=7)).encode(), retain=True)
    assert json.loads(farm.command("boards", "--json").stdout)["boards"][0]["power"] == "on"
    stop(farm.process)
    again = up("--no-farm", "--port", str(port))
    again.ready()
    (row,) = json.loads(again.command("boards", "--json").stdout)["boards"]
    assert (row["power"], row["agent_state"]) == ("unknown", "lost")


def test_killed_children_come_back_with_their_memory(up: Callable[..., Up], tmp_path: Path) -> None:
    farm = up("--no-farm")
    pids = farm.ready()["pids"]
    job = tmp_path / "job.yaml"
    job.write_text("name: hello\nsteps: [echo hello]\n")
    assert farm.command("submit", str(job)).stdout == "job-1\n"
    for name in ("mosquitto", "broker"):
        os.kill(pids[name], signal.SIGKILL)
    assert farm.command("submit", str(job)).stdout == "job-2\n"
    wait_for(lambda: len(json.loads(farm.command("jobs", "--json").stdout).get("jobs", [])) == 2, "both jobs are kept")
    notes = " ".join(document["text"] for document in farm.documents() if "text" in document)
    assert "mosquitto ended by itself (signal SIGKILL); starting it again" in notes


def test_second_up_in_the_same_folder_is_refused_and_elsewhere_is_not_found(up: Callable[..., Up]) -> None:
    first = up("--no-farm")
    address = first.ready()["mqtt"]
    second = first.command("up", "--no-farm")
    assert second.returncode == Exit.FAILED
    assert "another 'boardhand up' uses" in second.stderr
    other = up("--no-farm", "--state-dir", str(first.folder / "elsewhere"))
    other.ready()
    assert any("another farm of yours is running" in str(document.get("text")) for document in other.documents())
    stop(other.process)
    assert first.command("jobs").returncode == 0
    assert address in (first.folder / "run" / "boardhand" / "farm.json").read_text()


def test_an_existing_server_is_used(up: Callable[..., Up], server: int) -> None:
    farm = up("--no-farm", "--mqtt", f"mqtt://127.0.0.1:{server}", "--prefix", "lab/one")
    facts = farm.ready()
    assert set(facts["pids"]) == {"broker"}
    assert facts["prefix"] == "lab/one"
    assert farm.command("jobs").stdout == "no jobs\n"
    second = farm.command("up", "--no-farm", "--mqtt", f"mqtt://127.0.0.1:{server}", "--prefix", "lab/one",
                          "--state-dir", str(farm.folder / "second"))  # fmt: skip
    assert second.returncode == Exit.FAILED
    assert "a work broker is online" in second.stderr


def test_given_port_and_taken_port(up: Callable[..., Up], tmp_path: Path) -> None:
    port = free_port()
    with mosquitto(tmp_path / "other", port):
        taken = up("--no-farm", "--port", str(port))
        assert taken.process.wait(DEADLINE_S) == Exit.USAGE
        assert f"port {port} of 127.0.0.1 is taken" in (taken.folder / "err").read_text()
    assert up("--no-farm", "--port", str(port), name="two").ready()["mqtt"] == f"mqtt://127.0.0.1:{port}"


def test_a_broker_that_cannot_live_ends_up_with_its_reason(up: Callable[..., Up], tmp_path: Path) -> None:
    store = tmp_path / "one" / "state" / "boardhand" / "up" / "broker" / "broker.sqlite3"
    store.parent.mkdir(parents=True)
    store.write_bytes(b"this is no database, and never was one" * 100)
    farm = up("--no-farm")
    assert farm.process.wait(60) == Exit.FAILED
    said = (farm.folder / "err").read_text()
    assert "broker cannot be kept running" in said
    assert said.count("\n") == 1


def test_agent_with_bad_settings_ends_up_with_its_reason(up: Callable[..., Up], tmp_path: Path) -> None:
    settings = tmp_path / "agent.toml"
    settings.write_text("[agent]\nname = 7\nnonsense = true\n")
    farm = up("--settings", str(settings))
    assert farm.process.wait(60) == Exit.FAILED
    said = (farm.folder / "err").read_text()
    assert "agent cannot be kept running" in said
    assert "agent.toml" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--settings", "/nonexistent.toml"), "is not there"),
        (("--demo", "--no-farm"), "--demo needs the virtual farm"),
        (("--light", "-1"), "--light -1"),
        (("--boards", "many"), "--boards"),
        (("--boards", "0"), "is no farm"),
        (("--state-dir", "/proc/nowhere"), "state folder"),
    ],
)
def test_wrong_options(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = boardhand("up", *arguments, XDG_STATE_HOME=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == Exit.USAGE
    assert said in done.stderr


def test_the_page_is_there_with_a_token_for_its_owner(up: Callable[..., Up]) -> None:
    facts = up("--no-farm").ready()

    def page(path: str, *headers: str) -> tuple[str, str]:
        options = [option for header in headers for option in ("-H", header)]
        command = ["curl", "-sS", "-m", "20", "-w", "\n%{http_code}", *options, facts["page"] + path]
        body, _, code = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rpartition("\n")
        return code, body

    code, farm = page("api/v1/farm")
    assert (code, json.loads(farm)["role"]) == ("200", "reader"), "who is on this machine may look"
    token = Path(facts["page_token"])
    assert token.stat().st_mode & 0o077 == 0
    code, farm = page("api/v1/farm", f"Authorization: Bearer {token.read_text().strip()}")
    assert (code, json.loads(farm)["you"], json.loads(farm)["role"]) == ("200", "owner", "admin")
    assert "main.js" in page("")[1]
    assert page("page/main.js")[0] == "200"


def test_without_a_page(up: Callable[..., Up]) -> None:
    assert "page" not in up("--no-farm", "--no-page").ready()
