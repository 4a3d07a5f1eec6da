"""`boardhand console` with what is recorded: asked of the board's agent over MQTT, page by page."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cli.agent_requests import AgentsQuestion, AskedAgent
from cli.exits import CliError, Exit, advice_of, exit_of
from cli.plain_text import shown
from cli.session import Session
from cli.target import Target, check_id
from wire.payloads import PayloadError
from wire.phases import ErrorKind

VERB = "console"
LINES_TIMEOUT_S = 300.0
"""Of all pages together; each is asked for again every few seconds."""
LINE_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; `since` as seconds back or a time, `boot` as its number or counted back."""

    boot: int | None
    since: float | str | None
    grep: str | None

    def request(self) -> dict[str, object]:
        given = {"boot": self.boot, "since": self.since, "grep": self.grep}
        return {key: value for key, value in given.items() if value is not None}


def ask(
    target: Target,
    board: str,
    data: dict[str, object],
    goes_on: Callable[[dict[str, Any]], str | None] = lambda _answer: None,
    *,
    timeout_s: float = 15.0,
) -> dict[str, Any]:
    """The last page of the answer of the board's agent.

    Raises:
        CliError: nobody has the board, its agent did not answer, or refused.
    """
    check_id("board", board)
    with Session(target) as session:
        question = AgentsQuestion(session, VERB, {"board": board, **data}, boards=[board], goes_on=goes_on)
        agents = question.ask(timeout_s)
    for agent in agents:
        if agent.done and agent.answers:
            return agent.answers[-1]
    raise _failure(target, agents, board)


def show_boots(target: Target, board: str, *, as_json: bool) -> int:
    """List the recorded boots, the last first."""
    answer = ask(target, board, {"do": "boots"})
    boots = answer.get("boots", [])
    if as_json:
        print(json.dumps({"board": board, "boots": boots}))
        return Exit.OK
    print("BOOT  NUMBER  BEGAN                          BYTES")
    for back, boot in enumerate(reversed(boots)):
        print(f"{-back:>4}  {boot['number']:>6}  {shown(str(boot['began'])):<29}  {boot['bytes']}")
    return Exit.OK


def show_state(target: Target, board: str, *, as_json: bool) -> int:
    """How the console is."""
    state = ask(target, board, {"do": "status"})
    if as_json:
        print(json.dumps(state))
        return Exit.OK
    where = "open" if state.get("open") else f"away: {state.get('why')}"
    print(f"{board}: {shown(str(state.get('device')))}, {shown(where)}")
    print(f"readers {state.get('readers')}, writer {shown(str(state.get('writer') or 'nobody'))}")
    print(f"reached {state.get('reached') or 'nothing'}, {state.get('bytes')} bytes since the agent began")
    return Exit.OK


def show_lines(target: Target, board: str, wanted: Wanted, *, times: bool, as_json: bool) -> int:
    """Print the recorded lines as they come. Returns FAILED when there is none."""
    count = 0

    def page(answer: dict[str, Any]) -> str | None:
        nonlocal count
        lines = answer.get("lines")
        if not isinstance(lines, list):
            raise PayloadError("lines", "missing")
        for at, line, *note in lines:
            _print(str(at), str(line), is_note=bool(note), times=times, as_json=as_json)
        count += len(lines)
        following = answer.get("next")
        return None if following is None else str(following)

    ask(target, board, {"do": "read", **wanted.request()}, page, timeout_s=LINES_TIMEOUT_S)
    return Exit.OK if count else Exit.FAILED


def _print(at: str, line: str, *, is_note: bool, times: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"at": at, "note" if is_note else "line": line}))
        return
    text = f"-- {line}" if is_note else line
    print(f"{at} {text}" if times else text)


def _failure(target: Target, agents: list[AskedAgent], board: str) -> CliError:
    refusals = [(agent.name, agent.refusal) for agent in agents if agent.refusal is not None]
    for name, refusal in refusals:
        if refusal.kind is not ErrorKind.UNKNOWN_BOARD:
            kind = refusal.kind.value
            return CliError(exit_of(kind), f"agent {name}: {shown(refusal.message)}", advice_of(kind))
    silent = [f"agent {agent.name} {agent.problem}" for agent in agents if agent.problem is not None]
    if silent:
        return CliError(Exit.NO_ANSWER, f"board {board}: {', '.join(silent)}", "see 'boardhand boards'")
    where = f"{target.host}:{target.port}"
    return CliError(Exit.NO_ANSWER, f"unknown board {board}: no agent at {where} has it", "see 'boardhand boards'")
