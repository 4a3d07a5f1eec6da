"""One file to many clients at once by HTTP: our server next to nginx, and what our event loop feels meanwhile.

Both serve the same file on loopback to the same clients (one process that reads all connections and throws the octets
away, each from an address of its own), in turns: a large file to a shelf, and a small one to a whole farm at once.
nginx is Debian's, with a configuration of our own and no service: two workers, sendfile on. "CPU" is the server's, user
and system. "stall" is the longest that a 1 ms timer of our event loop was late; on a machine whose cores are all busy,
that holds the wait for a core. Run it with `make bench`, or alone; `--quick` takes a few seconds.
"""

import argparse
import asyncio
import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DEADLINE_S = 120.0
TICK_S = 0.001
READ_BYTES = 1 << 18
NGINX_WORKERS = 2
GOAL = 0.8
STALL_GOAL_MS = 20.0


@dataclass(frozen=True, slots=True)
class Load:
    """`clients` fetch `size` octets each, so often."""

    clients: int
    size: int
    rounds: int

    @property
    def total(self) -> int:
        return self.clients * self.size


LOADS = (Load(16, 100_000_000, 7), Load(256, 4_000_000, 7))
QUICK_LOADS = (Load(16, 100_000_000, 3), Load(256, 4_000_000, 3))


@dataclass(frozen=True, slots=True)
class Run:
    rate_mb_s: float
    cpu_s: float
    stall_ms: float = 0.0


async def serve(path: Path) -> None:
    """Our server in a process of its own; says its port, and with every line on stdin its longest stall since."""
    from netboot.http_server import HttpBootServer
    from netboot.tftp_process import SendFile

    server = HttpBootServer(
        "127.0.0.1",
        0,
        answer=lambda _question: asyncio.sleep(0, SendFile(path)),
        on_done=lambda _done: None,
        on_refusal=lambda _refusal: None,
    )
    print(await server.start(), flush=True)
    worst = 0.0
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    ended = asyncio.Event()

    def heard() -> None:
        (asked if os.read(0, 100) else ended).set()

    loop.add_reader(0, heard)
    while not ended.is_set():
        due = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        worst = max(worst, time.perf_counter() - due)
        if asked.is_set():
            asked.clear()
            print(f"{worst * 1000:.2f}", flush=True)
            worst = 0.0
    await server.stop()


def fetch(port: int, clients: int, size: int) -> float:
    """Seconds until every client has the whole file."""
    selector = selectors.DefaultSelector()
    buffer = bytearray(READ_BYTES)
    got: dict[socket.socket, int] = {}
    began = time.perf_counter()
    for number in range(clients):
        own = f"127.77.{number >> 8}.{number & 255}"  # our server bounds the connections of one address
        sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S, source_address=(own, 0))
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
        got[sock] = 0
        sock.sendall(b"GET /file HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
    left = clients
    while left:
        for key, _ in selector.select(DEADLINE_S):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            count = client.recv_into(buffer)
            got[client] += count
            if not count:
                selector.unregister(client)
                client.close()
                left -= 1
    spent = time.perf_counter() - began
    for sock, count in got.items():
        if not size < count < size + 1000:
            raise RuntimeError(f"{sock} got {count} octets of {size} and some headers")
    return spent


def cpu_s(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def find_nginx() -> str | None:
    """What `make bench` has unpacked, else the host's."""
    unpacked = Path(__file__).resolve().parents[1] / ".cache/peers/nginx/root/usr/sbin/nginx"
    return str(unpacked) if unpacked.is_file() else shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def measure(port: int, pids: list[int], load: Load, stall: Callable[[], float] | None = None) -> Run:
    if stall is not None:
        stall()
    before = cpu_s(pids)
    spent = fetch(port, load.clients, load.size)
    used = cpu_s(pids) - before
    return Run(load.total / spent / 1e6, used, stall() if stall is not None else 0.0)


def start_nginx(program: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; {user} worker_processes {NGINX_WORKERS}; pid {folder}/nginx.pid; error_log stderr;\n"
        f"events {{ worker_connections 512; }}\n"
        f"http {{ access_log off; sendfile on; tcp_nopush on; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    process = subprocess.Popen([program, "-e", "stderr", "-c", str(config), "-p", str(folder)])
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return process, port
    process.terminate()
    raise RuntimeError("nginx does not listen")


def report(name: str, runs: list[Run], load: Load) -> float:
    rate = statistics.median(run.rate_mb_s for run in runs)
    spread = f"{min(run.rate_mb_s for run in runs):.0f}-{max(run.rate_mb_s for run in runs):.0f}"
    cpu = statistics.median(run.cpu_s for run in runs) / (load.total / 1e9)
    stall = f"  stall max {max(run.stall_ms for run in runs):.1f} ms" if any(run.stall_ms for run in runs) else ""
    print(f"{name:10} {rate:7.0f} MB/s ({spread})  CPU {cpu:.2f} s/GB{stall}")
    return rate


def compare(load: Load, folder: Path, nginx_program: str | None) -> None:
    path = folder / "file"
    path.write_bytes(os.urandom(load.size))
    ours = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert ours.stdin is not None
    assert ours.stdout is not None
    nginx: subprocess.Popen[bytes] | None = None
    talk_in, talk_out = ours.stdin, ours.stdout

    def stall() -> float:
        talk_in.write(b"\n")
        talk_in.flush()
        return float(talk_out.readline())

    try:
        port = int(ours.stdout.readline())
        mine, theirs = [], []
        nginx_port = 0
        if nginx_program is not None:
            nginx, nginx_port = start_nginx(nginx_program, folder)
        print(f"{load.clients} clients at once, {load.size / 1e6:.0f} MB each, {load.rounds} rounds; median (range)")
        for _ in range(load.rounds):
            mine.append(measure(port, [ours.pid], load, stall))
            if nginx is not None:
                theirs.append(measure(nginx_port, children(nginx.pid), load))
        rate = report("boardhand", mine, load)
        if nginx is not None:
            ratio = rate / report("nginx", theirs, load)
            print(f"ratio      {ratio:7.2f} (goal: {GOAL})")
        print(
            f"longest stall, median of the rounds: {statistics.median(run.stall_ms for run in mine):.1f} ms"
            f" (goal: {STALL_GOAL_MS:.0f})"
        )
    finally:
        for process in (ours, nginx):
            if process is not None:
                process.terminate()
                process.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smaller file and fewer runs")
    parser.add_argument("--nginx", default=find_nginx(), help="the program")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
        return
    if options.nginx is None:
        print("nginx is not there to compare with: say --nginx PROGRAM")
    for load in QUICK_LOADS if options.quick else LOADS:
        with tempfile.TemporaryDirectory(prefix="boardhand-bench-") as name:
            compare(load, Path(name), options.nginx)


if __name__ == "__main__":
    main()
