"""Consoles: 100 boards at 115200 baud, all talking, recorded and one reader each; ser2net in the same run.

    .venv/bin/python bench/consoles.py [--boards 100] [--seconds 20] [--without-ser2net]

Every 10 ms each board prints 115 bytes, which begin with a number and the time. The reader counts what is missing by
the numbers, and the latency from the board's write to the reader's read. What is tried runs in a process of its own,
whose processor time is read from /proc. The boards are ptys, so the UART's own time is not in it.
"""

import argparse
import asyncio
import os
import pty
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tty
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

TICK_S = 0.010
BAUD = 115200
CHUNK_BYTES = int(BAUD / 10 * TICK_S)
FIRST_PORT = 21000
SETTLE_S = 2.0


def chunk(number: int) -> bytes:
    head = b"%08d %020d " % (number, time.monotonic_ns())
    return head + b"x" * (CHUNK_BYTES - len(head) - 2) + b"\r\n"


def serve(folder: str, paths: list[str]) -> None:
    """In a process of its own: the desk of an agent with a console for each of `paths`."""
    from agent.console.desk import ConsoleCalls, ConsoleDesk
    from agent.console.settings import ConsolesTable, ConsoleTable

    async def run() -> None:
        tables = {f"b{n}": ConsoleTable(device=path, raw_port=FIRST_PORT + n) for n, path in enumerate(paths)}
        calls = ConsoleCalls(lambda _: None, lambda *_: None, lambda _: None, lambda _: None)
        desk = ConsoleDesk(tables, ConsolesTable(), Path(folder), calls)
        await desk.start()
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await desk.stop()

    asyncio.run(run())


def feed(seconds: float, masters: list[int]) -> None:
    """In a process of its own: all boards talk for so long."""
    for master in masters:
        os.set_blocking(master, False)
    ticks = round(seconds / TICK_S)
    groups = [masters[first::10] for first in range(10)]
    dropped = 0
    began = time.monotonic()
    for tick in range(ticks):
        for part, group in enumerate(groups):
            due = began + (tick + part / 10) * TICK_S
            time.sleep(max(0.0, due - time.monotonic()))
            for master in group:
                try:
                    if os.write(master, chunk(tick)) < CHUNK_BYTES:
                        dropped += 1
                except BlockingIOError:
                    dropped += 1  # nobody reads it: a real UART's bytes would be gone
    print(f"{ticks} {dropped}", flush=True)


def read(boards: int) -> None:
    """In a process of its own: one connection for each board; counts until nothing comes any more."""
    chooser = selectors.DefaultSelector()
    rest = {}
    for n in range(boards):
        connection = socket.create_connection(("127.0.0.1", FIRST_PORT + n), 10)
        connection.setblocking(False)
        chooser.register(connection, selectors.EVENT_READ, n)
        rest[n] = b""
    print("connected", flush=True)
    latencies: list[float] = []
    missing, seen, expected, silent_since = 0, 0, dict.fromkeys(range(boards), 0), time.monotonic()
    while time.monotonic() - silent_since < SETTLE_S or not seen:
        for key, _ in chooser.select(0.5):
            data = key.fileobj.recv(65536)  # type: ignore[union-attr]
            now_ns = time.monotonic_ns()
            silent_since = time.monotonic()
            *lines, rest[key.data] = (rest[key.data] + data).split(b"\n")
            for line in lines:
                number, sent_ns = int(line[:8]), int(line[9:29])
                missing += number - expected[key.data]
                expected[key.data] = number + 1
                seen += 1
                latencies.append((now_ns - sent_ns) / 1e6)
    latencies.sort()
    p99 = latencies[int(len(latencies) * 0.99)]
    print(f"{seen} {missing} {statistics.median(latencies):.3f} {p99:.3f}", flush=True)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ser2net_settings(folder: Path, paths: list[str]) -> Path:
    file = folder / "ser2net.yaml"
    file.write_text(
        "%YAML 1.1\n---\n"
        + "".join(
            f"connection: &b{n}\n  accepter: tcp,127.0.0.1,{FIRST_PORT + n}\n"
            f"  connector: serialdev,{path},115200n81,local\n"
            f"  options:\n    trace-read: {folder}/b{n}.log\n    max-connections: 3\n"
            for n, path in enumerate(paths)
        )
    )
    return file


def measure(name: str, boards: int, seconds: float) -> None:
    pairs = [pty.openpty() for _ in range(boards)]
    paths = [os.ttyname(slave) for _, slave in pairs]
    masters = [master for master, _ in pairs]
    for _, slave in pairs:
        tty.setraw(slave)
        os.close(slave)
    own = [sys.executable, __file__]
    with tempfile.TemporaryDirectory() as folder:
        if name == "boardhand":
            command = [*own, "--serve", folder, *paths]
        else:
            command = [name, "-n", "-c", str(ser2net_settings(Path(folder), paths))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes) as tried:  # type: ignore[call-overload]
            time.sleep(SETTLE_S)
            reader = subprocess.Popen([*own, "--read", str(boards)], stdout=subprocess.PIPE, text=True)
            assert reader.stdout is not None
            assert reader.stdout.readline() == "connected\n"
            time.sleep(SETTLE_S / 2)
            before = cpu_s(tried.pid)
            feeder = [*own, "--feed", str(seconds), *map(str, masters)]
            fed = subprocess.run(feeder, stdout=subprocess.PIPE, text=True, check=True, pass_fds=masters)
            used = cpu_s(tried.pid) - before
            ticks, dropped = map(int, fed.stdout.split())
            out, _ = reader.communicate(timeout=60)
            seen, missing, median, p99 = out.split()
            tried.terminate()
            tried.communicate(timeout=30)
    lost = ticks * boards - int(seen)
    print(
        f"{name:10} {used / seconds:6.1%} of a core  {lost} of {ticks * boards} lines lost ({missing} gaps, {dropped} "
        f"not taken)  latency median {median} ms, 99 % {p99} ms"
    )
    for master in masters:
        os.close(master)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--boards", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--without-ser2net", action="store_true")
    options = parser.parse_args()
    print(f"{options.boards} consoles at {BAUD} baud, {options.seconds:g} s, one reader each, recorded")
    measure("boardhand", options.boards, options.seconds)
    if options.without_ser2net:
        return
    if shutil.which("ser2net") is None:
        print("ser2net is not here: apt-get install ser2net")
        return
    measure("ser2net", options.boards, options.seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3:])
    elif sys.argv[1:2] == ["--feed"]:
        feed(float(sys.argv[2]), [int(fd) for fd in sys.argv[3:]])
    elif sys.argv[1:2] == ["--read"]:
        read(int(sys.argv[2]))
    else:
        main()
