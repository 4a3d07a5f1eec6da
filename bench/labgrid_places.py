"""Listing and acquiring 300 places: labgrid's coordinator beside our broker, each by its own protocol on loopback.

labgrid (PyPI, in `.cache/peers/labgrid`): one exporter with 300 resources, 300 places with one match each; `GetPlaces`
and `AcquirePlace` by gRPC. Ours: 300 light boards, ready; `boards` over MQTT, and `reserve` for each board by name,
until its answer. Ours is on the disk before it is said; labgrid's coordinator saves later. Run it with `make bench`, or
alone. Like is compared with like: command lines (`labgrid-client places`, `boardhand boards`; start of Python and all),
what a program does that connects and lists once (a new channel and `GetPlaces`; `cli.session` and the retained
messages, without our broker), and requests on a connection that stands.
"""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.broker import Servers
from bench.support.light_farm import LightFarm
from cli.farm_view import FarmView
from cli.session import Session
from cli.target import resolve

ROOT = Path(__file__).resolve().parents[1]
LABGRID = ROOT / ".cache" / "peers" / "labgrid" / "bin"
PLACES = 300
ROUNDS = 3
COMMANDS = 7
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_listening(port: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nothing listens on port {port}")


def command_ms(*command: object) -> float:
    """How long a command line takes, in ms."""
    began = time.perf_counter()
    subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, check=True, timeout=PATIENCE_S)
    return (time.perf_counter() - began) * 1000


def labgrid(folder: Path) -> dict[str, list[float]]:
    address = f"127.0.0.1:{free_port()}"
    exported = folder / "exporter.yaml"
    lines = [f"g{n}:\n  NetworkService:\n    address: 127.0.0.1\n    username: root\n" for n in range(1, PLACES + 1)]
    exported.write_text("".join(lines))
    log = (folder / "labgrid.log").open("wb")
    options = {"cwd": folder, "stdout": log, "stderr": log, "env": {**os.environ, "LG_COORDINATOR": address}}
    processes = [subprocess.Popen([LABGRID / "labgrid-coordinator", "-l", address], **options)]  # type: ignore[call-overload]
    try:
        wait_listening(int(address.rpartition(":")[2]))
        exporter = [LABGRID / "labgrid-exporter", "-c", address, "--name", "bench", "--hostname", "127.0.0.1", exported]
        processes.append(subprocess.Popen(exporter, **options))  # type: ignore[call-overload]
        driver = [
            LABGRID / "python",
            ROOT / "bench" / "support" / "labgrid_places.py",
            address,
            str(PLACES),
            str(ROUNDS),
        ]
        done = subprocess.run(driver, stdout=subprocess.PIPE, check=True, timeout=240)
        times: dict[str, list[float]] = json.loads(done.stdout)
        client = [LABGRID / "labgrid-client", "-x", address]
        times["list command"] = [command_ms(*client, "places") for _ in range(COMMANDS)]
        times["acquire command"] = [command_ms(*client, "-p", f"p{n}", "acquire") for n in range(1, COMMANDS + 1)]
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(20)
    return times


def connect_and_list(port: int) -> float:
    """How long it takes, in ms, to connect and to know of every board."""
    view = FarmView("boardhand")
    began = time.perf_counter()
    with Session(resolve({"mqtt": f"mqtt://127.0.0.1:{port}"}, {})) as session:
        for message in session.retained(*view.filters()):
            view.feed(message.topic, message.payload)
        rows = view.rows()
    took_ms = (time.perf_counter() - began) * 1000
    assert len(rows) == PLACES, len(rows)
    return took_ms


class Ours:
    """The light farm's boards, ready, and a client that lists and acquires them."""

    def __init__(self, farm: LightFarm) -> None:
        self.farm = farm
        self.count = 0
        self.answers: dict[str, dict[str, object]] = {}
        self.news = asyncio.Event()
        farm.on_response = self._answered
        farm.on_broker = self.news.set

    def _answered(self, answer: dict[str, object]) -> None:
        self.answers[str(answer["transaction"])] = answer
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def ask(self, verb: str, data: dict[str, object]) -> str:
        self.count += 1
        transaction = f"{verb}-{self.count}"
        self.farm.link.publish(f"boardhand/broker/request/{verb}", {"transaction": transaction, "data": data})
        return transaction

    async def list_boards(self) -> float:
        began = time.perf_counter()
        transaction = self.ask("boards", {"limit": PLACES})
        await self.until(lambda: transaction in self.answers)
        took_ms = (time.perf_counter() - began) * 1000
        data = self.answers.pop(transaction)["data"]
        assert isinstance(data, dict)
        assert len(data["boards"]) == PLACES, data["more"]
        return took_ms

    async def acquire_all(self, *, together: bool) -> float:
        return await self._for_all("reserve", {"holder": "bench"}, together=together)

    async def _for_all(self, verb: str, data: dict[str, object], *, together: bool) -> float:
        key = "board" if verb == "reserve" else "lease"
        began = time.perf_counter()
        for n, name in enumerate(self.farm.names, 1):
            self.ask(verb, {**data, key: name})
            if not together:
                await self.until(lambda n=n: len(self.answers) == n)
        await self.until(lambda: len(self.answers) == PLACES)
        took_ms = (time.perf_counter() - began) * 1000
        assert all(answer["ok"] for answer in self.answers.values())
        self.answers.clear()
        return took_ms

    async def release_all(self) -> None:
        await self._for_all("release", {}, together=True)


async def ours(servers: Servers) -> dict[str, list[float]]:
    wait_listening(servers.port)
    farm = LightFarm(PLACES, agents=3)
    await farm.connect(servers.port, "boardhand/broker/response/+")
    client = Ours(farm)
    farm.announce()
    for name in farm.names:
        farm.say(name, "ready")
    servers.start_broker()
    await client.until(lambda: farm.broker == "online")
    await asyncio.sleep(2)
    times: dict[str, list[float]] = {"list": [await client.list_boards() for _ in range(ROUNDS * 10)]}
    times["connect and list"] = [await asyncio.to_thread(connect_and_list, servers.port) for _ in range(ROUNDS * 10)]
    times |= {"one by one": [], "at once": []}
    for _ in range(ROUNDS):
        for how in ("one by one", "at once"):
            times[how].append(await client.acquire_all(together=how == "at once"))
            await client.release_all()
    command = [Path(sys.executable).with_name("boardhand"), "--mqtt", f"mqtt://127.0.0.1:{servers.port}"]
    times["list command"] = [await asyncio.to_thread(command_ms, *command, "boards") for _ in range(COMMANDS)]
    times["acquire command"] = []
    for name in farm.names[:COMMANDS]:
        times["acquire command"].append(await asyncio.to_thread(command_ms, *command, "reserve", name))
    return times


WORDS = {
    "list command": "command: list all",
    "acquire command": "command: acquire one",
    "connect and list": "library: connect, list all",
    "list": "request: list all",
    "one by one": "request: acquire 300, in turn",
    "at once": "request: acquire 300 at once",
}


def main() -> None:
    if not (LABGRID / "labgrid-coordinator").is_file():
        sys.exit(f"{LABGRID} is not there: run `make bench`, which makes it")
    with tempfile.TemporaryDirectory(prefix="boardhand-bench-") as name:
        os.environ["XDG_STATE_HOME"] = name  # where `boardhand reserve` keeps tokens
        theirs = labgrid(Path(name))
        servers = Servers(Path(name), "mosquitto")
        try:
            mine = asyncio.run(ours(servers))
        finally:
            servers.close()
    print(f"{PLACES} places; medians of {ROUNDS} rounds, in ms; both processes and their client on the same cores")
    for what, words in WORDS.items():
        a, b = statistics.median(theirs[what]), statistics.median(mine[what])
        print(f"{words:28} labgrid {a:8.1f}   boardhand {b:8.1f}   {a / b:5.1f} times")


if __name__ == "__main__":
    main()
