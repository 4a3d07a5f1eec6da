"""Answers to questions: the store's record, with what the scheduler knows better laid over it."""

import asyncio
import base64
from typing import assert_never

from pydantic import AwareDatetime

from broker.board_lines import BoardLines
from broker.happenings import Moment
from broker.health.answers import health_answer
from broker.jobs.artifact_store import ArtifactStore
from broker.jobs.life import Job, job_number
from broker.jobs.store import JobStore
from broker.leases.requests import AskLeases, lease_lines
from broker.requests import (
    AskArtifact,
    AskArtifacts,
    AskBoards,
    AskHealth,
    AskJob,
    AskJobs,
    AskLogs,
    AskTimeline,
    Question,
    RequestError,
    response,
    what_fits,
)
from broker.scheduler import Scheduler
from broker.store.sql import StoreUnavailableError
from wire.payloads import ErrorInfo, Payload, ShortText
from wire.phases import ErrorKind

# Base64 of it is 128 KiB: an answer of the size that every MQTT server passes on.
ARTIFACT_PIECE_BYTES = 96 * 1024


_Others = AskJobs | AskJob | AskLogs | AskTimeline | AskArtifacts | AskArtifact | AskLeases | AskHealth


class LogPiece(Payload):
    """One chunk in the answer to `logs`. `seq` counts through the whole job, over its attempts."""

    seq: int
    attempt: int
    step: ShortText | None = None
    text: str


class TimelineEntry(Payload):
    """One line in the answer to `timeline`. Attempt 0 is what came before the first lease."""

    attempt: int
    at: AwareDatetime
    what: str


class ArtifactLine(Payload):
    """One file in the answer to `artifacts`. With a `problem` it cannot be fetched."""

    attempt: int
    n: int
    name: str
    size: int
    sha256: str | None
    problem: str | None


async def answer(
    question: Question, lines: BoardLines, store: JobStore, artifacts: ArtifactStore, now: Moment
) -> bytes:
    """The answer as it goes out, small enough to be sent; also where it is that there is none."""
    if isinstance(question, AskBoards):
        return lines.answer(question, now)
    try:
        return response(question.tag, await _data(question, lines.scheduler, store, artifacts))
    except RequestError as error:
        return response(error.transaction, {}, error.info)
    except StoreUnavailableError as error:
        told = ErrorInfo(kind=ErrorKind.BUSY, message=f"the broker's store cannot be read: {error}"[:4096])
        return response(question.tag, {}, told)


async def _data(  # noqa: PLR0911  # a table of questions
    question: _Others, scheduler: Scheduler, store: JobStore, artifacts: ArtifactStore
) -> dict[str, object]:
    match question:
        case AskJobs():
            return await _jobs(question, scheduler, store)
        case AskJob():
            return await _job(question, scheduler, store)
        case AskLogs():
            return await _logs(question, store)
        case AskTimeline():
            return await _timeline(question, store)
        case AskArtifacts():
            return await _artifacts(question, store)
        case AskArtifact():
            return await _artifact(question, store, artifacts)
        case AskHealth():
            return health_answer(question, scheduler.orders.desk)
        case AskLeases():
            return _leases(question, scheduler)
        case _:
            assert_never(question)


async def _jobs(question: AskJobs, scheduler: Scheduler, store: JobStore) -> dict[str, object]:
    before = job_number(question.before) if question.before is not None else None
    found = await store.jobs(question.limit, question.state, before)
    # Reasons of waiting jobs change with the farm and are not written each time.
    summaries = [_now(job, scheduler).summary() for job in found]
    shown = what_fits(summaries)
    return {"jobs": shown, "more": len(shown) < len(found) or len(found) == question.limit}


def _now(job: Job, scheduler: Scheduler) -> Job:
    """The scheduler's own record where the job has not ended, with its reason up to date."""
    live = scheduler.ledger.jobs.get(job.id)
    if live is None:
        return job
    scheduler.explain(live)
    return live


def _number(tag: str, job: str) -> int:
    number = job_number(job)
    if number is None:
        raise RequestError(tag, ErrorKind.NOT_FOUND, f"there is no {job}: ids look like job-12", "data.job")
    return number


async def _job(question: AskJob, scheduler: Scheduler, store: JobStore) -> dict[str, object]:
    found = await store.job(_number(question.tag, question.job))
    if found is None:
        raise RequestError(question.tag, ErrorKind.NOT_FOUND, f"there is no {question.job}", "data.job")
    job, attempts = found
    job = _now(job, scheduler)
    told = job.summary().model_dump(mode="json", exclude_none=True)
    notice = await store.results.notice_problem(job.number)
    return {**told, "attempts": attempts} | ({"notify_problem": notice} if notice else {})


async def _logs(question: AskLogs, store: JobStore) -> dict[str, object]:
    number = _number(question.tag, question.job)
    found = await store.job(number)
    if found is None:
        raise RequestError(question.tag, ErrorKind.NOT_FOUND, f"there is no {question.job}", "data.job")
    chunks = await store.logs(number, question.from_chunk, question.limit)
    shown = what_fits([LogPiece(seq=c.n, attempt=c.attempt, step=c.step, text=c.text) for c in chunks])
    following = chunks[len(shown) - 1].n + 1 if shown else question.from_chunk
    complete = len(shown) == len(chunks) and len(chunks) < question.limit
    return {"chunks": shown, "next": following, "ended": found[0].state.ended and complete}


async def _of_job(question: AskTimeline | AskArtifacts | AskArtifact, store: JobStore) -> Job:
    found = await store.job(_number(question.tag, question.job))
    if found is None:
        raise RequestError(question.tag, ErrorKind.NOT_FOUND, f"there is no {question.job}", "data.job")
    return found[0]


async def _timeline(question: AskTimeline, store: JobStore) -> dict[str, object]:
    job = await _of_job(question, store)
    entries = [TimelineEntry(attempt=0, at=job.submitted, what="submitted")]
    entries += [
        TimelineEntry(attempt=t.attempt, at=t.at, what=t.what) for t in await store.results.timeline(job.number)
    ]
    if job.ended is not None:
        told = f"{job.state.value}: {job.reason}" if job.reason else job.state.value
        entries.append(TimelineEntry(attempt=job.attempt, at=job.ended, what=told))
    shown = what_fits(entries[question.start :])
    following = question.start + len(shown)
    return {"entries": shown, "next": following, "more": following < len(entries)}


async def _artifacts(question: AskArtifacts, store: JobStore) -> dict[str, object]:
    job = await _of_job(question, store)
    lines = [
        ArtifactLine(attempt=a.attempt, n=a.n, name=a.name, size=a.size, sha256=a.sha256, problem=a.problem)
        for a in await store.results.artifacts(job.number)
    ]
    shown = what_fits(lines[question.start :])
    following = question.start + len(shown)
    return {"artifacts": shown, "next": following, "more": following < len(lines)}


async def _artifact(question: AskArtifact, store: JobStore, artifacts: ArtifactStore) -> dict[str, object]:
    job = await _of_job(question, store)
    known = await store.results.artifacts(job.number)
    found = next((a for a in known if (a.attempt, a.n) == (question.attempt, question.n)), None)
    if found is None or found.problem is not None:
        why = "there is no such file" if found is None else f"{found.name} is not stored: {found.problem}"
        raise RequestError(question.tag, ErrorKind.NOT_FOUND, f"{question.job}: {why}", "data.n")
    try:
        data = await asyncio.to_thread(artifacts.read, found, question.offset, ARTIFACT_PIECE_BYTES)
    except OSError as error:
        told = f"{question.job}: {found.name} cannot be read: {error.strerror}"
        raise RequestError(question.tag, ErrorKind.NOT_FOUND, told, "data.n") from None
    return {"data": base64.b64encode(data).decode(), "next": question.offset + len(data), "size": found.size}


def _leases(question: AskLeases, scheduler: Scheduler) -> dict[str, object]:
    lines = lease_lines(scheduler.people, question.lease)
    shown = what_fits(lines[question.start :])
    following = question.start + len(shown)
    return {"leases": shown, "next": following, "more": following < len(lines)}
