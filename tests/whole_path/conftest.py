"""A farm as a user starts it, and foreign programs to drive it: mosquitto_pub, mosquitto_sub, QEMU's own monitor."""

import contextlib
import json
import os
import queue
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.free_ports import free_port

BOOT_DEADLINE_S = 240.0
"""Two QEMU boards under TCG on two cores that tests share; alone they need 15 s."""
ANSWER_DEADLINE_S = 60.0

Wanted = Callable[[str, dict], bool]


class Watcher:
    """`mosquitto_sub` on everything, with a session that outlives the server."""

    def __init__(self, port: int) -> None:
        self.process = subprocess.Popen(
            [
                *("mosquitto_sub", "-p", str(port), "-q", "1", "-c", "-i", f"watcher-{uuid.uuid4()}", "-F", "%j"),
                *("-t", "boardhand/#", "-t", "test/marker"),
            ],
            stdout=subprocess.PIPE,
        )
        self.queue: queue.Queue[tuple[str, object]] = queue.Queue()
        self.seen: list[tuple[str, object]] = []
        self.subscribed = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if message["topic"] == "test/marker":
                self.subscribed.set()
                continue
            payload = message["payload"]
            with contextlib.suppress(ValueError, TypeError):
                payload = json.loads(payload)
            self.queue.put((message["topic"].removeprefix("boardhand/"), payload))

    def wait(self, wanted: Wanted, deadline_s: float = BOOT_DEADLINE_S, *, since: int = 0) -> dict:
        """The first message from number `since` on (`now()` is the next one) for which `wanted` is true."""
        for topic, payload in self.seen[since:]:
            if isinstance(payload, dict) and wanted(topic, payload):
                return payload
        end = time.monotonic() + deadline_s
        first = len(self.seen)
        while True:
            try:
                topic, payload = self.queue.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                recent = "\n".join(str(m)[:300] for m in self.seen[first:][-25:])
                raise AssertionError(f"did not come in {deadline_s:g} s; seen since:\n{recent}") from None
            self.seen.append((topic, payload))
            if isinstance(payload, dict) and wanted(topic, payload):
                return payload

    def now(self) -> int:
        return len(self.seen)

    def state(self, board: str, deadline_s: float = BOOT_DEADLINE_S, **fields: object) -> dict:
        """Wait for a board's state with these values."""
        return self.wait(
            lambda t, p: t == f"board/{board}/state" and all(p.get(k) == v for k, v in fields.items()), deadline_s
        )

    def last_phase(self, board: str) -> object:
        states = [p for t, p in self.seen if t == f"board/{board}/state" and isinstance(p, dict)]
        return states[-1]["phase"] if states else None

    def events(self, board: str) -> list[dict]:
        """The events of a board as they came, doubles included."""
        return [p for t, p in self.seen if t == f"event/{board}" and isinstance(p, dict)]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Farm:
    """`boardhand up`, its folder and its port."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.folder, self.port = folder, port
        self.log = (folder / "up.log").open("ab")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "cli", "up", "--json", "--port", str(port)),
                *("--state-dir", str(folder / "up"), *options),
            ],
            stdout=subprocess.PIPE,
            stderr=self.log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.write(line)
            self.log.flush()
            if json.loads(line).get("ready"):
                break
        else:
            raise AssertionError((folder / "up.log").read_text())
        self.publish("test/marker", "1", "-r")
        self.watchers: list[Watcher] = []

    def watch(self) -> Watcher:
        watcher = Watcher(self.port)
        self.watchers.append(watcher)
        assert watcher.subscribed.wait(ANSWER_DEADLINE_S)
        return watcher

    def publish(self, topic: str, payload: str, *options: str) -> None:
        command = ["mosquitto_pub", "-p", str(self.port), "-q", "1", "-t", topic, "-m", payload, *options]
        end = time.monotonic() + ANSWER_DEADLINE_S
        while subprocess.run(command, check=False, timeout=60, capture_output=True).returncode != 0:
            assert time.monotonic() < end, "the MQTT server does not take messages"
            time.sleep(0.1)

    def power(self, board: str, word: str) -> None:
        self.publish(f"boardhand/board/{board}/power/set", word)

    def request(self, watcher: Watcher, verb: str, data: dict) -> dict:
        transaction = str(uuid.uuid4())
        self.publish(f"boardhand/broker/request/{verb}", json.dumps({"transaction": transaction, "data": data}))
        answer = watcher.wait(
            lambda t, p: t == f"broker/response/{verb}" and p.get("transaction") == transaction, ANSWER_DEADLINE_S
        )
        assert answer["ok"], answer
        return answer["data"]

    def submit(self, watcher: Watcher, yaml: str) -> str:
        return str(self.request(watcher, "submit", {"yaml": yaml})["job"])

    def job_log(self, watcher: Watcher, job: str) -> str:
        data = self.request(watcher, "logs", {"job": job, "from_chunk": 0})
        return "".join(chunk["text"] for chunk in data["chunks"])

    def facts(self) -> dict:
        return dict(json.loads((self.folder / "up" / "farm" / "farm.json").read_text()))

    def kernels_sent(self) -> int:
        """How many boards have a kernel by what waits in the agent's outbox, which nobody can be told of yet."""
        with contextlib.closing(sqlite3.connect(self.folder / "up" / "farm" / "agent-state" / "agent.db")) as db:
            waiting = db.execute("SELECT payload FROM outbox_event").fetchall()
        return sum(json.loads(row[0])["details"].get("role") == "kernel" for row in waiting)

    def qmp_running(self, board: str) -> bool:
        """What QEMU itself says: the driver is not asked. The agent holds the socket for moments only."""
        path = self.facts()["boards"][board]["qmp"]
        end = time.monotonic() + ANSWER_DEADLINE_S
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as monitor:
                    monitor.settimeout(2)
                    monitor.connect(path)
                    stream = monitor.makefile("rw")
                    stream.readline()
                    for command in ("qmp_capabilities", "query-status"):
                        stream.write(json.dumps({"execute": command}) + "\n")
                        stream.flush()
                        answer = json.loads(stream.readline())
                        while "event" in answer:
                            answer = json.loads(stream.readline())
                    return bool(answer["return"]["running"])
            except (TimeoutError, OSError, ValueError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=90)
        finally:
            self.process.kill()
            self.log.close()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Callable[..., Farm]]:
    """Starts farms, and ends them with the test."""
    farms: list[Farm] = []

    def start(*options: str) -> Farm:
        folder = tmp_path / f"farm-{len(farms)}"
        folder.mkdir()
        farms.append(Farm(folder, free_port(), *options))
        return farms[-1]

    yield start
    for started in farms:
        started.close()
