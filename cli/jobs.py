"""`submit`, `jobs`, `logs`, `cancel`, `sleep` and `wake`: what is asked of the work broker."""

import getpass
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from cli.boards import age, lines
from cli.exits import Exit, usage
from cli.plain_text import shown, shown_log
from cli.requests import ANSWER_TIMEOUT_S, SUBMIT_TIMEOUT_S, ask_broker, unreadable
from cli.target import Target, check_id
from wire.payloads import JobSummary
from wire.phases import JobState

LOOK_AGAIN_S = 2.0  # of the state of a job whose log is being followed
POLL_S = 0.5  # of a job that is being watched: a person does not see less, a broker does not feel it
MAX_JOB_BYTES = 128 * 1024  # the broker takes no longer ones: an offer carries the whole job in one payload
LOG_CHUNKS_PER_REQUEST = 20  # a piece has at most 64 KiB; the broker stops earlier when its answer is full
# A watched job outlives restarts of broker and MQTT server; longer than this they are not coming back by themselves.
WATCH_PATIENCE_S = 120.0


class LogPiece(NamedTuple):
    """A piece of a job's output."""

    seq: int
    text: str
    step: str | None
    attempt: int | None


def read_job(name: str) -> str:
    """The text of a job file; `-` is standard input.

    Raises:
        CliError: it cannot be read, is too long, empty, or no UTF-8.
    """
    try:
        raw = sys.stdin.buffer.read(MAX_JOB_BYTES + 1) if name == "-" else _head_of(Path(name))
    except OSError as error:
        raise usage(f"job file {name}: {error.strerror}", "name a YAML file, or '-' for standard input") from None
    if len(raw) > MAX_JOB_BYTES:
        raise usage(f"job file {name} is longer than {MAX_JOB_BYTES // 1024} KiB", "fetch large parts in a step")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise usage(f"job file {name} is not UTF-8 (byte {error.start})", "save it as UTF-8") from None
    if not text.strip():
        raise usage(f"job file {name} is empty", "see docs for the form of a job")
    return text


def _head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_JOB_BYTES + 1)


@dataclass(frozen=True, slots=True)
class Submitting:
    """How `submit` goes on after the job was accepted."""

    wait: bool = False
    follow: bool = False
    junit: Path | None = None
    timeout_s: float | None = None


def _submitter() -> str:
    try:
        return getpass.getuser()[:256]
    except (KeyError, OSError):  # a container's user without a name
        return ""


def submit(target: Target, name: str, how: Submitting, *, as_json: bool) -> int:
    """Submit a job; with `wait`, `follow` or `junit` until its end. Returns 0 for submitted or passed, else see
    `exit_of_job`."""
    text = read_job(name)
    asked: dict[str, object] = {"yaml": text, "submitter": _submitter()}
    data = ask_broker(target, "submit", asked, timeout_s=how.timeout_s or SUBMIT_TIMEOUT_S, patient=True)
    job = data.get("job")
    if not isinstance(job, str):
        raise unreadable("answer to 'submit'", data)
    if not (how.wait or how.follow or how.junit):
        print(json.dumps({"job": job}) if as_json else job)
        return Exit.OK
    if not as_json:
        print(f"job {shown(job)} submitted", file=sys.stderr, flush=True)
    code = follow_job(target, check_id("job", job), as_json=as_json, show_log=how.follow)
    if how.junit is not None:
        from cli.job_results import write_junit

        write_junit(target, job, how.junit)
    return code


def job_summary(target: Target, job: str, *, patience_s: float = ANSWER_TIMEOUT_S, patient: bool = False) -> JobSummary:
    """What the broker says of one job."""
    data = ask_broker(target, "job", {"job": job}, timeout_s=patience_s, patient=patient)
    found = data.get("job")
    try:
        return JobSummary.model_validate_json(json.dumps(found if isinstance(found, dict) else data))
    except ValidationError:
        raise unreadable(f"word on job {job}", data) from None


def log_pieces(target: Target, job: str, from_chunk: int, *, patient: bool) -> tuple[list[LogPiece], int, bool]:
    """The pieces from `from_chunk` on that one answer holds, the next number, and whether the job has ended."""
    asked = {"job": job, "from_chunk": from_chunk, "limit": LOG_CHUNKS_PER_REQUEST}
    timeout_s = WATCH_PATIENCE_S if patient else ANSWER_TIMEOUT_S
    data = ask_broker(target, "logs", asked, timeout_s=timeout_s, patient=patient)
    chunks, following, ended = data.get("chunks"), data.get("next"), data.get("ended")
    if not isinstance(chunks, list) or not isinstance(following, int) or following < from_chunk:
        raise unreadable(f"log of job {job}", data)
    return [_piece(chunk, job) for chunk in chunks], following, bool(ended)


def _piece(chunk: Any, job: str) -> LogPiece:
    if not isinstance(chunk, dict) or not isinstance(chunk.get("text"), str) or not isinstance(chunk.get("seq"), int):
        raise unreadable(f"log of job {job}", chunk)
    step, attempt = chunk.get("step"), chunk.get("attempt")
    return LogPiece(
        chunk["seq"],
        chunk["text"],
        step if isinstance(step, str) else None,
        attempt if isinstance(attempt, int) else None,
    )


def all_pieces(
    target: Target, job: str, *, follow: bool, quiet: Callable[[], None] = lambda: None
) -> Iterator[LogPiece]:
    """The log of a job; with `follow` until its end. `quiet` is called before each pause in which nothing came."""
    following = 0
    while True:
        pieces, next_chunk, ended = log_pieces(target, job, following, patient=follow)
        yield from pieces
        more = next_chunk > following
        following = next_chunk
        if not more and (ended or not follow):
            return
        if not more:
            quiet()
            time.sleep(POLL_S)


def show_logs(
    target: Target, job: str, *, follow: bool, as_json: bool, quiet: Callable[[], None] = lambda: None
) -> int:
    """Print the log of a job, and what comes until its end with `follow`. `quiet`: see `all_pieces`."""
    check_id("job", job)
    attempt: int | None = None
    for piece in all_pieces(target, job, follow=follow, quiet=quiet):
        if as_json:
            print(json.dumps(piece._asdict()), flush=True)
            continue
        if piece.attempt is not None and attempt is not None and piece.attempt != attempt:
            print(f"-- attempt {piece.attempt}", flush=True)
        attempt = piece.attempt
        print(shown_log(piece.text), end="", flush=True)
    return Exit.OK


def follow_job(target: Target, job: str, *, as_json: bool, show_log: bool) -> int:
    """Wait for the end of a job and print how it ended. Returns what `exit_of_job` says."""
    watch = _StateWatch(target, job, silent=as_json)
    if show_log:
        show_logs(target, job, follow=True, as_json=as_json, quiet=watch.look_again)
    while not (summary := watch.look()).state.ended:
        time.sleep(POLL_S)
    if as_json:
        print(summary.model_dump_json(exclude_none=True))
    else:
        print(f"job {job} {_where(summary)}")
    return exit_of_job(summary.state)


class _StateWatch:
    """Tells on standard error what a job waits for, each time that changes."""

    def __init__(self, target: Target, job: str, *, silent: bool) -> None:
        self._target, self._job, self._silent = target, job, silent
        self._told = ""
        self._again = time.monotonic() + LOOK_AGAIN_S

    def look(self) -> JobSummary:
        summary = job_summary(self._target, self._job, patience_s=WATCH_PATIENCE_S, patient=True)
        told = _where(summary)
        if not self._silent and not summary.state.ended and told != self._told:
            self._told = told
            print(f"job {self._job} {told}", file=sys.stderr, flush=True)
        return summary

    def look_again(self) -> None:
        """`look`, but not at each poll of the log."""
        if time.monotonic() >= self._again:
            self._again = time.monotonic() + LOOK_AGAIN_S
            self.look()


def exit_of_job(state: JobState) -> Exit:
    """What a CI is told: 0 passed, 1 failed, 6 the farm failed it, 7 cancelled."""
    ends = {JobState.PASSED: Exit.OK, JobState.ERROR: Exit.FARM_FAULT, JobState.CANCELLED: Exit.CANCELLED}
    return ends.get(state, Exit.FAILED)


def _where(summary: JobSummary) -> str:
    text: str = summary.state
    if summary.board:
        text += f" on {summary.board}"
    return text + (f": {shown(summary.reason)}" if summary.reason else "")


def show_jobs(target: Target, *, limit: int, state: str | None, as_json: bool) -> int:
    """Print the newest jobs as a table, or as `{"jobs": [JobSummary]}`."""
    asked: dict[str, object] = {"limit": limit}
    if state is not None:
        asked["state"] = state
    data = ask_broker(target, "jobs", asked, timeout_s=ANSWER_TIMEOUT_S, patient=False)
    found = data.get("jobs")
    if not isinstance(found, list):
        raise unreadable("list of jobs", data)
    if as_json:
        print(json.dumps({"jobs": found}))
        return Exit.OK
    try:
        jobs = [JobSummary.model_validate_json(json.dumps(item)) for item in found]
    except ValidationError:
        raise unreadable("list of jobs", data) from None
    now = datetime.now(UTC)
    heads = ("JOB", "NAME", "STATE", "BOARD", "ATTEMPT", "AGE", "REASON")
    rows = [
        (job.job, shown(job.name, 40), job.state.value, job.board or "", str(job.attempt),
         age(job.submitted.isoformat(), now), shown(job.reason or "", 100))
        for job in jobs
    ]  # fmt: skip
    print("\n".join(lines(rows, heads)) if rows else "no jobs")
    return Exit.OK


def simple(target: Target, verb: str, key: str, value: str, *, as_json: bool) -> int:
    """`cancel`, `sleep`, `wake`: one id to the broker, and its word back."""
    check_id(key, value)
    data = ask_broker(target, verb, {key: value}, timeout_s=ANSWER_TIMEOUT_S, patient=False)
    if as_json:
        print(json.dumps(data))
    else:
        done = {"cancel": "cancelled", "sleep": "is sent to sleep", "wake": "is being woken"}[verb]
        print(f"{value} {done}")
    return Exit.OK
