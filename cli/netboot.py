"""`boardhand netboot explain BOARD`: what a board would be served and why, and its last boots request by request."""

import json
import sys
from typing import Any

from cli.agent_requests import AgentsQuestion, AskedAgent
from cli.exits import CliError, Exit, advice_of, exit_of
from cli.netboot_text import boot_lines, served_lines, stranger_lines
from cli.plain_text import shown
from cli.session import Session
from cli.target import Target, check_id
from wire.netboot import NetbootReport
from wire.payloads import PayloadError, decode
from wire.phases import ErrorKind

VERB = "netboot"


def _report(data: dict[str, Any]) -> NetbootReport:
    return decode(NetbootReport, json.dumps(data).encode())


def goes_on(data: dict[str, Any]) -> str | None:
    """What to ask for next, None when the answer is whole.

    Raises:
        PayloadError: the answer cannot be read.
    """
    report = _report(data)
    if report.next is not None and not report.boots:
        raise PayloadError("next", "an answer without boots cannot go on")
    return report.next


def explain(target: Target, board: str, *, boots: int, as_json: bool) -> int:
    """Ask the board's agent, and print what it answered.

    Raises:
        CliError: nobody has the board, its agent did not answer, or refused.
    """
    check_id("board", board)
    with Session(target) as session:
        agents = AgentsQuestion(session, VERB, {"board": board, "boots": boots}, boards=[board], goes_on=goes_on).ask()
    answered = next((agent for agent in agents if agent.done and agent.answers), None)
    if answered is None:
        raise _failure(target, agents, board)
    report = _joined([_report(answer) for answer in answered.answers])
    if as_json:
        print(json.dumps({"agent": answered.name, **report.model_dump(mode="json", exclude_none=True)}))
        return Exit.OK
    _print([f"{board} on agent {answered.name}", *served_lines(report.served)])
    for boot in report.boots:
        _print(["", *boot_lines(boot)])
    if not report.boots:
        _print(["", "no boots: it has neither been switched on nor been heard since the agent keeps them"])
    elif report.boots[0].registered is None and report.strangers:
        # Where a board is not heard at all, it may be one of these, under another MAC address than the settings'.
        _print(["", *stranger_lines(report.strangers)])
    return Exit.OK


def _joined(reports: list[NetbootReport]) -> NetbootReport:
    boots = [boot for report in reports for boot in report.boots]
    return reports[0].model_copy(update={"boots": boots, "next": None})


def _print(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = text.replace("…", "...").encode("ascii", "replace").decode()
    print(text)


def _failure(target: Target, agents: list[AskedAgent], board: str) -> CliError:
    refused = [agent for agent in agents if agent.refusal is not None]
    # An agent that has not said which boards it has is asked too, and says no; that is not the reason then.
    refused.sort(key=lambda agent: agent.refusal is not None and agent.refusal.kind is ErrorKind.UNKNOWN_BOARD)
    if refused and (refusal := refused[0].refusal) is not None and refusal.kind is not ErrorKind.UNKNOWN_BOARD:
        if refusal.kind is ErrorKind.NOT_FOUND:
            return CliError(
                Exit.FAILED, f"agent {refused[0].name} is too old to explain netboot", "update boardhand on its host"
            )
        kind = refusal.kind.value
        return CliError(exit_of(kind), f"agent {refused[0].name}: {shown(refusal.message)}", advice_of(kind))
    silent = [f"agent {agent.name} {agent.problem}" for agent in agents if agent.problem is not None]
    if silent:
        return CliError(Exit.NO_ANSWER, f"board {board}: {', '.join(silent)}", "see 'boardhand boards'")
    where = f"{target.host}:{target.port}"
    return CliError(Exit.NO_ANSWER, f"unknown board {board}: no agent at {where} has it", "see 'boardhand boards'")
