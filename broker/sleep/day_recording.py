"""A day of a farm as a file: its boards, and the jobs that came. Recorded from a broker's store, or generated.

A day knows nothing of policies: what was ready, waiting or asleep is what the simulator finds out.
"""

import random
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from broker.jobs.spec import JobSpec
from broker.sleep.boot_store import stored_boots
from wire.names import Id
from wire.payloads import Label, ShortText

DAY_S = 86400.0
MAX_DAY_BYTES = 256 * 1024 * 1024
# What a small board draws, for boards of which nothing is known; any day that matters gives its own.
IDLE_W, BUSY_W, BOOT_W, OFF_W = 3.0, 5.0, 4.0, 0.3
BOOT_S = 60.0


class DayError(Exception):
    """A day that cannot be read or recorded; the message names the file and says what to do."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Watts(_Model):
    """What a board draws."""

    idle: float = Field(default=IDLE_W, ge=0, le=25_000)
    busy: float = Field(default=BUSY_W, ge=0, le=25_000)
    boot: float = Field(default=BOOT_W, ge=0, le=25_000)
    off: float = Field(default=OFF_W, ge=0, le=25_000)
    """Asleep: its power supply, and whatever stays on."""


class DayBoard(_Model):
    """A board of the day. `boot_s` are measured boots, used in turn."""

    name: Id
    labels: dict[ShortText, Label | list[str]] = {}
    boot_s: Annotated[list[Annotated[float, Field(gt=0, le=7200)]], Field(min_length=1)] = [BOOT_S]
    watts: Watts = Watts()


class DayJob(_Model):
    """A job that came `at_s` after the day began and takes a board for `took_s`."""

    at_s: float = Field(ge=0)
    took_s: float = Field(ge=0, le=7 * DAY_S)
    name: Annotated[str, Field(min_length=1, max_length=256)] = "job"
    labels: dict[ShortText, Any] = {}
    board: Id | None = None
    priority: int = Field(default=0, ge=-1000, le=1000)
    submitter: ShortText = ""
    failed: bool = False

    def spec(self) -> JobSpec:
        """The job as it would be submitted.

        Raises:
            ValidationError: its labels cannot be asked for.
        """
        return JobSpec.model_validate(
            {
                "name": self.name,
                "labels": self.labels,
                "board": self.board,
                "priority": self.priority,
                "timeout_s": min(7 * DAY_S, 2 * self.took_s + 60),
                "steps": [{"run": "true"}],
            }
        )


class Day(_Model):
    """One day, or any other stretch of time."""

    format: Literal[1] = 1
    begin: AwareDatetime
    length_s: float = Field(default=DAY_S, gt=0, le=400 * DAY_S)
    boards: Annotated[list[DayBoard], Field(min_length=1)]
    jobs: list[DayJob] = []


def read_day(path: Path) -> Day:
    """The day in `path`.

    Raises:
        DayError: it cannot be read, or is no day.
    """
    try:
        if path.stat().st_size > MAX_DAY_BYTES:
            raise DayError(f"{path}: is larger than {MAX_DAY_BYTES} bytes, which no day is")
        day = Day.model_validate_json(path.read_bytes())
        for job in day.jobs:
            job.spec()
    except OSError as error:
        raise DayError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise DayError(f"{path}: {key or 'the file'}: {first['msg']}") from error
    return day


def record(state_dir: Path, boards: dict[str, DayBoard], since: datetime, until: datetime) -> Day:
    """The jobs of a broker's store that came between two times and ended on a board. The broker may be running.

    Args:
        state_dir: the broker's `state_dir`.
        boards: what is known of boards; others that ran a job are taken without labels.
        since: where the stretch of time begins.
        until: where it ends.

    Raises:
        DayError: there is no store, or nothing in it to replay.
    """
    path = state_dir / "broker.sqlite3"
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    except sqlite3.Error as error:
        raise DayError(f"{path}: cannot be opened: {error}; give the broker's state_dir") from error
    try:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(
            "SELECT spec, board, state, submitted, started, ended, submitter FROM jobs"
            " WHERE submitted >= ? AND submitted < ? AND state IN ('passed', 'failed') ORDER BY number",
            (since.astimezone(UTC).isoformat(), until.astimezone(UTC).isoformat()),
        ).fetchall()
        boots = stored_boots(connection)
    except sqlite3.Error as error:
        raise DayError(f"{path}: cannot be read: {error}; is it of a broker of this version?") from error
    finally:
        connection.close()
    names = sorted({*boards, *boots, *(row["board"] for row in rows if row["board"])})
    if not names:
        raise DayError(f"{path}: knows neither boards nor jobs of that time")
    made = [_with_boots(boards.get(name, DayBoard(name=name)), boots.get(name)) for name in names]
    jobs = [_recorded(row, since) for row in rows]
    return Day(begin=since, length_s=(until - since).total_seconds(), boards=made, jobs=jobs)


def _with_boots(board: DayBoard, boots: list[float] | None) -> DayBoard:
    measured = [min(max(took_s, 0.1), 7200.0) for took_s in boots or []]
    return board.model_copy(update={"boot_s": measured}) if measured else board


def _recorded(row: sqlite3.Row, since: datetime) -> DayJob:
    spec = JobSpec.model_validate_json(row["spec"])
    submitted, ended = datetime.fromisoformat(row["submitted"]), datetime.fromisoformat(row["ended"])
    started = datetime.fromisoformat(row["started"]) if row["started"] else ended
    return DayJob(
        at_s=max(0.0, (submitted - since).total_seconds()),
        took_s=max(0.0, (ended - started).total_seconds()),
        name=spec.name,
        labels=spec.labels,
        board=spec.board,
        priority=spec.priority,
        submitter=row["submitter"],
        failed=row["state"] == "failed",
    )


def generate(seed: int, boards: int = 20, jobs: int = 200, begin: datetime | None = None) -> Day:
    """A made-up day: most jobs come in working hours and last minutes, a nightly CI run at 02:00 comes in one lump, a
    few last an hour. The same seed makes the same day.

    Args:
        seed: which day.
        boards: how many; most are alike, every tenth has a label that few jobs need and only it can serve.
        jobs: how many.
        begin: midnight of the day.
    """
    chance = random.Random(seed)
    made = [_made_board(chance, n) for n in range(1, boards + 1)]
    arrivals = sorted(_arrival_s(chance) for _ in range(jobs))
    return Day(
        begin=begin or datetime(2026, 1, 5, tzinfo=UTC),
        boards=made,
        jobs=[_made_job(chance, at_s, special=boards >= SPECIAL_EVERY) for at_s in arrivals],
    )


SPECIAL_EVERY = 10


def _made_board(chance: random.Random, n: int) -> DayBoard:
    labels: dict[str, Label | list[str]] = {
        "arch": chance.choice(["arm64", "arm64", "armhf"]) if n > 2 else ("arm64", "armhf")[n - 1],
        "shelf": f"s{(n - 1) // 8 + 1}",
    }
    if n % SPECIAL_EVERY == 0:
        labels |= {"gpu": True, "arch": "arm64"}
    typical_s = chance.uniform(25, 90)
    idle_w = chance.uniform(2, 6)
    return DayBoard(
        name=f"b{n:02}",
        labels=labels,
        boot_s=[round(typical_s * chance.uniform(0.9, 1.25), 1) for _ in range(5)],
        watts=Watts(idle=round(idle_w, 2), busy=round(idle_w * 1.7, 2), boot=round(idle_w * 1.4, 2), off=0.3),
    )


def _arrival_s(chance: random.Random) -> float:
    if chance.random() < 0.2:
        return 2 * 3600 + chance.uniform(0, 60)
    return min(max(chance.gauss(13.5, 3.0), 0.0), 23.9) * 3600


def _made_job(chance: random.Random, at_s: float, *, special: bool) -> DayJob:
    labels: dict[str, Any] = chance.choice([{}, {"arch": "arm64"}, {"arch": "arm64"}, {"arch": "armhf"}])
    if special and chance.random() < 0.05:
        labels = {"gpu": True}
    long = chance.random() < 0.05
    return DayJob(
        at_s=round(at_s, 1),
        took_s=round(chance.uniform(1800, 5400) if long else chance.lognormvariate(5.0, 0.8), 1),
        labels=labels,
        priority=5 if chance.random() < 0.1 else 0,
        submitter=chance.choice(["ci", "ci", "ci", "ada", "grace", "linus"]),
        failed=chance.random() < 0.08,
    )
