"""An hour of a farm's day, compressed: its boards, its jobs and its policy, as they are run and as they are predicted.

The jobs are cut out of a generated day (`boardhand simulate --generate`): an hour of the afternoon and, in the middle
of it, part of the nightly run that comes in one lump. All times but boots are divided by the compression.
"""

from dataclasses import dataclass
from typing import Any

from broker.sleep.day_recording import DayBoard, DayJob, Watts, generate
from virtual_lab import farm_plan

HOUR_S = 3600.0
AFTERNOON_S, NIGHT_S, LUMP_S = 13 * HOUR_S, 2 * HOUR_S, 120.0
LUMP_AT_S = 0.55 * HOUR_S
"""The lump comes when boards that the hour's beginning woke sleep again."""
LUMP_SHARE = 0.2
AFTERNOON_SHARE = 0.1
"""About so much of a generated day falls into that hour."""
LONGEST_JOB_S = 900.0
QEMU_EVERY = 6
"""Of so many jobs one may want an emulated machine, which boots slowest and would otherwise be taken last."""
QEMU_WATTS = Watts(idle=3, busy=5, boot=5, off=0.3)
"""In the agent's settings: what QEMU boards draw is estimated. Coming up counts as work there."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large and how long."""

    qemu: int
    light: int
    jobs: int
    wall_s: float
    """The hour's length on the clock on the wall."""
    seed: int = 7
    light_boot_s: float = 4.0
    booting_cap: int = 4

    @property
    def compression(self) -> float:
        return HOUR_S / self.wall_s


@dataclass(frozen=True, slots=True)
class Hour:
    """The hour to run; times are those of the wall."""

    size: Size
    boards: tuple[DayBoard, ...]
    jobs: tuple[DayJob, ...]

    def policy(self) -> dict[str, Any]:
        """`[broker]`: the defaults of docs/sleep.md with a rest after each sleep, compressed; and one warm board."""
        by = self.size.compression
        table: dict[str, Any] = {
            "idle_s": round(300 / by, 2),
            "min_on_s": round(120 / by, 2),
            "min_off_s": round(60 / by, 2),
            "booting_cap": self.size.booting_cap,
            "tick_s": 0.2,
        }
        table["sleep"] = [{"labels": {"arch": "armhf"}, "warm": 1}]
        table["shelves"] = [{"label": "shelf", "booting_cap": 2, "wake_spacing_s": 0.5}]
        return table

    def board_settings(self) -> dict[str, dict[str, Any]]:
        """Tables for the agent's boards, beside those of the farm."""
        tables: dict[str, dict[str, Any]] = {}
        for board in self.boards:
            tables[board.name] = {"labels": dict(board.labels)}
            if board.name.startswith("virt-"):
                watts = QEMU_WATTS
                tables[board.name] |= {"watts_idle": watts.idle, "watts_busy": watts.busy, "watts_off": watts.off}
        return tables


def make(size: Size) -> Hour:
    """The hour of that size; the same seed makes the same."""
    made = generate(size.seed, size.qemu + size.light, round(size.jobs * (1 - LUMP_SHARE) / AFTERNOON_SHARE))
    arm64 = [board for board in made.boards if board.labels["arch"] == "arm64" and "gpu" not in board.labels]
    machines = {board.name for board in arm64[: size.qemu]}
    boards = [
        DayBoard(name=f"virt-{n}", labels={**board.labels, "machine": "qemu"}, watts=QEMU_WATTS)
        for n, board in enumerate(arm64[: size.qemu], 1)
    ]
    lights = farm_plan.light_boards(size.light, on_pdus=True)
    others = [board for board in made.boards if board.name not in machines]
    for light, board in zip(lights, others, strict=True):
        watts = Watts(idle=light.idle_w, busy=light.busy_w, boot=light.boot_w, off=0)
        boards.append(DayBoard(name=light.board, labels=board.labels, watts=watts))
    lump = [job for job in made.jobs if NIGHT_S <= job.at_s < NIGHT_S + LUMP_S][: round(LUMP_SHARE * size.jobs)]
    jobs = [_moved(job, job.at_s - AFTERNOON_S, size) for job in made.jobs if 0 <= job.at_s - AFTERNOON_S < HOUR_S]
    jobs += [_moved(job, job.at_s - NIGHT_S + LUMP_AT_S, size) for job in lump]
    jobs.sort(key=lambda job: job.at_s)
    for n, job in enumerate(jobs):
        labels = job.labels
        if n % QEMU_EVERY == 0 and size.qemu and labels.get("arch") != "armhf":
            labels = {"machine": "qemu"}
        jobs[n] = job.model_copy(update={"name": f"hour-{n}", "labels": labels})
    return Hour(size, tuple(boards), tuple(jobs))


def _moved(job: DayJob, at_s: float, size: Size) -> DayJob:
    by = size.compression
    took_s = round(min(job.took_s, LONGEST_JOB_S) / by, 1)
    return job.model_copy(update={"at_s": round(at_s / by, 2), "took_s": took_s})


def job_yaml(job: DayJob) -> dict[str, Any]:
    """The job file: it leaves its mark in the log, works for its time, and ends as the day says."""
    steps: list[Any] = [{"name": "mark", "run": f"echo ran {job.name}"}, {"name": "work", "run": f"sleep {job.took_s}"}]
    if job.failed:
        steps.append({"name": "end", "run": "false"})
    return {"name": job.name, "labels": job.labels, "priority": job.priority, "steps": steps}
