"""What the TFTP bench measures, and how it is told: tables, ratios, and the aims of issue 4."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

OURS, PURE, BEST_OF = "boardhand", "boardhand, pure Python", ("dnsmasq", "atftpd", "tftpd-hpa")


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
    rounds: int = 3
    servers: tuple[str, ...] = ()  # () means all


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
    idle_octets: dict[str, float] = field(default_factory=dict)  # of our worker for each transfer that waits, by pump

    def add(self, case: Case, server: str, run: Run) -> None:
        self.runs.setdefault(case.name, {}).setdefault(server, []).append(run)

    def median(self, case: str, server: str, key: str) -> float:
        return statistics.median(getattr(run, key) for run in self.runs[case][server])


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


KEYS = ("mb_per_s", "cpu_s_per_gb", "p99_s")
KEYS_FORM = "{:.0f} · {:.2f} · {:.2f}"


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
    for pump, octets in results.idle_octets.items():
        found.append((f"memory of an idle transfer ({pump}): {octets:.0f} octets (aim: under 200)", octets < 200))
    wire = "lockstep, 0.2 ms, 32 boards"
    if OURS in results.runs.get(wire, {}):
        speed = results.median(wire, OURS, "mb_per_s")
        found.append((f"{wire}: {speed:.0f} MB/s (aim: 118, a 1 Gbit/s wire)", speed >= 118))
    return found


def readme(results: Results) -> None:
    """The table for the README: ours, pure and compiled, next to the best C server of each case."""
    print("\n| MB/s · CPU s/GB · s per board (99 %) | boardhand | in pure Python | best C server | MB/s · CPU, times |")
    print("|---|---|---|---|---|")
    for case, by_server in results.runs.items():
        rivals = [server for server in BEST_OF if any(run.finished for run in by_server.get(server, []))]
        if OURS not in by_server or not rivals:
            continue
        best = max(rivals, key=lambda server: results.median(case, server, "mb_per_s"))
        cells = []
        for server in (OURS, PURE, best):
            numbers = [results.median(case, server, key) for key in KEYS] if server in by_server else []
            cells.append(KEYS_FORM.format(*numbers) + (f" ({best})" if server == best else "") if numbers else "")
        speed, cpu = (results.median(case, OURS, key) / results.median(case, best, key) for key in KEYS[:2])
        print(f"| {case} | {' | '.join(cells)} | {speed:.2g} · {cpu:.2g} |")
    print("\nOver 1 is better in the first ratio, under 1 in the second.")
