"""What was heard of an hour over MQTT, and whether the policy's promises were kept in it. No I/O; times in s.

A wait is made of three parts. While a job has no board, none that fits may stand free, or sleep with room to be woken,
for longer than it takes to say so (`Findings.idle_beside_s`). Once it has a board, only that board's boot may come
between (`Findings.coming_s`); and then the board has to take it (`Findings.accept_s`).
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from bench.soak.hour_plan import Hour
from wire.phases import JobState, Phase, Power

COMING_UP = {phase.value for phase in Phase if phase.coming_up}
ASLEEP = {Phase.OFF.value, Phase.SLEEPING.value}
WAITING = {JobState.WAKING.value, JobState.OFFERED.value}


@dataclass(slots=True)
class BoardNow:
    """A board as its messages left it."""

    labels: dict[str, Any]
    phase: str = ""
    power: str = ""
    leased: bool = False
    changed: float = 0.0
    """When its power changed last."""
    switched_on: int = 0

    @property
    def coming(self) -> bool:
        """It comes up, or is about to: a job has it, and its power is still off."""
        return self.phase in COMING_UP or (self.leased and self.phase in ASLEEP)


@dataclass(slots=True)
class JobNow:
    """A job as its messages left it."""

    labels: dict[str, Any]
    failed: bool
    state: str = ""
    submitted: float = 0.0
    leased: float | None = None
    """When it got a board."""
    offered: float | None = None
    began: float | None = None
    board: str = ""
    runs: set[tuple[str, int]] = field(default_factory=set)
    """Board and token of each time that a board took it."""
    marks: set[tuple[int, int]] = field(default_factory=set)
    """Token and number of each piece of log with its mark."""
    ends: Counter[str] = field(default_factory=Counter)
    beside_since: float | None = None
    """Since when a board that it could have stands free beside it."""


@dataclass(slots=True)
class Findings:
    """What came of the hour."""

    wrong: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    coming_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By board: from the lease to the offer, where the board had to be woken."""
    accept_s: float = 0.0
    """The longest that a board took to accept: its own time, not the policy's."""
    idle_beside_s: float = 0.0
    idle_beside: str = ""
    cycles: int = 0
    fed_cycles: int = 0
    """Those of boards on a PDU."""
    most_booting: int = 0
    shortest_on_s: float = 1e9
    """Of what the policy ended."""
    shortest_off_s: float = 1e9


class Trace:
    """Takes every message of the farm with its time."""

    def __init__(self, hour: Hour) -> None:
        self.boards = {board.name: BoardNow(dict(board.labels)) for board in hour.boards}
        self.jobs = {job.name: JobNow(job.labels, job.failed) for job in hour.jobs}
        self.found = Findings()
        self._policy = hour.policy()
        self._ids: dict[str, str] = {}
        self.begun = False

    @property
    def all_ended(self) -> bool:
        return all(job.ends for job in self.jobs.values())

    def hear(self, topic: str, payload: bytes, now: float) -> None:
        """One message."""
        self._look_beside(now)
        parts = topic.split("/")
        said = json.loads(payload) if payload.startswith(b"{") else {}
        if parts[1] == "job":
            self._job(said, now)
        elif parts[1] == "board" and parts[2] in self.boards:
            if parts[3] == "state":
                self._board(parts[2], said, now)
            elif parts[3] == "lease":
                self.boards[parts[2]].leased = bool(payload)
            elif parts[3:] == ["work", "result"]:
                self._report(parts[2], said)

    def _board(self, name: str, said: dict[str, Any], now: float) -> None:
        board = self.boards[name]
        power, phase = said["power"], said["phase"]
        if power == Power.ON.value and board.power == Power.OFF.value:
            board.switched_on += 1
            self.found.cycles += 1
            self.found.fed_cycles += name.startswith("light-")
            if board.phase == Phase.SLEEPING.value:
                self.found.shortest_off_s = min(self.found.shortest_off_s, now - board.changed)
        if power == Power.OFF.value and board.power == Power.ON.value and phase == Phase.SLEEPING.value:
            self.found.shortest_on_s = min(self.found.shortest_on_s, now - board.changed)
        if power != board.power:
            board.changed = now
        if phase == Phase.FAULT.value and board.phase != phase:
            self.found.wrong.append(f"{name} is in fault: {said.get('reason')}")
        board.power, board.phase = power, phase
        booting = sum(one.phase in COMING_UP for one in self.boards.values())
        self.found.most_booting = max(self.found.most_booting, booting)

    def _job(self, said: dict[str, Any], now: float) -> None:
        job = self.jobs.get(said.get("name", ""))
        if job is None or (said["state"] == job.state and job.state != JobState.QUEUED.value):
            return
        self._ids[said["job"]] = said["name"]
        if said["state"] == JobState.QUEUED.value and not job.submitted:
            job.submitted = now
        if said["state"] in WAITING and job.leased is None:
            job.leased, job.board = now, said["board"]
        if said["state"] == JobState.WAKING.value:
            job.board = said["board"]
        if said["state"] == JobState.OFFERED.value and job.leased is not None:
            job.offered = now
            if job.state == JobState.WAKING.value:
                self.found.coming_s[said["board"]].append(now - job.leased)
        if said["state"] == JobState.RUNNING.value and job.began is None:
            job.began = now
            self.found.waits.append(now - job.submitted)
            self.found.accept_s = max(self.found.accept_s, now - job.offered if job.offered is not None else 0.0)
        if JobState(said["state"]).ended:
            job.ends[said["state"]] += 1
        if said["state"] == JobState.QUEUED.value:
            job.leased = job.offered = None
        job.state = said["state"]

    def _report(self, board: str, said: dict[str, Any]) -> None:
        name = self._ids.get(said.get("job", ""))
        if name is None:
            return
        if said["kind"] == "accept":
            self.jobs[name].runs.add((board, said["token"]))
        if said["kind"] == "log" and f"ran {name}" in said["text"].splitlines():
            self.jobs[name].marks.add((said["token"], said["seq"]))

    # --- whether a board stood free beside a job that waited -----------------------------------------------------

    def _look_beside(self, now: float) -> None:
        coming = [board for board in self.boards.values() if board.coming]
        room = len(coming) < self._policy["booting_cap"]
        shelves = Counter(board.labels["shelf"] for board in coming)
        cap = self._policy["shelves"][0]["booting_cap"]
        free = [
            (name, board.labels)
            for name, board in self.boards.items()
            if not board.leased
            and (
                board.phase == Phase.READY.value
                or (
                    board.phase in ASLEEP
                    and room
                    and shelves[board.labels["shelf"]] < cap
                    and now - board.changed > self._policy["min_off_s"]
                )
            )
        ]
        for name, job in self.jobs.items():
            waits = job.state == JobState.QUEUED.value
            beside = next((board for board, has in free if waits and job.labels.items() <= has.items()), None)
            if beside is None:
                job.beside_since = None
                continue
            if job.beside_since is None:
                job.beside_since = now
            elif now - job.beside_since > self.found.idle_beside_s:
                self.found.idle_beside_s = now - job.beside_since
                self.found.idle_beside = f"{name} waited beside {beside}"

    # --- the end -------------------------------------------------------------------------------------------------

    def judge(self) -> Findings:
        """Everything that can be said without the broker's store."""
        for name, job in self.jobs.items():
            wanted = JobState.FAILED if job.failed else JobState.PASSED
            if dict(job.ends) != {wanted.value: 1}:
                self.found.wrong.append(f"{name} ended {dict(job.ends)} instead of {wanted.value} once")
            if len(job.runs) != 1 or len(job.marks) != 1:
                self.found.wrong.append(f"{name} was taken {len(job.runs)} times and left {len(job.marks)} marks")
            fit = self.boards[job.board].labels if job.board in self.boards else {}
            if not job.labels.items() <= fit.items():
                self.found.wrong.append(f"{name} wants {job.labels} and ran on {job.board}")
        return self.found
