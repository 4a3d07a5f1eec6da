"""What the tests of the command line need around it: a real Mosquitto, and an agent that answers at once."""

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from board.client import MqttConnection
from tests.free_ports import free_port

DEADLINE_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


def wait_for(what: Callable[[], object], text: str, deadline_s: float = DEADLINE_S) -> object:
    """Wait until `what()` is true, or fail with `text`."""
    ends = time.monotonic() + deadline_s
    while time.monotonic() < ends:
        found = what()
        if found:
            return found
        threading.Event().wait(0.02)
    raise AssertionError(f"not within {deadline_s} s: {text}")


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def mosquitto(folder: Path, port: int | None = None, extra: str = "") -> Iterator[int]:
    """A real Mosquitto on a free port, for as long as the block."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / f"mosquitto-{port}.conf"
    access = "" if "allow_anonymous" in extra else "allow_anonymous true\n"
    conf.write_text(f"listener {port} 127.0.0.1\nset_tcp_nodelay true\n{access}{extra}")
    child = subprocess.Popen(["mosquitto", "-c", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: accepts(port), "mosquitto accepts connections")
        yield port
    finally:
        child.terminate()
        child.wait(60)


def board_state(board: str = "virt-1", **changes: object) -> dict[str, object]:
    return {
        "power": "off", "phase": "off", "since": "2026-11-20T10:00:00Z", "agent": "lab-1", "session": 1, "seq": 1,
    } | changes  # fmt: skip


def say(port: int, topic: str, payload: bytes, *, retain: bool = False) -> None:
    """Publish by a connection of its own: a double's belongs to its thread."""
    with MqttConnection("127.0.0.1", port, f"say-{os.urandom(4).hex()}") as link:
        link.publish(topic, payload, retain=retain)


class AgentDouble:
    """An agent that is a thread: publishes states, answers power commands by `answer`."""

    def __init__(self, port: int, boards: tuple[str, ...] = ("virt-1",), prefix: str = "boardhand") -> None:
        self.prefix = prefix
        self._port = port
        self.boards = boards
        self.commands: list[tuple[str, bytes]] = []
        self.answer: Callable[[str, dict[str, object]], list[bytes]] = self.obey
        self._link = MqttConnection("127.0.0.1", port, f"double-{os.getpid()}-{port}")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent double")

    @staticmethod
    def obey(_board: str, command: dict[str, object]) -> list[bytes]:
        power = "off" if command["power"] == "off" else "on"
        return [json.dumps({"id": command["id"], "ok": True, "power": power, "took_ms": 12.4}).encode()]

    def retain(self, tail: str, value: object) -> None:
        payload = value if isinstance(value, bytes) else json.dumps(value).encode()
        say(self._port, f"{self.prefix}/{tail}", payload, retain=True)

    def __enter__(self) -> "AgentDouble":
        self._link.connect()
        self.retain("agent/lab-1/state", {"state": "online", "session": 1, "since": "2026-11-20T10:00:00Z"})
        for board in self.boards:
            self.retain(f"board/{board}/state", board_state(board))
        self._link.subscribe(f"{self.prefix}/board/+/power/set")
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        self._link.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._link.receive(0.1)
            if message is None:
                continue
            board = message.topic.split("/")[-3]
            self.commands.append((board, message.payload))
            for payload in self.answer(board, json.loads(message.payload)):
                self._link.publish(f"{self.prefix}/board/{board}/power/result", payload, wait=False)


class BrokerDouble:
    """A broker that is a thread: answers each verb by its handler, and remembers transactions as the real one does."""

    def __init__(self, port: int, handlers: dict[str, Callable[[dict[str, object]], object]]) -> None:
        self.handlers = handlers
        self._port = port
        self.requests: list[tuple[str, dict[str, object]]] = []
        self._done: dict[str, bytes] = {}
        self._link = MqttConnection("127.0.0.1", port, f"broker-double-{port}")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker double")

    def __enter__(self) -> "BrokerDouble":
        self._link.connect()
        self._link.subscribe("boardhand/broker/request/+")
        state = {"state": "online", "session": 1, "since": "2026-11-20T10:00:00Z"}
        self._link.publish("boardhand/broker/state", json.dumps(state).encode(), retain=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        self._link.publish("boardhand/broker/state", b"", retain=True)
        self._link.close()

    def publish(self, tail: str, value: object, *, retain: bool = False) -> None:
        payload = value if isinstance(value, bytes) else json.dumps(value).encode()
        say(self._port, f"boardhand/{tail}", payload, retain=retain)

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._link.receive(0.1)
            if message is None:
                continue
            verb = message.topic.rsplit("/", 1)[1]
            request = json.loads(message.payload)
            self.requests.append((verb, request))
            transaction = request["transaction"]
            if transaction not in self._done:
                self._done[transaction] = self._answer(verb, request)
            self._link.publish(f"boardhand/broker/response/{verb}", self._done[transaction], wait=False)

    def _answer(self, verb: str, request: dict[str, object]) -> bytes:
        said = self.handlers[verb](request.get("data", {}))
        if isinstance(said, bytes):
            return said.replace(b"TRANSACTION", str(request["transaction"]).encode())
        return json.dumps({"transaction": request["transaction"], "ok": True, "data": said}).encode()


def clean_environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BOARDHAND")}
    return kept | {"PYTHONPATH": str(ROOT)} | more


# They run other programs in their place, or until they are told to stop: only as processes of their own.
PROCESSES = {"agent", "broker", "demo", "up"}
# Python and the C library read these once, when they start.
AT_START = {"PYTHONIOENCODING", "TZ"}


def boardhand(*arguments: str, port: int | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command line: within this process where that can be, because starting Python takes it longer than all
    the rest. `boardhand_process` where the process itself is looked at."""
    env = clean_environment(**more)
    if port is not None:
        env["BOARDHAND_MQTT"] = f"mqtt://127.0.0.1:{port}"
    if PROCESSES.isdisjoint(arguments) and AT_START.isdisjoint(more) and _is_ours_alone():
        return _within(arguments, env)
    return _process(arguments, env)


def boardhand_process(*arguments: str, port: int | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the real command, whole process."""
    env = clean_environment(**more)
    if port is not None:
        env["BOARDHAND_MQTT"] = f"mqtt://127.0.0.1:{port}"
    return _process(arguments, env)


def _process(arguments: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def _is_ours_alone() -> bool:
    """Whether output and environment of this process may be turned over for a while: no test runs commands side by
    side here, and no event loop stands around the command's own."""
    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def _within(arguments: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    from cli.main import main

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        mock.patch.dict(os.environ, env, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(list(arguments))
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]  # a BytesIO
    return subprocess.CompletedProcess(arguments, int(code), *texts)


def stop(child: subprocess.Popen[str] | subprocess.Popen[bytes]) -> int:
    """End a child politely, then not."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait(DEADLINE_S)
