"""Our TFTP worker against tftpd-hpa, atftpd, dnsmasq and the TFTP servers of PyPI: one run, in turns, medians.

    python bench/tftp.py [--quick] [--json] [--only CASE] [--servers "NAME;NAME"] [--strict]

Root is not needed. Servers and clients are in two network namespaces that a veth pair joins; a server runs on one core
and the clients (bench/tftp_load.c, compiled here) on another. The load client compares every octet. Each run has a
fresh server. Ours is the worker as the agent starts it, with a small parent, and the CPU time of both counts; it runs
twice, with the compiled pump and in pure Python. Losses and the round trip time are made in the client. Slow servers
get smaller files and fewer rounds. Servers that know no windows (Debian 12's tftpd-hpa and dnsmasq) fall back to
lockstep there.

What it does not tell: there is no network card and no switch, so a window costs no queue; boards are sockets of one
process, start at once and fetch one file, which every server has in memory; a client is never slower than its server
except in windows, where it reaches its own end first, so that the ratios of the fastest servers are the least there.
"""

import argparse
import asyncio
import json
import os
import platform
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
from pathlib import Path

from pyroute2 import IPRoute

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.support.process_meter import Meter, memory_mib  # noqa: E402 -- found through the line above
from bench.support.tftp_idle import idle_octets  # noqa: E402
from bench.support.tftp_report import BEST_OF, OURS, PURE, Case, Results, Run, aims, readme, table  # noqa: E402
from netboot.tftp_process import Answer, Question, SendError, SendFile, TftpProcess, WorkerConfig  # noqa: E402
from virtual_lab.namespace import NamespaceError, enter_private_network, new_network  # noqa: E402

PEERS = ROOT / ".cache/peers"
SERVER, FAR, FIRST_BOARD = "10.78.0.1", "10.78.0.2", "10.78.1.0"
SLOW = frozenset({"py3tftp", "tftpy", "partftpy"})
SLOW_SHARE = 8  # their files are smaller by this factor
SLOW_ROUNDS = 1  # of ratios over 3, one run tells enough
QUICK_LIMIT_S = 10.0
START_DEADLINE_S = 15.0
IDLE_ROUNDS = 3  # what comes and goes meanwhile leaves now and then some pages more
KIB = 1024


WINDOWED = (OURS, PURE, "dnsmasq", "atftpd", "tftpd-hpa", "py3tftp")
CASES = (
    Case("lockstep 1468, 1 board", 1, 1468, 1, 8192),
    Case("lockstep 1468, 16 boards", 16, 1468, 1, 8192),
    Case("lockstep 1468, 64 boards", 64, 1468, 1, 4096, rounds=5),
    Case("lockstep 1468, 256 boards", 256, 1468, 1, 1024),
    Case("lockstep 512, 64 boards", 64, 512, 1, 1024),
    Case("window 4, 64 boards", 64, 1468, 4, 4096, servers=WINDOWED),
    Case("window 16, 64 boards", 64, 1468, 16, 4096, rounds=5, servers=WINDOWED),
    Case("window 64, 64 boards", 64, 1468, 64, 4096, rounds=5, servers=WINDOWED),
    Case("lockstep, 0.2 ms, 32 boards", 32, 1468, 1, 2048, delay_us=200, servers=(OURS, PURE, *BEST_OF)),
    Case(
        "lockstep, 1 % lost, 64 boards",
        64,
        1468,
        1,
        256,
        drop=100,
        limit_s=45,
        rounds=2,
        servers=(OURS, PURE, *BEST_OF),
    ),
    Case(
        "window 16, 1 % lost, 64 boards",
        64,
        1468,
        16,
        512,
        drop=100,
        limit_s=45,
        rounds=2,
        servers=(OURS, PURE, *BEST_OF),
    ),
)
SMALL_SHARE = 4  # of --quick


# --- servers ---------------------------------------------------------------------------------------------------------


async def serve_ours(folder: Path, pump: str) -> None:
    """Be our server until told to end."""

    async def answer(question: Question) -> Answer:
        name = question.path.lstrip("/")
        return SendFile(folder / name) if (folder / name).is_file() else SendError(1, "no such file")

    process = TftpProcess(
        # Windows beyond 16 are off by default; the rest is as the agent has it.
        WorkerConfig(address=SERVER, port=69, interface="bh-server", max_window=64, pump=pump),
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
        OURS: [sys.executable, str(ROOT / "bench/tftp.py"), "--serve", str(folder), "--pump", "native"],
        PURE: [sys.executable, str(ROOT / "bench/tftp.py"), "--serve", str(folder), "--pump", "python"],
        # -d and not -k: that cannot be had without the right to change groups; it logs a line per file all the same.
        "dnsmasq": ["dnsmasq", "-d", "-C", "/dev/null", "-p", "0", "-u", "root", "--enable-tftp",
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
def running(name: str, folder: Path, core: int | None, preload: str) -> Iterator[tuple[int, Meter]]:
    pin = ["taskset", "-c", str(core)] if core is not None else []
    with (folder.parent / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*pin, *commands(folder)[name]], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
            env={**os.environ, "LD_PRELOAD": preload} if name == "tftpd-hpa" and preload else None,
        )  # fmt: skip
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
        self.preload = ""
        if Path("/proc/self/setgroups").read_text(encoding="ascii").strip() == "deny":
            # As an ordinary user we are root in a user namespace, and in.tftpd insists on giving up groups it has not.
            self.preload = str(folder / "groups.so")
            nothing = b"int initgroups(const char *name, unsigned group) { (void)name; (void)group; return 0; }"
            subprocess.run(["cc", "-shared", "-fPIC", "-xc", "-", "-o", self.preload], input=nothing, check=True,
                           timeout=60)  # fmt: skip
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
        limit_s = case.limit_s if share == 1 else min(case.limit_s, QUICK_LIMIT_S)
        with running(server, self.files, self.cores[0], self.preload) as (pid, meter):
            before = meter.read()
            pin = ["taskset", "-c", str(self.cores[1])] if self.cores[1] is not None else []
            numbers = (
                case.boards,
                case.block,
                case.window,
                case.drop,
                case.delay_us,
                case.timer_ms,
                limit_s,
                seed,
            )
            client = subprocess.Popen(
                [*pin, *self.inside(), str(self.load), SERVER, "69", path.name, str(path), *map(str, numbers),
                 FIRST_BOARD],
                stdout=subprocess.PIPE,
            )  # fmt: skip
            time.sleep(0.1)
            memory = memory_mib(pid)
            output, _ = client.communicate(timeout=limit_s + 30)
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


def measure(cases: Sequence[Case], servers: Sequence[str], *, quick: bool, rounds: int | None) -> Results:
    results = Results()
    with tempfile.TemporaryDirectory(prefix="bh-bench-") as name:
        Path(name).chmod(0o755)
        lab = Lab(Path(name))
        for number in range(rounds or max(case.rounds for case in cases)):
            for case in cases:
                if number >= (rounds or (1 if quick else case.rounds)):
                    continue
                taking_part = [server for server in servers if server in (case.servers or servers)]
                if number >= SLOW_ROUNDS:
                    taking_part = [server for server in taking_part if server not in SLOW]
                if not taking_part:
                    continue
                first = number % len(taking_part)
                for server in taking_part[first:] + taking_part[:first]:
                    run = lab.run(case, server, share=SMALL_SHARE if quick else 1, seed=number)
                    results.add(case, server, run)
                    note = f"{case.name}, {server}: {run.mb_per_s:.0f} MB/s, {run.cpu_s_per_gb:.2f} s/GB"
                    print(f"{note}, {run.finished} of {case.boards} done", file=sys.stderr, flush=True)
        os.close(lab.far)
        if OURS in servers:
            results.idle_octets = {
                pump: statistics.median(asyncio.run(idle_octets(lab.file(1024), pump)) for _ in range(IDLE_ROUNDS))
                for pump in ("native", "python")
            }
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small files and one round, for trying it out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--servers", help="these, with semicolons between")
    parser.add_argument("--strict", action="store_true", help="exit 1 when an aim is missed; else that is a result")
    parser.add_argument("--rounds", type=int, help="instead of 3 to 5, or 1 with --quick")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pump", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve_ours(args.serve, args.pump))
        return 0
    servers = args.servers.split(";") if args.servers else list(commands(ROOT))
    cases = [case for case in CASES if not args.only or args.only in case.name]
    for server in servers:
        program = commands(ROOT)[server][0]
        if "/" in program and not Path(program).is_file():
            raise SystemExit(f"{program} is not there; `make bench` makes it")
    begun = time.monotonic()
    try:
        results = measure(cases, servers, quick=args.quick, rounds=args.rounds)
    except NamespaceError as error:
        raise SystemExit(str(error)) from None
    if args.json:
        print(json.dumps({c: {s: [vars(r) for r in rs] for s, rs in by.items()} for c, by in results.runs.items()}))
        return 0
    table(results, servers, "MB/s · CPU s/GB", "{:.0f} · {:.2f}", ("mb_per_s", "cpu_s_per_gb"))
    table(results, servers, "per board, s: median · 99 %", "{:.2f} · {:.2f}", ("p50_s", "p99_s"))
    table(results, servers, "memory, MiB · packets twice", "{:.1f} · {:.2f}", ("memory_mib", "again"))
    readme(results)
    print(f"\n{platform.machine()}, Linux {platform.release()}, {len(os.sched_getaffinity(0))} cores, "
          f"Python {platform.python_version()}; {(time.monotonic() - begun) / 60:.1f} minutes\n")  # fmt: skip
    checks = aims(results)
    for text, good in checks:
        print(f"{'meets ' if good else 'MISSES'} {text}")
    return 1 if args.strict and not all(good for _, good in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
