"""The answer to `health`: boards' trust, and the evidence where it is gone."""

from pydantic import AwareDatetime

from broker.health.desk import HealthDesk
from broker.health.trust import Health
from broker.requests import AskHealth, RequestError, what_fits
from wire.names import Id
from wire.payloads import Payload, Text
from wire.phases import ErrorKind


class EvidenceLine(Payload):
    """One failure. `log` is what its health job printed last, `diagnosis` what its agent says of the boot."""

    at: AwareDatetime
    why: Text
    job: Id | None
    log: str
    diagnosis: str


class HealthLine(Payload):
    """One board in the answer to `health`; `boots_s` are its cold boots of the training, in seconds."""

    board: Id
    health: Health
    since: AwareDatetime
    why: Text
    failures: int
    passed: AwareDatetime | None
    job: Id | None
    boots_s: list[float]
    evidence: list[EvidenceLine]


def health_answer(question: AskHealth, desk: HealthDesk) -> dict[str, object]:
    """The data of the answer.

    Raises:
        RequestError: there is no such board.
    """
    if question.board is not None:
        if question.board not in desk.records and not desk.dispatch.farm.knows(question.board):
            raise RequestError(
                question.tag, ErrorKind.UNKNOWN_BOARD, f"board {question.board} is not known", "data.board"
            )
        return {"boards": what_fits(_lines(desk, [question.board])), "more": False}
    names = sorted(name for name in desk.records if question.after is None or name > question.after)
    shown = what_fits(_lines(desk, names))
    return {"boards": shown, "more": len(shown) < len(names)}


def _lines(desk: HealthDesk, names: list[str]) -> list[HealthLine]:
    return [
        HealthLine(
            board=record.board,
            health=record.state,
            since=record.since,
            why=record.why_not(desk.rule_of(record.board)) or "",
            failures=record.failures,
            passed=record.passed,
            job=record.job,
            boots_s=record.boots_s,
            evidence=[
                EvidenceLine(at=e.at, why=e.why, job=e.job, log=e.log, diagnosis=e.diagnosis) for e in record.evidence
            ],
        )
        for name in names
        if (record := desk.records.get(name)) is not None
    ]
