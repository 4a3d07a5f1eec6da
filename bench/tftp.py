"""Our TFTP worker against tftpd-hpa, atftpd, dnsmasq and the TFTP servers of PyPI: one run, in turns, medians.

    python bench/tftp.py [--quick] [--json] [--only CASE] [--servers NAME,NAME]

Servers and clients are in two network namespaces that a veth pair joins; a server runs on one core and the clients
(bench/tftp_load.c, compiled here) on another. The load client compares every octet. Each run has a fresh server. Ours
is the worker as the agent starts it, with a small parent, and the CPU time of both counts. Losses and the round trip
time are made in the client. Slow servers get smaller files. Servers that know no windows fall back to lockstep there.

The README's table: MB/s and, behind it, seconds of CPU per gigabyte.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pyroute2 import IPRoute

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.support.process_meter import Meter, memory_mib  # noqa: E402 -- found through the line above
from netboot.tftp_process import Answer, Question, SendError, SendFile, TftpProcess, WorkerConfig  # noqa: E402
from virtual_lab.namespace import NamespaceError, enter_private_network, new_network  # noqa: E402

PEERS = ROOT / ".cache/peers"
SERVER, FAR, FIRST_BOARD = "10.78.0.1", "10.78.0.2", "10.78.1.0"
OURS, BEST_OF = "boardhand", ("dnsmasq", "atftpd", "tftpd-hpa")
SLOW = frozenset({"py3tftp", "tftpy", "partftpy"})
SLOW_SHARE = 8  # their files are smaller by this factor
START_DEADLINE_S = 15.0
KIB = 1024


@dataclass(frozen=True)
class Case:
    """What the boards do. `kib` is the file's size; `drop` counts lost packets of 10,000, each way; `timer_ms` is after
    how long a board repeats its last packet: 5 s is U-Boot's."""

    name: str
    boards: int
    block: int
    window: int
    kib: int
    drop: int = 0
    delay_us: int = 0
    timer_ms: int = 5000
    limit_s: float = 60.0
    rounds: int | None = None
    servers: tuple[str, ...] = ()  # () means all


WINDOWED = (OURS, "dnsmasq", "atftpd", "tftpd-hpa", "py3tftp")
CASES = (
    Case("lockstep 1468, 1 board", 1, 1468, 1, 8192),
    Case("lockstep 1468, 16 boards", 16, 1468, 1, 8192),
    Case("lockstep 1468, 64 boards", 64, 1468, 1, 4096),
    Case("lockstep 1468, 256 boards", 256, 1468, 1, 1024),
    Case("lockstep 512, 64 boards", 64, 512, 1, 1024),
    Case("window 4, 64 boards", 64, 1468, 4, 4096, servers=WINDOWED),
    Case("window 16, 64 boards", 64, 1468, 16, 4096, servers=WINDOWED),
    Case("window 64, 64 boards", 64, 1468, 64, 4096, servers=WINDOWED),
    Case("lockstep, 0.2 ms, 32 boards", 32, 1468, 1, 2048, delay_us=200, servers=(OURS, *BEST_OF)),
    Case("lockstep, 1 % lost, 64 boards", 64, 1468, 1, 256, drop=100, rounds=2, servers=(OURS, *BEST_OF, "py3tftp")),
    Case("window 16, 1 % lost, 64 boards", 64, 1468, 16, 512, drop=100, rounds=2, servers=(OURS, *BEST_OF)),
)
SMALL_SHARE = 4  # of --quick


@dataclass
class Run:
    """One measurement: MB are 10^6 octets, memory is the sum of the processes' proportional set sizes in MiB."""

    mb_per_s: float
    cpu_s_per_gb: float
    p50_s: float
    p99_s: float
    finished: int
    memory_mib: float
    again: float  # packets that the boards got twice, per packet they needed


@dataclass
class Results:
    """Runs by case and server."""

    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)

    def add(self, case: Case, server: str, run: Run) -> None:
        self.runs.setdefault(case.name, {}).setdefault(server, []).append(run)

    def median(self, case: str, server: str, key: str) -> float:
        return statistics.median(getattr(run, key) for run in self.runs[case][server])


# --- servers ---------------------------------------------------------------------------------------------------------


async def serve_ours(folder: Path) -> None:
    """Be our server until told to end."""

    async def answer(question: Question) -> Answer:
        name = question.path.lstrip("/")
        return SendFile(folder / name) if (folder / name).is_file() else SendError(1, "no such file")

    process = TftpProcess(
        # Windows beyond 16 are off by default; the rest is as the agent has it.
        WorkerConfig(address=SERVER, port=69, interface="bh-server", max_window=64),
        answer=answer,
        on_done=lambda _done: None,
        on_refusal=lambda _refusal: None,
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await process.start()
    await ended.wait()
    await process.stop()


def commands(folder: Path) -> dict[str, list[str]]:
    """How each server is started in the foreground, with its limits out of the way."""
    unpacked, python = PEERS / "tftp-debian/root/usr/sbin", str(PEERS / "tftp-pypi/bin/python")
    tftpy = "import sys, {0} as t; t.TftpServer(sys.argv[1]).listen(sys.argv[2], 69)"
    return {
        OURS: [sys.executable, __file__, "--serve", str(folder)],
        "dnsmasq": ["dnsmasq", "-k", "-C", "/dev/null", "-p", "0", "-u", "root", "--enable-tftp",
                    f"--tftp-root={folder}", "--tftp-max=1000", f"--listen-address={SERVER}", "--bind-interfaces"],
        "atftpd": [str(unpacked / "atftpd"), "--daemon", "--no-fork", "--user", "root", "--group", "root",
                   "--maxthread", "1000", "--bind-address", SERVER, "--port", "69", str(folder)],
        "tftpd-hpa": [str(unpacked / "in.tftpd"), "-L", "-u", "root", "-a", f"{SERVER}:69", "-s", str(folder)],
        "py3tftp": [str(PEERS / "tftp-pypi/bin/py3tftp"), "--host", SERVER, "-p", "69"],
        "tftpy": [python, "-c", tftpy.format("tftpy"), str(folder), SERVER],
        "partftpy": [python, "-c", tftpy.format("partftpy.TftpServer"), str(folder), SERVER],
    }  # fmt: skip


def answers() -> bool:
    """Whether something on the port sends the one-octet file `probe`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        try:
            sock.sendto(struct.pack("!H", 1) + b"probe\0octet\0", (SERVER, 69))
            data, peer = sock.recvfrom(600)
            sock.sendto(struct.pack("!HH", 4, 1), peer)
        except OSError:
            return False
        return data == b"\0\3\0\1x"


@contextmanager
def running(name: str, folder: Path, core: int | None) -> Iterator[tuple[int, Meter]]:
    pin = ["taskset", "-c", str(core)] if core is not None else []
    with (folder.parent / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*pin, *commands(folder)[name]], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )
    meter = Meter(process.pid)
    try:
        end = time.monotonic() + START_DEADLINE_S
        while not answers():
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} does not serve:\n{Path(log.name).read_text()[-2000:]}")
            time.sleep(0.02)
        yield process.pid, meter
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        meter.close()


# --- load ------------------------------------------------------------------------------------------------------------


class Lab:
    """Two namespaces and the files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir(mode=0o755)
        (self.files / "probe").write_bytes(b"x")
        self.load = folder / "tftp_load"
        source = Path(__file__).with_name("tftp_load.c")
        subprocess.run(["cc", "-O2", "-o", str(self.load), str(source)], check=True, timeout=60)
        enter_private_network()
        self.far = new_network()
        with IPRoute() as routes:
            routes.link("set", index=1, state="up")
            peer = {"ifname": "bh-boards", "net_ns_fd": self.far}
            routes.link("add", ifname="bh-server", kind="veth", peer=peer)
            index = routes.link_lookup(ifname="bh-server")[0]
            routes.addr("add", index=index, address=SERVER, prefixlen=16)
            routes.link("set", index=index, state="up")
        # Every board has its own address: all of FIRST_BOARD's network are the far side's.
        for command in ("link set lo up", "link set bh-boards up", f"addr add {FAR}/16 dev bh-boards",
                        f"route add local {FIRST_BOARD}/24 dev lo"):  # fmt: skip
            subprocess.run([*self.inside(), "ip", *command.split()], check=True, timeout=10)
        cores = sorted(os.sched_getaffinity(0))
        self.cores = (cores[0], cores[1]) if len(cores) > 1 else (None, None)

    def inside(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.far}"]

    def file(self, kib: int) -> Path:
        path = self.files / f"f{kib}"
        if not path.exists():
            path.write_bytes(os.urandom(kib * KIB))
            path.chmod(0o644)
            os.utime(path, (1_000_000_000, 1_000_000_000))  # an image of long ago, as most are
        return path

    def run(self, case: Case, server: str, *, share: int, seed: int) -> Run:
        path = self.file(max(64, case.kib // share // (SLOW_SHARE if server in SLOW else 1)))
        with running(server, self.files, self.cores[0]) as (pid, meter):
            before = meter.read()
            pin = ["taskset", "-c", str(self.cores[1])] if self.cores[1] is not None else []
            numbers = (
                case.boards,
                case.block,
                case.window,
                case.drop,
                case.delay_us,
                case.timer_ms,
                case.limit_s,
                seed,
            )
            client = subprocess.Popen(
                [*pin, *self.inside(), str(self.load), SERVER, "69", path.name, str(path), *map(str, numbers),
                 FIRST_BOARD],
                stdout=subprocess.PIPE,
            )  # fmt: skip
            time.sleep(0.1)
            memory = memory_mib(pid)
            output, _ = client.communicate(timeout=case.limit_s + 30)
            used = meter.read() - before
        if client.returncode:
            return Run(0, 0, 0, 0, 0, memory, 0)
        found = json.loads(output)
        needed = found["finished"] * (path.stat().st_size // case.block + 1)
        return Run(
            mb_per_s=found["bytes"] / found["seconds"] / 1e6,
            cpu_s_per_gb=used / found["bytes"] * 1e9 if found["bytes"] else 0,
            p50_s=found["p50_s"],
            p99_s=found["p99_s"],
            finished=found["finished"],
            memory_mib=memory,
            again=found["repeated"] / needed if needed else 0,
        )


def measure(cases: Sequence[Case], servers: Sequence[str], *, quick: bool, rounds: int) -> Results:
    results = Results()
    with tempfile.TemporaryDirectory(prefix="bh-bench-") as name:
        Path(name).chmod(0o755)
        lab = Lab(Path(name))
        for number in range(rounds):
            for case in cases:
                if number >= (case.rounds or rounds):
                    continue
                taking_part = [server for server in servers if server in (case.servers or servers)]
                first = number % len(taking_part)
                for server in taking_part[first:] + taking_part[:first]:
                    run = lab.run(case, server, share=SMALL_SHARE if quick else 1, seed=number)
                    results.add(case, server, run)
                    note = f"{case.name}, {server}: {run.mb_per_s:.0f} MB/s, {run.cpu_s_per_gb:.2f} s/GB"
                    print(f"{note}, {run.finished} of {case.boards} done", file=sys.stderr, flush=True)
        os.close(lab.far)
    return results


# --- report ----------------------------------------------------------------------------------------------------------


def table(results: Results, servers: Sequence[str], title: str, form: str, keys: Sequence[str]) -> None:
    print(f"\n| {title} | " + " | ".join(servers) + " |\n|---|" + "---|" * len(servers))
    for case, by_server in results.runs.items():
        cells = []
        for server in servers:
            if server not in by_server:
                cells.append("")
            elif not any(run.finished for run in by_server[server]):
                cells.append("fails")
            else:
                cells.append(form.format(*(results.median(case, server, key) for key in keys)))
        print(f"| {case} | " + " | ".join(cells) + " |")


def aims(results: Results) -> list[tuple[str, bool]]:
    """What issue 4 asks for, at 64 boards: ratios to the best C server of this run, and to others."""
    found = []

    def ratio(case: str, other: str, key: str) -> float:
        theirs = results.median(case, other, key)
        return results.median(case, OURS, key) / theirs if theirs else float("inf")

    def aim(case: str, key: str, others: Sequence[str], least: float | None, most: float | None = None) -> None:
        others = [other for other in others if other in results.runs.get(case, {})]
        if not others or OURS not in results.runs[case]:
            return
        best = (max if least else min)(others, key=lambda other: results.median(case, other, key))
        value = ratio(case, best, key)
        good = value >= least if least else most is not None and value <= most
        words = f"aim: at least {least:g}" if least else f"aim: at most {most:g}"
        found.append((f"{case}: {value:.2f} times the {key} of {best} ({words})", good))

    aim("lockstep 1468, 64 boards", "mb_per_s", BEST_OF, 1.0)
    aim("lockstep 1468, 64 boards", "cpu_s_per_gb", BEST_OF, None, 1.0)
    aim("lockstep 1468, 64 boards", "mb_per_s", ["atftpd", "tftpd-hpa"], 2.0)
    for window in (16, 64):
        aim(f"window {window}, 64 boards", "mb_per_s", BEST_OF, 2.0)
        aim(f"window {window}, 64 boards", "cpu_s_per_gb", BEST_OF, None, 0.5)
    aim("lockstep, 1 % lost, 64 boards", "mb_per_s", BEST_OF, 10.0)
    aim("window 16, 1 % lost, 64 boards", "mb_per_s", BEST_OF, 10.0)
    wire = "lockstep, 0.2 ms, 32 boards"
    if OURS in results.runs.get(wire, {}):
        speed = results.median(wire, OURS, "mb_per_s")
        found.append((f"{wire}: {speed:.0f} MB/s (aim: 118, a 1 Gbit/s wire)", speed >= 118))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small files and one round, for trying it out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--servers", help="these, with commas between")
    parser.add_argument("--rounds", type=int, help="instead of 5, or 1 with --quick")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve_ours(args.serve))
        return 0
    servers = args.servers.split(",") if args.servers else list(commands(ROOT))
    cases = [case for case in CASES if not args.only or args.only in case.name]
    for server in servers:
        program = commands(ROOT)[server][0]
        if "/" in program and not Path(program).is_file():
            raise SystemExit(f"{program} is not there; `make bench` makes it")
    try:
        results = measure(cases, servers, quick=args.quick, rounds=args.rounds or (1 if args.quick else 5))
    except NamespaceError as error:
        raise SystemExit(str(error)) from None
    if args.json:
        print(json.dumps({c: {s: [vars(r) for r in rs] for s, rs in by.items()} for c, by in results.runs.items()}))
        return 0
    table(results, servers, "MB/s · CPU s/GB", "{:.0f} · {:.2f}", ("mb_per_s", "cpu_s_per_gb"))
    table(results, servers, "per board, s: median · 99 %", "{:.2f} · {:.2f}", ("p50_s", "p99_s"))
    table(results, servers, "memory, MiB · packets twice", "{:.1f} · {:.2f}", ("memory_mib", "again"))
    print()
    checks = aims(results)
    for text, good in checks:
        print(f"{'meets ' if good else 'MISSES'} {text}")
    return 0 if all(good for _, good in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
