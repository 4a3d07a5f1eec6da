"""How long a board that is ready waits for its offer, with 10 to 20,000 jobs queued, and how long a restart takes.

2,000 light boards on one connection of a real Mosquitto; the broker as a process of its own, its store on disk. From
"ready" (the agent's word is handed to the socket) to "offered" (the offer has come back) everything counts: the
server twice, the decision, the commit. Jobs ask for labels, in 40 kinds, from 20 submitters. Run it with `make bench`,
or alone: `python bench/broker.py [--boards N] [--jobs N]`.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.support.light_farm import LightFarm
from bench.support.process_meter import memory_mib

DEPTHS = (10, 100, 1_000, 10_000, 20_000)
SAMPLES = 400
EVERY_S = 0.02
"""A board becomes ready every so often: 2,000 boards whose jobs last 40 s."""
PATIENCE_S = 120.0
FLOOD = 10_000
WINDOW = 200
"""Submits under way at once."""


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Servers:
    """Mosquitto and the broker."""

    def __init__(self, folder: Path, mosquitto: str) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        config = folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        # Thousands of retained messages come at once after a subscription: Mosquitto drops those beyond 1,000.
        config.write_text(
            f"{user}set_tcp_nodelay true\nallow_anonymous true\nlistener {self.port} 127.0.0.1\n"
            "max_queued_messages 0\nmax_inflight_messages 1000\n"
        )
        self.settings = folder / "broker.toml"
        self.settings.write_text(
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{self.port}"\n'
            f'[broker]\nstate_dir = "{folder}/state"\nidle_s = 0\nmax_queued = 100000\n'
        )
        self.mosquitto = subprocess.Popen([mosquitto, "-c", str(config)], stderr=(folder / "mosquitto.log").open("wb"))
        self.broker: subprocess.Popen[bytes] | None = None

    def start_broker(self) -> None:
        command = [sys.executable, "-m", "broker", "--settings", str(self.settings)]
        if profile := os.environ.pop("BOARDHAND_PROFILE", None):
            command[1:1] = ["-m", "cProfile", "-o", profile]
        self.broker = subprocess.Popen(command, stderr=(self.folder / "broker.log").open("ab"))

    def end_broker(self, number: signal.Signals) -> None:
        if self.broker is not None:
            self.broker.send_signal(number)
            self.broker.wait(30)
            self.broker = None

    def close(self) -> None:
        self.end_broker(signal.SIGTERM)
        self.mosquitto.terminate()
        self.mosquitto.wait(10)


class Load:
    """Submits jobs and makes boards ready, and takes the times."""

    def __init__(self, farm: LightFarm) -> None:
        self.farm = farm
        self.submitted = self.accepted = 0
        self.ready_at: dict[str, float] = {}
        self.waits: list[float] = []
        self.news = asyncio.Event()
        farm.on_offer = self._offered
        farm.on_response = self._answered

    def _answered(self, answer: dict[str, object]) -> None:
        if not answer["ok"]:
            raise SystemExit(f"refused: {answer}")
        self.accepted += 1
        self.news.set()

    def _offered(self, board: str, offer: dict[str, object]) -> None:
        at = self.ready_at.pop(board, None)
        if at is not None:
            self.waits.append((time.perf_counter() - at) * 1000)
        self.farm.run(board, offer)
        self.news.set()

    async def until(self, what: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"waited in vain for {what}")
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self.news.wait()

    def submit(self, arch: str | None = None) -> None:
        """A job for some boards of many kinds; with `arch`, for every board of it."""
        n = self.submitted
        self.submitted += 1
        least_mb = (256, 512, 768, 1024, 2048, 4096)[n // 4 % (6 if arch is None else 4)]
        where = f"rack: {n % 10}" if n % 3 == 0 and arch is None else f"memory_mb: '>= {least_mb}'"
        arch = arch or ("arm64", "armhf", "arm64", "arm64")[n % 4]
        text = f"name: job {n}\nlabels: {{arch: {arch}, {where}}}\npriority: {n % 5}\nsteps: [make test]\n"
        self.farm.submit(n, text)

    async def fill(self, depth: int) -> float:
        """Submit until `depth` jobs wait; returns jobs per second."""
        before, began = self.submitted, time.perf_counter()
        wanted = depth - (self.accepted - self.done)
        for _ in range(wanted):
            self.submit()
            if self.submitted - self.accepted >= WINDOW:
                await self.until("answers", lambda: self.submitted - self.accepted < WINDOW // 2)
        await self.until("answers", lambda: self.submitted == self.accepted)
        return (self.submitted - before) / max(time.perf_counter() - began, 1e-9)

    @property
    def done(self) -> int:
        return len(self.waits)

    async def measure(self, samples: int) -> list[float]:
        """Boards become ready one after the other; a new job comes for each that is taken."""
        first, begin = len(self.waits), time.perf_counter()
        names = self.farm.names
        for n in range(samples):
            await asyncio.sleep(max(0.0, begin + n * EVERY_S - time.perf_counter()))
            board = names[n * 7 % len(names)]
            self.submit(self.farm.arch(board))  # so that there is work for every board
            self.ready_at[board] = time.perf_counter()
            self.farm.say(board, "ready")
        await self.until("offers", lambda: len(self.waits) == first + samples)
        await self.until("answers", lambda: self.submitted == self.accepted)
        return self.waits[first:]


def waited(values: list[float]) -> str:
    p99 = percentile(values, 0.99)
    return f"median {statistics.median(values):5.1f} ms, 99 % within {p99:5.1f} ms, longest {max(values):5.1f} ms"


def cpu_s(servers: Servers) -> float:
    """CPU time of the broker so far: what does not depend on what else this machine does."""
    if servers.broker is None:
        return 0.0
    fields = Path(f"/proc/{servers.broker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # proc(5): user and system time


async def restart(servers: Servers, farm: LightFarm, load: Load, how: signal.Signals) -> float:
    """Seconds from the start of the process to the offer to a board that became ready meanwhile."""
    servers.end_broker(how)
    farm.broker = ""
    board = farm.names[3]
    before = len(load.waits)
    load.ready_at[board] = time.perf_counter()
    farm.say(board, "ready")
    began = time.perf_counter()
    servers.start_broker()
    await load.until("the first offer", lambda: len(load.waits) > before)
    return time.perf_counter() - began


async def bench(servers: Servers, boards: int, most: int) -> None:
    farm = LightFarm(boards, agents=max(1, boards // 100))
    for _ in range(200):
        try:
            await farm.connect(servers.port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            break
    load = Load(farm)
    farm.announce()
    await load.until("the boards are announced", lambda: farm.link.unacked == 0)
    servers.start_broker()
    await load.until("the broker", lambda: farm.broker == "online")
    await asyncio.sleep(2)  # its picture of the farm is complete when no message came for a second
    print(
        f"{boards} boards; one becomes ready every {EVERY_S * 1000:.0f} ms, {SAMPLES} times: until it is offered a job"
    )
    for depth in [depth for depth in DEPTHS if depth <= most]:
        rate = await load.fill(depth)
        before_s = cpu_s(servers)
        waits = await load.measure(SAMPLES)
        cpu_ms = (cpu_s(servers) - before_s) * 1000 / SAMPLES
        print(f"{depth:6} queued: {waited(waits)}; CPU {cpu_ms:.2f} ms per job; submitted {rate:.0f}/s", flush=True)
    if servers.broker is not None:
        print(f"broker, {boards} boards and {most} jobs queued: {memory_mib(servers.broker.pid):.0f} MiB")
    for how in (signal.SIGTERM, signal.SIGKILL):
        took_s = await restart(servers, farm, load, how)
        print(f"restart after {how.name}, until a ready board is offered work: {took_s:.2f} s")
    pouring = asyncio.create_task(load.fill(most + FLOOD))
    waits = await load.measure(SAMPLES)
    print(f"while {FLOOD} more pour in: {waited(waits)}")
    await pouring


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--boards", type=int, default=2_000)
    options.add_argument("--jobs", type=int, default=20_000, help="the longest queue")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="boardhand-bench-") as name:
        servers = Servers(Path(name), "mosquitto")
        try:
            asyncio.run(bench(servers, args.boards, args.jobs))
        finally:
            servers.close()
            if os.environ.get("BOARDHAND_BENCH_LOG"):
                print((Path(name) / "broker.log").read_text())


if __name__ == "__main__":
    main()
