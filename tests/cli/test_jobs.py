"""What is asked of the work broker, against a broker that is a thread behind a real Mosquitto."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.exits import Exit
from tests.cli.farm_double import (
    BrokerDouble,
    boardhand,
    boardhand_process,
    clean_environment,
    free_port,
    mosquitto,
    wait_for,
)

JOB = "name: hello\nsteps: [echo hello]\n"
Handler = Callable[[dict[str, object]], object]


def summary(state: str = "passed", **changes: object) -> dict[str, object]:
    return {
        "job": "job-1", "name": "hello", "state": state, "board": "virt-1", "attempt": 1, "priority": 0,
        "submitted": "2026-11-20T10:00:00Z", "steps": [],
    } | changes  # fmt: skip


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return str(path)


def refusal(kind: str, message: str = "no", key: str | None = None) -> Handler:
    error = {"kind": kind, "message": message} | ({"key": key} if key else {})
    answer = {"transaction": "TRANSACTION", "ok": False, "error": error}
    return lambda _: json.dumps(answer).encode()


def test_submit_prints_the_job(server: int, job_file: str) -> None:
    with BrokerDouble(server, {"submit": lambda _: {"job": "job-1"}}) as broker:
        done = boardhand("submit", job_file, port=server)
        as_json = boardhand("submit", job_file, "--json", port=server)
    assert (done.returncode, done.stdout) == (0, "job-1\n")
    assert json.loads(as_json.stdout) == {"job": "job-1"}
    assert broker.requests[0][1]["data"]["yaml"] == JOB


def test_submit_is_sent_again_with_the_same_transaction_until_the_broker_is_there(
    tmp_path: Path, job_file: str
) -> None:
    port = free_port()
    child = subprocess.Popen(
        [sys.executable, "-m", "cli", "submit", job_file],
        env=clean_environment(BOARDHAND_MQTT=f"mqtt://127.0.0.1:{port}"), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with mosquitto(tmp_path / "first", port):
        # The server is there, the broker is not: the request goes nowhere, and the server goes away again.
        wait_for(lambda: heard_a_request(port), "the command has sent its request")
    with mosquitto(tmp_path / "second", port), BrokerDouble(port, {"submit": lambda _: {"job": "job-7"}}) as broker:
        out, _ = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "job-7\n")
    assert len({request["transaction"] for _, request in broker.requests}) == 1


def heard_a_request(port: int) -> bool:
    """Whether a foreign client sees the request within some seconds; it is repeated every three."""
    done = subprocess.run(
        ["mosquitto_sub", "-p", str(port), "-t", "boardhand/broker/request/submit", "-C", "1", "-W", "4"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return bool(done.stdout)


@pytest.mark.parametrize(("state", "code"), [("passed", 0), ("failed", 1), ("error", 6), ("cancelled", 7)])
def test_wait_ends_with_the_job(server: int, job_file: str, state: str, code: int) -> None:
    states = iter(["queued", "running", state])
    handlers: dict[str, Handler] = {
        "submit": lambda _: {"job": "job-1"},
        "job": lambda _: {"job": summary(next(states), reason="because" if code else None)},
    }
    with BrokerDouble(server, handlers):
        done = boardhand_process("submit", job_file, "--wait", port=server)
    assert done.returncode == code
    assert done.stdout == f"job job-1 {state} on virt-1{': because' if code else ''}\n"


def logs_of(pieces: list[str], ended_after: float = 0.0) -> Handler:
    began = time.monotonic()

    def handler(data: dict[str, object]) -> object:
        start = int(str(data["from_chunk"]))
        ended = time.monotonic() - began >= ended_after
        there = pieces if ended else pieces[:-1]
        chunks = [
            {"seq": n, "text": text, "step": "say", "attempt": 1}
            for n, text in list(enumerate(there))[start : start + 2]
        ]
        return {"chunks": chunks, "next": start + len(chunks), "ended": ended}

    return handler


def test_follow_prints_the_log_then_the_end(server: int, job_file: str) -> None:
    handlers: dict[str, Handler] = {
        "submit": lambda _: {"job": "job-1"},
        "job": lambda _: {"job": summary()},
        "logs": logs_of(["one\n", "two\n", "thr", "ee\n", "last\x1b[2J\n"], ended_after=1.0),
    }
    with BrokerDouble(server, handlers):
        done = boardhand_process("submit", job_file, "--follow", port=server)
        lines = boardhand("logs", "job-1", "--json", port=server).stdout.splitlines()
    assert done.stdout == "one\ntwo\nthree\nlast\\x1b[2J\njob job-1 passed on virt-1\n"
    assert [json.loads(line)["seq"] for line in lines] == [0, 1, 2, 3, 4]


def test_jobs_table_and_json(server: int) -> None:
    jobs = [summary("running", job="job-2"), summary("error", reason="no board came up\x07")]
    with BrokerDouble(server, {"jobs": lambda _: {"jobs": jobs}}) as broker:
        done = boardhand("jobs", "--limit", "5", "--state", "error", port=server)
        document = json.loads(boardhand("jobs", "--json", port=server).stdout)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["JOB", "NAME", "STATE", "BOARD", "ATTEMPT", "AGE", "REASON"]
    assert lines[2].endswith("no board came up\\x07")
    assert broker.requests[0][1]["data"] == {"limit": 5, "state": "error"}
    assert [job["job"] for job in document["jobs"]] == ["job-2", "job-1"]


@pytest.mark.parametrize(("verb", "name"), [("cancel", "job-1"), ("sleep", "virt-1"), ("wake", "virt-1")])
def test_cancel_sleep_wake(server: int, verb: str, name: str) -> None:
    with BrokerDouble(server, {verb: lambda _: {"done": True}}) as broker:
        done = boardhand(verb, name, port=server)
        document = json.loads(boardhand(verb, name, "--json", port=server).stdout)
    assert done.returncode == 0
    assert done.stdout.startswith(name)
    assert broker.requests[0] == (verb, broker.requests[0][1])
    assert list(broker.requests[0][1]["data"].values()) == [name]  # type: ignore[attr-defined]
    assert document == {"done": True}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("not-found", Exit.NO_ANSWER),
        ("not-allowed", Exit.NOT_ALLOWED),
        ("bad-request", Exit.USAGE),
        ("busy", Exit.FAILED),
    ],
)
def test_refusals_have_their_exit_code_and_key(server: int, kind: str, code: Exit) -> None:
    with BrokerDouble(server, {"cancel": refusal(kind, "it has ended", "job")}):
        done = boardhand("cancel", "job-1", port=server)
    assert done.returncode == code
    assert done.stderr.startswith("boardhand: broker: it has ended (job)")


def test_no_broker_is_said_at_once(server: int) -> None:
    done = boardhand("jobs", "--json", port=server)
    assert done.returncode == Exit.NO_ANSWER
    assert "start it with 'boardhand broker'" in done.stderr
    assert json.loads(done.stdout)["error"]["exit"] == Exit.NO_ANSWER


@pytest.mark.parametrize(
    "answer",
    [
        b'{"transaction": "TRANSACTION", "ok": "perhaps"}',
        b'{"transaction": "TRANSACTION", "ok": true, "data": []}',
        b'{"transaction": "TRANSACTION", "ok": true, "data": {"jobs": 7}}',
        b'{"transaction": "TRANSACTION", "ok": true, "data": {"jobs": [{"job": "../x"}]}}',
        b'{"transaction": "TRANSACTION", "ok": true, "data": {"jobs": ["x"]}}',
    ],
)
def test_hostile_answers_are_one_line(server: int, answer: bytes) -> None:
    with BrokerDouble(server, {"jobs": lambda _: answer}):
        done = boardhand("jobs", port=server)
    assert done.returncode == Exit.FAILED
    assert done.stderr.count("\n") == 1
    assert "cannot be read" in done.stderr


@pytest.mark.parametrize(
    "data",
    [
        {"chunks": 1, "next": 0},
        {"chunks": [], "next": -1},
        {"chunks": [{"seq": "0"}], "next": 1},
        {"chunks": [7], "next": 1},
    ],
)
def test_hostile_logs_are_one_line(server: int, data: dict[str, object]) -> None:
    with BrokerDouble(server, {"logs": lambda _: data}):
        done = boardhand("logs", "job-1", port=server)
    assert done.returncode == Exit.FAILED
    assert "the broker's log of job job-1 cannot be read" in done.stderr


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe", b"x" * 200_000])
def test_job_files_that_cannot_be_sent(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    done = boardhand_process("submit", str(path), port=free_port())
    assert done.returncode == Exit.USAGE
    assert str(path) in done.stderr


def test_missing_job_file_and_bad_ids() -> None:
    assert boardhand("submit", "/nonexistent/job.yaml", port=1).returncode == Exit.USAGE
    assert boardhand("logs", "../x", port=1).returncode == Exit.USAGE
    assert boardhand("cancel", "a b", port=1).returncode == Exit.USAGE
