"""Whole farms: real agent, real Mosquitto, QEMU and light boards; and that nothing of them is left behind."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from virtual_lab.farm import is_running

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "farmtest"


async def until(condition, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # processes and files have no event
            await asyncio.sleep(0.05)


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def living_in(namespace):
    """Processes whose network namespace is `namespace`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if folder.joinpath("ns/net").stat().st_ino == namespace:
                    found.append(folder.name)
            except OSError:  # it ended, or belongs to somebody else
                continue
    return found


@pytest.fixture
def server(mqtt):
    """A Mosquitto; gives its port."""
    return mqtt.port


class Observer:
    """`mosquitto_sub` on everything, as a foreign client sees it."""

    def __init__(self, port):
        self._port = port
        self.seen = {}

    async def __aenter__(self):
        self._process = await asyncio.create_subprocess_exec(
            "stdbuf", "-oL",  # into a pipe it would keep 4 kB back
            "mosquitto_sub", "-p", str(self._port), "-v", "-t", f"{PREFIX}/#", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_):
        self._process.terminate()
        await self._process.wait()
        await self._reading

    async def _read(self):
        while line := await self._process.stdout.readline():
            topic, _, payload = line.decode().rstrip("\n").partition(" ")
            if payload.startswith("{"):
                self.seen.setdefault(topic, []).append(json.loads(payload))

    def last(self, tail):
        return self.seen.get(f"{PREFIX}/{tail}", [{}])[-1]

    async def send(self, tail, text):
        process = await asyncio.create_subprocess_exec(
            "mosquitto_pub", "-p", str(self._port), "-q", "1", "-t", f"{PREFIX}/{tail}", "-m", text
        )
        assert await process.wait() == 0

    async def phase(self, board, phase, seconds):
        await until(lambda: self.last(f"board/{board}/state").get("phase") == phase, seconds)


class Farm:
    def __init__(self, folder, process):
        self.folder = folder
        self.process = process
        self.lines = []

    @property
    def state(self):
        return json.loads((self.folder / "farm.json").read_text())

    def pids(self):
        state = self.state
        named = [state[key] for key in ("outer", "inner", "agent", "light", "pump")]
        return [pid for pid in [*named, *(board["pid"] for board in state["boards"].values())] if pid]

    async def line(self, key, seconds=60.0):
        """Read output until a line has `key`."""
        async with asyncio.timeout(seconds):
            while raw := await self.process.stdout.readline():
                self.lines.append(json.loads(raw))
                if key in self.lines[-1]:
                    return self.lines[-1]
        raise AssertionError(f"the farm ended without {key}: {self.lines}")


@asynccontextmanager
async def farm(folder, port, *options):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "virtual_lab.farm", "--dir", str(folder), "--mqtt", f"mqtt://127.0.0.1:{port}",
        "--prefix", PREFIX, "--agent", "lab", *options,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    running = Farm(folder, process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(60):
                await process.wait()


async def gone(pids, namespace):
    await until(lambda: not any(alive(pid) for pid in pids))
    await until(lambda: not living_in(namespace))


async def test_boards_boot_and_work_and_a_stop_leaves_nothing(server, tmp_path):
    folder = tmp_path / "farm"
    async with Observer(server) as observer, farm(folder, server, "--boards", "2", "--light", "2") as running:
        assert await running.line("ready", 300.0) == {"ready": True}  # the first time it downloads a kernel
        assert {"tools", "network", "boards", "agent"} <= {line.get("stage") for line in running.lines}
        pids, namespace = running.pids(), running.state["network_namespace"]
        assert all(alive(pid) for pid in pids)
        assert living_in(namespace)
        assert Path(running.state["boards"]["virt-1"]["qmp"]).is_socket()
        for board in ("virt-1", "virt-2", "light-1"):
            await observer.send(f"board/{board}/power/set", "on")
        await observer.phase("light-1", "ready", 20.0)
        offer = {
            "kind": "offer", "job": "j-1", "token": 3, "expires": "2099-01-01T00:00:00Z",
            "steps": [{"name": "greet", "run": "echo hello; sleep 0.1", "timeout_s": 10}],
        }  # fmt: skip
        await observer.send("board/light-1/work", json.dumps(offer))
        await until(lambda: observer.last("board/light-1/work/result").get("kind") == "outcome")
        assert observer.last("board/light-1/work/result")["outcome"] == "passed"
        texts = [said.get("text") for said in observer.seen[f"{PREFIX}/board/light-1/work/result"]]
        assert "hello\n" in texts
        # One board's U-Boot has an environment of ours, the other one is Debian's as it is.
        for board in ("virt-1", "virt-2"):
            await observer.phase(board, "ready", 120.0)
            await until(lambda board=board: observer.last(f"board/{board}/self").get("state") == "online")
            await until(lambda board=board: observer.last(f"board/{board}/info").get("serial") == board)
        await observer.send("board/light-1/power/set", "off")
        await observer.phase("light-1", "off", 10.0)
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await running.process.wait() == 0
        await gone(pids, namespace)
        assert not (folder / "farm.json").exists()
        assert not list(folder.glob("sockets/*"))  # a folder with a long path has them elsewhere
        await until(lambda: observer.last("agent/lab/state").get("state") == "offline")


async def test_a_killed_farm_takes_everything_along(server, tmp_path):
    folder = tmp_path / "farm"
    async with farm(folder, server, "--boards", "1", "--light", "1") as running:
        await running.line("ready", 300.0)
        pids, namespace = running.pids(), running.state["network_namespace"]
        running.process.kill()
        await running.process.wait()
        await gone(pids, namespace)
    async with farm(folder, server, "--light", "1", "--boards", "0") as again:  # the folder is free again
        await again.line("ready")


async def test_a_killed_inner_process_takes_everything_along(server, tmp_path):
    async with farm(tmp_path / "farm", server, "--boards", "1", "--light", "1") as running:
        await running.line("ready", 300.0)
        pids, namespace = running.pids(), running.state["network_namespace"]
        os.kill(running.state["inner"], signal.SIGKILL)
        assert "inner process ended with -9" in (await running.line("error"))["error"]
        assert await running.process.wait() == 1
        await gone(pids, namespace)


async def test_what_dies_is_started_again(server, tmp_path):
    async with farm(tmp_path / "farm", server, "--boards", "1") as running:
        await running.line("ready", 300.0)
        agent, machine = running.state["agent"], running.state["boards"]["virt-1"]["pid"]
        os.kill(agent, signal.SIGKILL)
        os.kill(machine, signal.SIGKILL)
        reading = asyncio.create_task(running.line("never", 60.0))
        await until(lambda: running.state["agent"] not in {agent, None})
        await until(lambda: running.state["boards"]["virt-1"]["pid"] not in {machine, None})
        assert running.state["agent_restarts"] == 1
        await until(lambda: sum(line.get("stage") == "trouble" for line in running.lines) >= 2)
        reading.cancel()
        troubles = " ".join(line["text"] for line in running.lines if line.get("stage") == "trouble")
        assert "agent was ended by SIGKILL" in troubles
        assert "board virt-1 was ended by SIGKILL" in troubles


async def test_a_second_farm_in_the_same_folder_is_refused(server, tmp_path):
    folder = tmp_path / "farm"
    async with farm(folder, server, "--boards", "0", "--light", "1") as running:
        await running.line("ready")
        async with farm(folder, server, "--boards", "0", "--light", "1") as second:
            assert "a farm is already running in" in (await second.line("error"))["error"]
            assert await second.process.wait() == 1
        assert alive(running.state["agent"])
        assert is_running(folder)
    assert not is_running(folder)
    assert not is_running(tmp_path / "nothing")


async def test_a_long_folder_has_its_sockets_elsewhere(server, tmp_path):
    folder = tmp_path / ("long" * 30)
    async with farm(folder, server, "--boards", "0", "--light", "1") as running:
        await running.line("ready")
        qmp = Path(running.state["lights"]["light-1"]["qmp"])
        assert qmp.is_socket()
        assert not qmp.is_relative_to(folder)
        running.process.terminate()
        await running.process.wait()
        assert not qmp.parent.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--boards", "0"], "a farm without boards"),
        (["--boards", "500"], "--boards 500: a farm has 0 to 80"),
        (["--unlisted", "3"], "--unlisted 3"),
        (["--light", "-1"], "--light -1"),
        (["--agent", "A b"], "--agent 'A b': use a-z"),
        (["--mqtt", "http://x"], "is not mqtt://HOST"),
        (["--mqtt-password-file", "/none"], "password_file"),
    ],
)
async def test_wrong_options_are_told_in_words(tmp_path, options, words):
    async with farm(tmp_path / "farm", 1, *options) as running:
        assert words in (await running.line("error"))["error"]
        assert await running.process.wait() == 1
