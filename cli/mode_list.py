"""`boardhand mode`: the modes of boards, asked of the agents, and the change from one into another."""

import json
import sys
from typing import Any

from cli.actions import run_action
from cli.agent_requests import AgentsQuestion
from cli.boards import lines
from cli.exits import CliError, Exit, advice_of, exit_of
from cli.plain_text import shown
from cli.session import Session
from cli.target import Target, check_id

COLUMNS = ("BOARD", "MODE", "MODES", "FLASH")


def show(target: Target, board: str | None, *, as_json: bool) -> int:
    """Print the modes of one board or of all.

    Raises:
        CliError: nobody has the board, or the MQTT server cannot be reached.
    """
    data: dict[str, object] = {} if board is None else {"board": check_id("board", board)}
    with Session(target) as session:
        agents = AgentsQuestion(session, "modes", data).ask()
    found: list[dict[str, Any]] = [
        {"agent": agent.name, **entry}
        for agent in agents
        for answer in agent.answers
        for entry in answer.get("boards", [])
    ]
    silent = [agent.name for agent in agents if not agent.done]
    if board is not None and not found:
        refusals = [agent.refusal for agent in agents if agent.refusal is not None]
        other = next((refusal for refusal in refusals if refusal.kind.value != "unknown-board"), None)
        if other is not None:
            raise CliError(exit_of(other.kind.value), other.message, advice_of(other.kind.value))
        away = f"; {', '.join(silent)} did not answer" if silent else ""
        raise CliError(Exit.NO_ANSWER, f"unknown board {board}: no agent has it{away}", "see 'boardhand boards'")
    if as_json:
        print(json.dumps({"boards": found, "silent": silent}))
    elif board is not None:
        print("\n".join(line for entry in found for line in _page(entry)))
    elif found:
        rows = [
            (entry["board"], entry.get("mode") or "-", _names(entry.get("modes")), _names(entry.get("flash")))
            for entry in found
        ]
        print("\n".join(lines(rows, COLUMNS)))
    for name in silent:
        print(f"boardhand: agent {name} did not answer", file=sys.stderr)
    return Exit.NO_ANSWER if silent else Exit.OK


def change(target: Target, board: str, mode: str, *, token: int | None, timeout_s: float, as_json: bool) -> int:
    """Bring the board into the mode.

    Raises:
        CliError: it is not in it; the message says in which it is.
    """
    answer = run_action(target, board, "mode", {"mode": mode}, as_json=as_json, timeout_s=timeout_s, token=token)
    if as_json:
        print(json.dumps(answer))
    else:
        print(f"{shown(answer.get('board'))}: mode {shown(answer.get('mode'))} ({_states(answer.get('actuators'))})")
    return Exit.OK


def _page(entry: dict[str, Any]) -> list[str]:
    found = [
        f"{shown(entry.get('board'))} of agent {shown(entry.get('agent'))}: mode {shown(entry.get('mode') or '-')}"
    ]
    if entry.get("under_way"):
        found.append(f"  under way: {shown(entry['under_way'])}")
    if entry.get("damaged"):
        found.append(f"  damaged: {shown(entry['damaged'], 400)}")
    if entry.get("actuators"):
        found.append(f"  now: {_states(entry['actuators'])}")
    found += [
        f"  mode {shown(name)}: {shown('; '.join(steps), 400)}" for name, steps in (entry.get("modes") or {}).items()
    ]
    for name, method in (entry.get("flash") or {}).items():
        by = f" in mode {shown(method.get('mode'))}" if method.get("mode") else ""
        found.append(f"  flash {shown(name)}: by {shown(method.get('tool'))}{by}")
    return found


def _names(table: object) -> str:
    return ", ".join(shown(name) for name in table) if isinstance(table, dict) and table else "-"


def _states(actuators: object) -> str:
    if not isinstance(actuators, dict):
        return "-"
    return ", ".join(
        f"{shown(name)} {shown(state) if state is not None else 'unknown'}" for name, state in actuators.items()
    )
