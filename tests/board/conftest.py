"""A real MQTT server, a farm that plays agent and broker, and boards that are processes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from board.client import MqttConnection, Received
from tests.free_ports import free_port
from wire.payloads import BoardSelf, Registration, WorkReport, decode

BOARD_ROOM = Path(__file__).resolve().parents[2] / "board"
SECRET = "0123456789abcdef" * 4
BOOT_ID = "6f1c1f0e-7d0e-4c7e-9d52-0f2c1a3b4d5e"
MAC = "52:54:00:77:00:01"
DEADLINE_S = 60.0


class Server:
    """One mosquitto on loopback, which can be killed and started again on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._child = subprocess.Popen(["mosquitto", "-p", str(self.port)], stderr=subprocess.DEVNULL)
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except ConnectionRefusedError:
                time.sleep(0.01)
            else:
                return
        raise AssertionError("mosquitto did not start")

    def freeze(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


class Farm:
    """Agent and broker in one: hears all, and answers what a test tells it to."""

    secret, boot_id, mac = SECRET, BOOT_ID, MAC

    def __init__(self, port: int) -> None:
        self._port = port
        self.seen: list[Received] = []
        self.connect()

    def connect(self) -> None:
        self._link = MqttConnection("127.0.0.1", self._port, "farm")
        self._link.connect()
        self._link.subscribe("bh/#")

    def close(self) -> None:
        self._link.close()

    def tell(self, topic: str, payload: object, *, retain: bool = False) -> None:
        self._link.publish(topic, json.dumps(payload).encode(), retain=retain)

    def work(self, payload: object) -> None:
        self.tell("bh/board/b1/work", payload)

    def expect(self, tail: str, deadline_s: float = DEADLINE_S, **wanted: object) -> dict:
        """The payload of the next message on a topic that ends so, with these values in it."""
        until = time.monotonic() + deadline_s
        while (left := until - time.monotonic()) > 0:
            message = self._link.receive(left)
            if message is None:
                break
            if not message.payload or message.topic.endswith("/work") or "/register/" in message.topic:
                continue
            found = message.topic.removeprefix("bh/").removeprefix("board/b1/")
            check_contract(found, message.payload)
            self.seen.append(message)
            payload = json.loads(message.payload)
            if found == tail and all(payload.get(key) == value for key, value in wanted.items()):
                return payload
        heard = "\n".join(f"{m.topic} {m.payload[:200]!r}" for m in self.seen[-12:])
        raise AssertionError(f"{tail} {wanted} was not said within {deadline_s} s; heard:\n{heard}")

    def quiet(self, for_s: float, tail: str, **unwanted: object) -> None:
        """Nobody says it for that long."""
        try:
            said = self.expect(tail, for_s, **unwanted)
        except AssertionError:
            return
        raise AssertionError(f"this was said: {said}")

    # the usual course of things

    def accept_registration(self) -> dict:
        request = self.expect("register")
        self.tell(f"bh/register/{MAC.replace(':', '-')}", {"ok": True, "boot_id": request["boot_id"], "board": "b1"})
        return request

    def bring_up(self) -> None:
        self.accept_registration()
        self.expect("work/result", kind="ask")

    def offer(self, *steps: object, job: str = "j1", token: int = 1, env: dict | None = None) -> None:
        made = [s if isinstance(s, dict) else {"name": f"s{i}", "run": s, "timeout_s": 60} for i, s in enumerate(steps)]
        self.work({"kind": "offer", "job": job, "token": token, "expires": "2030-01-01T00:00:00Z", "name": job,
                   "steps": made, "env": env or {}})  # fmt: skip

    def outcome(self, job: str = "j1") -> dict:
        return self.expect("work/result", kind="outcome", job=job)

    def ack(self, job: str = "j1", token: int = 1, *, ok: bool = True) -> None:
        self.work({"kind": "ack", "job": job, "token": token, "ok": ok})

    def log(self, job: str = "j1") -> str:
        """The log as received so far, put in order and without repetitions."""
        pieces = {}
        for message in self.seen:
            payload = json.loads(message.payload)
            if payload.get("kind") == "log" and payload["job"] == job:
                pieces[payload["seq"]] = payload["text"]
        assert sorted(pieces) == list(range(len(pieces)))
        return "".join(pieces[seq] for seq in sorted(pieces))


def check_contract(tail: str, payload: bytes) -> None:
    """Everything a board says has to be readable by the contract's own models."""
    if tail == "register":
        decode(Registration, payload)
    elif tail == "self":
        decode(BoardSelf, payload)
    elif tail == "work/result":
        decode(WorkReport, payload)


class Board:
    """A client process."""

    def __init__(self, form: str, folder: Path, port: int, cmdline: str) -> None:
        self._cmdline = folder / "cmdline"
        self._cmdline.write_text(cmdline.replace("PORT", str(port)))
        self.output = folder / "console.txt"
        common = ["--root", str(folder / "root"), "--cmdline-file", str(self._cmdline), "--dry-orders"]
        if form == "python":
            # Boards have older Pythons than hosts: CI runs this table with 3.9 as well.
            python = os.environ.get("BOARDHAND_BOARD_PYTHON", sys.executable)
            command, env = [python, str(BOARD_ROOM / "client.py"), *common], {**os.environ, "TMPDIR": str(folder)}
        else:
            tools = folder / "busybox-only"
            tools.mkdir(exist_ok=True)
            busybox = next(Path(d) / "busybox" for d in os.environ["PATH"].split(":") if (Path(d) / "busybox").exists())
            if not (tools / "sh").exists():
                subprocess.run([busybox, "--install", "-s", str(tools)], check=True)
            command = [str(tools / "sh"), str(BOARD_ROOM / "client.sh"), *common]
            env = {"PATH": str(tools), "TMPDIR": str(folder)}
        with self.output.open("ab") as out:
            self.child = subprocess.Popen(command, stdout=out, stderr=out, env=env, cwd=folder, start_new_session=True)

    def end(self) -> None:
        """SIGKILL to all of it, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def wait(self) -> int:
        return self.child.wait(DEADLINE_S)

    def wait_output(self, text: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while text not in self.output.read_text():
            assert time.monotonic() < until, f"{text!r} not in:\n{self.output.read_text()}"
            time.sleep(0.02)


def make_root(folder: Path) -> None:
    files = {
        "proc/sys/kernel/random/boot_id": BOOT_ID + "\n",
        "proc/sys/kernel/osrelease": "6.1.0-test\n",
        "proc/meminfo": "MemTotal:        1000448 kB\nMemFree: 5 kB\n",
        "proc/uptime": "12.34 20.00\n",
        "proc/net/route": "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n",
        "proc/device-tree/serial-number": 'SN-"1"\\x\0',
        "proc/device-tree/compatible": "linux,dummy-virt\0second,name\0",
        "sys/class/net/lo/address": "00:00:00:00:00:00\n",
        "sys/class/net/eth0/address": MAC + "\n",
        "sys/class/net/eth1/address": "52:54:00:77:00:02\n",
        "etc/os-release": 'NAME=x\nPRETTY_NAME="Test \\"OS\\" 1"\n',
    }
    for name, text in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    running.start()
    yield running
    running.kill()


@pytest.fixture
def farm(server: Server) -> Iterator[Farm]:
    one = Farm(server.port)
    yield one
    one.close()


UNKNOWN = "quiet boardhand.agent=a1 boardhand.mqtt=127.0.0.1:PORT boardhand.prefix=bh"
KNOWN = f"{UNKNOWN} boardhand.board=b1 boardhand.secret={SECRET}"


@pytest.fixture(params=["python", "busybox"])
def start(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> Iterator[Callable[..., Board]]:
    """Starts a board; ends all of them afterwards. The whole table runs for both forms of the client."""
    boards = []
    make_root(tmp_path)

    def start_one(*, known: bool = True, cmdline: str = "") -> Board:
        text = cmdline or (KNOWN if known else UNKNOWN)
        boards.append(Board(request.param, tmp_path, server.port, text))
        return boards[-1]

    yield start_one
    for board in boards:
        board.end()
