"""Answers to questions: the store's record, with what the scheduler knows better laid over it."""

from typing import assert_never

from broker.happenings import Moment
from broker.job import job_number
from broker.job_store import JobStore
from broker.requests import AskBoards, AskJob, AskJobs, AskLogs, Question, RequestError, what_fits
from broker.scheduler import Scheduler
from wire.names import Id
from wire.payloads import Label, Payload, ShortText, Text
from wire.phases import ErrorKind, Phase, Power


class LogPiece(Payload):
    """One chunk in the answer to `logs`. `seq` counts through the whole job, over its attempts."""

    seq: int
    attempt: int
    step: ShortText | None = None
    text: str


class BoardLine(Payload):
    """One board in the answer to `boards`: the broker's picture. `takes_work` says how near it is to taking work."""

    board: Id
    agent: Id | None
    phase: Phase | None
    power: Power
    online: bool
    takes_work: str
    why: Text | None
    job: Id | None
    token: int | None
    labels: dict[str, Label | list[str]]


async def answer(question: Question, scheduler: Scheduler, store: JobStore, now: Moment) -> dict[str, object]:
    """The data of the answer, small enough to be sent.

    Raises:
        RequestError: there is no such job.
    """
    match question:
        case AskJobs():
            return await _jobs(question, scheduler, store)
        case AskJob():
            return await _job(question, scheduler, store)
        case AskLogs():
            return await _logs(question, store)
        case AskBoards():
            return _boards(question, scheduler, now)
        case _:
            assert_never(question)


async def _jobs(question: AskJobs, scheduler: Scheduler, store: JobStore) -> dict[str, object]:
    before = job_number(question.before) if question.before is not None else None
    found = await store.jobs(question.limit, question.state, before)
    # Reasons of waiting jobs change with the farm and are not written each time.
    summaries = [scheduler.ledger.jobs.get(job.id, job).summary() for job in found]
    shown = what_fits(summaries)
    return {"jobs": shown, "more": len(shown) < len(found) or len(found) == question.limit}


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
    job = scheduler.ledger.jobs.get(job.id, job)
    return {**job.summary().model_dump(mode="json", exclude_none=True), "attempts": attempts}


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


def _boards(question: AskBoards, scheduler: Scheduler, now: Moment) -> dict[str, object]:
    names = [name for name in scheduler.farm.names() if question.after is None or name > question.after]
    lines = [_line(name, scheduler, now) for name in names[: question.limit]]
    shown = what_fits(lines)
    return {"boards": shown, "more": len(shown) < len(names)}


def _line(name: str, scheduler: Scheduler, now: Moment) -> BoardLine:
    picture = scheduler.farm.board(name)
    standing, why = scheduler.standing(picture, now)
    held = scheduler.ledger.held.get(name)
    return BoardLine(
        board=name,
        agent=picture.agent,
        phase=picture.phase,
        power=picture.power,
        online=picture.online,
        takes_work=standing.name.lower(),
        why=why or None,
        job=held.job.id if held is not None else None,
        token=held.token if held is not None else None,
        labels={k: list(v) if isinstance(v, tuple) else v for k, v in picture.labels.items()},
    )
