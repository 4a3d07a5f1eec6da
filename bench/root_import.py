"""Import of a root next to plain `tar -x` of the same archive: what judging, hashing and keeping it whole costs.

The archive is made up: 1 GB in 32,000 files whose sizes are spread as in a Debian root (half below 3 kB, a few of tens
of megabytes), with folders, symbolic and hard links. Both write to the same file system, in turns. An import ends when
everything is on the disk, which `tar -x` does not care about: so `tar -x && sync -f` stands beside it. The goal of 1.2
is against plain `tar -x`. Run it with `make bench`, or alone; `--quick` takes 100 MB.
"""

import argparse
import io
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from netboot.roots.importing import RootImport
from netboot.roots.store import RootStore

GOAL = 1.2
SEED = 4
BIG_BYTES = (48_000_000, 31_000_000, 22_000_000, 17_000_000, 9_000_000, 9_000_000, 5_000_000, 5_000_000)
MEDIAN_BYTES, SPREAD = 3_000, 2.1
"""Of the many: log-normal, as `find /usr -type f -size` of a Debian bookworm shows it."""
FOLDER_FILES = 12


def make_archive(path: Path, total: int) -> tuple[int, int]:
    """An archive of about `total` octets. Returns files and octets of content."""
    chance = random.Random(SEED)
    noise = chance.randbytes(50_000_000)
    files = size = 0
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, *, octets: int = 0, target: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, octets, target
            member.mode = 0o755 if kind == tarfile.DIRTYPE or chance.random() < 0.1 else 0o644
            member.mtime = 1_700_000_000 + chance.randrange(10_000_000)
            at = chance.randrange(len(noise) - octets) if octets else 0
            tar.addfile(member, io.BytesIO(noise[at : at + octets]) if octets else None)

        big = list(BIG_BYTES)
        folder = ""
        while size < total:
            if files % FOLDER_FILES == 0:
                folder = f"./usr/lib/part-{files // 1200}/package-{files // FOLDER_FILES}"
                add(folder, tarfile.DIRTYPE)
            octets = min(20_000_000, int(chance.lognormvariate(0, SPREAD) * MEDIAN_BYTES))
            if big and files % 200 == 25:
                octets = big.pop() * total // 1_000_000_000
            name = f"{folder}/file-{files}"
            add(name, octets=octets)
            if files % 10 == 0:
                add(f"{name}.link", tarfile.SYMTYPE, target=f"file-{files}")
            if files % 200 == 0:
                add(f"{name}.same", tarfile.LNKTYPE, target=name)
            files, size = files + 1, size + octets
    return files, size


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds of us and of our children."""
    before = os.times()
    began = time.perf_counter()
    work()
    spent = time.perf_counter() - began
    after = os.times()
    return spent, sum(after[:4]) - sum(before[:4])


def extract(archive: Path, folder: Path, *, sync: bool) -> None:
    folder.mkdir()
    subprocess.run(
        ["tar", "-xpf", archive, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", folder], check=True
    )
    if sync:
        subprocess.run(["sync", "-f", folder], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="100 MB and three rounds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the file system to measure (the system's temporary folder)")
    options = parser.parse_args()
    total, rounds = (100_000_000, 3) if options.quick else (1_000_000_000, options.rounds)
    with tempfile.TemporaryDirectory(prefix="boardhand-bench-", dir=options.folder) as name:
        folder = Path(name)
        archive = folder / "root.tar"
        files, size = make_archive(archive, total)
        print(f"{files} files, {size / 1e6:.0f} MB; {rounds} rounds, in turns; {os.cpu_count()} cores")
        store = RootStore(folder / "store")
        ways: dict[str, Callable[[], object]] = {
            "tar -x": lambda: extract(archive, folder / "out", sync=False),
            "tar -x, sync -f": lambda: extract(archive, folder / "out", sync=True),
            "root import": lambda: RootImport(store).run("bench", archive),
        }
        runs: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for number in range(rounds + 1):
            for way, work in ways.items():
                subprocess.run(["sync", "-f", folder], check=True)
                archive.read_bytes()  # into the page cache, for each way alike
                run = timed(work)
                if number:  # the first warms up
                    runs[way].append(run)
                subprocess.run(["rm", "-rf", folder / "out"], check=True)
                if "bench" in store.names():
                    store.remove("bench")
                    store.empty_trash()
        report(runs, size)


def report(runs: dict[str, list[tuple[float, float]]], size: int) -> None:
    plain = statistics.median(spent for spent, _ in runs["tar -x"])
    synced = statistics.median(spent for spent, _ in runs["tar -x, sync -f"])
    print("| way | seconds, median (spread) | MB/s | CPU s | against tar -x | against tar -x, sync -f |")
    print("|---|---|---|---|---|---|")
    for way, results in runs.items():
        spent = sorted(seconds for seconds, _ in results)
        median, cpu = statistics.median(spent), statistics.median(cpu for _, cpu in results)
        print(
            f"| {way} | {median:.2f} ({spent[0]:.2f}-{spent[-1]:.2f}) | {size / median / 1e6:.0f} | {cpu:.2f} "
            f"| {median / plain:.2f} | {median / synced:.2f} |"
        )
    ratio = statistics.median(spent for spent, _ in runs["root import"]) / plain
    print(f"import against tar -x: {ratio:.2f}; the goal is at most {GOAL}: {'met' if ratio <= GOAL else 'missed'}")


if __name__ == "__main__":
    main()
