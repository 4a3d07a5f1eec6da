"""`boardhand energy`: what each board used and what sleep saved, asked of every agent of the farm."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from cli.agent_requests import AgentsQuestion, AskedAgent
from cli.energy_table import ABOUT, Line, table, total
from cli.exits import CliError, Exit, advice_of, exit_of
from cli.plain_text import shown
from cli.session import Session
from cli.target import Target, check_id
from wire.energy import EnergyReport
from wire.payloads import decode
from wire.phases import ErrorKind

VERB = "energy"
NOT_METERING = {ErrorKind.CONFIGURATION, ErrorKind.NOT_FOUND}
"""An agent that was told not to meter, or is too old to know how. That is an answer, and no failure."""


def _report(data: dict[str, Any]) -> EnergyReport:
    return decode(EnergyReport, json.dumps(data).encode())


def _goes_on(data: dict[str, Any]) -> str | None:
    report = _report(data)
    return report.next if report.boards else None


def run(
    target: Target, boards: Sequence[str], *, since: float | str, by: str | None, price: float | None, as_json: bool
) -> int:
    """Ask, and print what was answered; whoever did not answer is named, and makes the exit code."""
    for board in boards:
        check_id("board", board)
    data: dict[str, object] = {"since": since}
    if by is not None:
        data["by"] = by
    with Session(target) as session:
        agents = AgentsQuestion(session, VERB, data, boards=boards, goes_on=_goes_on).ask()
    reports = {agent.name: [_report(answer) for answer in agent.answers] for agent in agents if agent.answers}
    rows = sorted(
        (Line(name, board) for name, parts in reports.items() for report in parts for board in report.boards),
        key=lambda row: row.board.board,
    )
    error = _failure(target, agents, boards, {row.board.board for row in rows})
    if as_json:
        print(json.dumps(_document(agents, reports, rows, price, error)))
    elif rows:
        _show(reports, rows, price)
    elif not agents:
        print(f"no agents at {target.host}:{target.port} under '{target.prefix}'", file=sys.stderr)
    for agent in agents:
        if agent.refusal is not None and agent.refusal.kind in NOT_METERING:
            print(f"agent {agent.name} does not meter: {shown(agent.refusal.message)}", file=sys.stderr)
    if error is None:
        return Exit.OK
    if not as_json:
        raise error
    print(f"boardhand: {error}", file=sys.stderr)
    return error.code


def _failure(target: Target, agents: list[AskedAgent], boards: Sequence[str], found: set[str]) -> CliError | None:
    silent = [agent for agent in agents if agent.problem is not None and not agent.done]
    if silent:
        words = ", ".join(f"agent {agent.name} {agent.problem}" for agent in silent)
        return CliError(Exit.NO_ANSWER, f"{words}: its boards are missing here", "see 'boardhand boards'")
    for agent in agents:
        if agent.refusal is not None and agent.refusal.kind not in NOT_METERING:
            kind = agent.refusal.kind.value
            return CliError(exit_of(kind), f"agent {agent.name}: {shown(agent.refusal.message)}", advice_of(kind))
    missing = [board for board in boards if board not in found]
    if missing and any(agent.refusal is not None for agent in agents):
        return CliError(Exit.FAILED, f"{', '.join(missing)}: not metered", "set meter_every_s in the agent's settings")
    if missing:
        where = f"{target.host}:{target.port}"
        return CliError(
            Exit.NO_ANSWER, f"unknown board {', '.join(missing)}: no agent at {where} has it", "see 'boardhand boards'"
        )
    return None


def _document(
    agents: list[AskedAgent],
    reports: dict[str, list[EnergyReport]],
    rows: list[Line],
    price: float | None,
    error: CliError | None,
) -> dict[str, object]:
    document: dict[str, object] = {
        "boards": [
            {
                "agent": row.agent,
                "since": reports[row.agent][0].since.isoformat(),
                "until": reports[row.agent][0].until.isoformat(),
                **row.board.model_dump(mode="json"),
            }
            for row in rows
        ],
        "total": total(row.board for row in rows).model_dump(mode="json"),
        "price_per_kwh": price,
        "silent": [agent.name for agent in agents if not agent.done],
        "not_metering": [agent.name for agent in agents if agent.refusal is not None],
    }
    if error is not None:
        document |= {"ok": False, "error": {"exit": int(error.code), "message": error.message, "do": error.advice}}
    return document


def _show(reports: dict[str, list[EnergyReport]], rows: list[Line], price: float | None) -> None:
    begun = min(report.since for parts in reports.values() for report in parts)
    print(f"since {begun.astimezone():%Y-%m-%d %H:%M %Z}")
    text = "\n".join(table(rows, price))
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = text.replace(ABOUT, "~")
    print(text)
