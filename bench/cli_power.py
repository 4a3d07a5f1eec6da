"""How long `boardhand power BOARD on` takes as a whole process, against `python3 -c pass` of the same interpreter.

    python bench/cli_power.py [--pairs N] [--json]

A real Mosquitto and an agent that answers at once run on loopback, so what is measured is the command: start of
Python, imports, connect, subscribe, publish, result. Pairs are interleaved, so that a busy machine slows both alike.
Two forms of the command are timed: as installed (`boardhand`, if there) and `python -m cli`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from board.client import MqttConnection  # noqa: E402 -- found through the line above

TARGET_RATIO = 3.0  # the command is to take less than this many times `python3 -c pass`
BOARD = "bench-1"


class Sample(NamedTuple):
    """One process: wall clock and CPU time (user + system) in milliseconds."""

    wall_ms: float
    cpu_ms: float


def timed(command: list[str], env: dict[str, str]) -> Sample:
    """Run `command` to its end. A failure ends the benchmark: a fast error is no result."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    wall_ms = (time.perf_counter() - started) * 1e3
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{command} ended with {done.returncode}: {done.stderr.decode()}")
    return Sample(wall_ms, ((after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)) * 1e3)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """A real Mosquitto for as long as the block."""
    port = free_port()
    conf = folder / "mosquitto.conf"
    conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    child = subprocess.Popen(["mosquitto", "-c", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                with MqttConnection("127.0.0.1", port, "bench-probe"):
                    break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield port
    finally:
        child.terminate()
        child.wait(10)


@contextmanager
def instant_agent(port: int) -> Iterator[None]:
    """An agent in this process that says 'verified' the moment it is asked."""
    stop = threading.Event()
    link = MqttConnection("127.0.0.1", port, "bench-agent")
    link.connect()
    state = {"power": "off", "phase": "off", "since": "2026-01-01T00:00:00Z", "agent": "lab", "session": 1, "seq": 1}
    link.publish(f"boardhand/board/{BOARD}/state", json.dumps(state).encode(), retain=True)
    link.subscribe(f"boardhand/board/{BOARD}/power/set")

    def serve() -> None:
        while not stop.is_set():
            message = link.receive(0.2)
            if message is not None:
                asked = json.loads(message.payload)
                answer = {"id": asked["id"], "ok": True, "power": asked["power"], "took_ms": 0.1}
                link.publish(f"boardhand/board/{BOARD}/power/result", json.dumps(answer).encode(), wait=False)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)
        link.close()


def forms() -> dict[str, list[str]]:
    """The ways to start the command, by name."""
    found = {"python -m cli": [sys.executable, "-m", "cli"]}
    script = Path(sys.executable).with_name("boardhand")
    if script.exists():
        found["boardhand"] = [str(script)]
    return found


def line(name: str, samples: list[Sample]) -> str:
    wall = [sample.wall_ms for sample in samples]
    cpu = statistics.median(sample.cpu_ms for sample in samples)
    return f"{name:<18} {min(wall):7.1f} {statistics.median(wall):7.1f} {max(wall):7.1f}   {cpu:7.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    nothing = [sys.executable, "-c", "pass"]
    commands = forms()
    samples: dict[str, list[Sample]] = {name: [] for name in ("python3 -c pass", *commands)}
    with tempfile.TemporaryDirectory(prefix="bh-bench-") as folder, server(Path(folder)) as port, instant_agent(port):
        env = {key: value for key, value in os.environ.items() if not key.startswith("BOARDHAND")}
        # An installed package has its byte code; without this a changed file would be compiled at each start.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env |= {"BOARDHAND_MQTT": f"mqtt://127.0.0.1:{port}", "PYTHONPATH": str(ROOT)}
        for turn in range(args.pairs + 2):
            for name, taken in samples.items():
                sample = timed([*commands[name], "power", BOARD, "on"] if name in commands else nothing, env)
                if turn >= 2:  # the first two fill the page cache and write the .pyc files
                    taken.append(sample)
    medians = {name: statistics.median(sample.wall_ms for sample in taken) for name, taken in samples.items()}
    base = medians["python3 -c pass"]
    ratios = {name: medians[name] / base for name in commands}
    if args.json:
        print(json.dumps({"pairs": args.pairs, "median_ms": medians, "ratio": ratios, "target": TARGET_RATIO}))
    else:
        print(f"{args.pairs} interleaved rounds, ms         min  median     max  CPU median")
        for name, taken in samples.items():
            print(line(name, taken))
        for name, ratio in ratios.items():
            print(f"{name}: {ratio:.2f} x ({'meets' if ratio < TARGET_RATIO else 'MISSES'} < {TARGET_RATIO:g})")
    return 0 if all(ratio < TARGET_RATIO for ratio in ratios.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
