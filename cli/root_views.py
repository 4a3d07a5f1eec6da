"""`boardhand root views|reset|save`: what boards have made of their roots, asked of their agents."""

import json
import time
from typing import Any

from cli.agent_requests import AgentsQuestion, AskedAgent
from cli.exits import CliError, Exit, advice_of, exit_of
from cli.plain_text import shown
from cli.root_progress import bar
from cli.session import Session
from cli.target import Target, check_id
from wire.phases import ErrorKind

POLL_S = 1.0
_ADVICE = {("root-reset", "busy"): "here: --force", ("root-save", "busy"): "here: --live"}
_NOBODY = "see 'boardhand boards'"


def _ask(session: Session, verb: str, data: dict[str, object], board: str) -> tuple[str, dict[str, Any]]:
    """The agent of a board, and its answer.

    Raises:
        CliError: nobody has the board, its agent did not answer, or refused.
    """
    agents = AgentsQuestion(session, verb, data, boards=[board]).ask()
    answered = next((agent for agent in agents if agent.done and agent.answers), None)
    if answered is not None:
        return answered.name, answered.answers[0]
    # An agent that has not said which boards it has is asked too, and says that it does not know this one.
    for agent in agents:
        if agent.refusal is not None and agent.refusal.kind is not ErrorKind.UNKNOWN_BOARD:
            kind = agent.refusal.kind.value
            raise CliError(exit_of(kind), f"agent {agent.name}: {shown(agent.refusal.message)}", _advice(verb, kind))
    silent = [f"agent {agent.name} {agent.problem}" for agent in agents if agent.problem is not None]
    if silent:
        raise CliError(Exit.NO_ANSWER, f"board {board}: {', '.join(silent)}", _NOBODY)
    raise CliError(Exit.NO_ANSWER, f"unknown board {board}: no agent at {session.target.host} has it", _NOBODY)


def _advice(verb: str, kind: str) -> str:
    return _ADVICE.get((verb, kind), "" if kind == "not-found" else advice_of(kind))


def reset(target: Target, board: str, *, force: bool, as_json: bool) -> int:
    """Have a board's view thrown away.

    Raises:
        CliError: it has none, runs from it, or its agent does not answer.
    """
    check_id("board", board)
    data: dict[str, object] = {"board": board, **({"force": True} if force else {})}
    with Session(target) as session:
        agent, answer = _ask(session, "root-reset", data, board)
    if as_json:
        print(json.dumps({"agent": agent, **answer}))
    else:
        took = f", in {answer['took_ms']} ms" if "took_ms" in answer else ""
        print(f"{board}: root {shown(answer.get('root', '?'))} is as it was imported{took}")
    return Exit.OK


def save(target: Target, board: str, name: str, *, live: bool, wait_s: float | None, as_json: bool) -> int:
    """Have a new root made of a board's view, and wait for its end unless `wait_s` is None.

    Raises:
        CliError: the board has no view or runs from it, the name is taken, the save failed, or it took too long.
    """
    check_id("board", board)
    check_id("root", name)
    data: dict[str, object] = {"board": board, "name": name, **({"live": True} if live else {})}
    with Session(target) as session:
        agent, answer = _ask(session, "root-save", data, board)
        if wait_s is not None:
            with bar(hidden=as_json) as progress:
                _wait(session, board, name, time.monotonic() + wait_s, progress)
    if as_json:
        print(json.dumps({"agent": agent, **answer, "ended": wait_s is not None}))
    else:
        print(f"{name}: {'made of' if wait_s is not None else 'is being made of'} {board}'s view, on agent {agent}")
    return Exit.OK


def _wait(session: Session, board: str, name: str, deadline_s: float, progress: Any) -> None:
    while True:
        agent, answer = _ask(session, "roots", {}, board)
        work = [entry for entry in answer.get("work", []) if (entry.get("board"), entry.get("name")) == (board, name)]
        if not work:
            raise CliError(Exit.FAILED, f"agent {agent} knows nothing of the save of {board} as {name}",
                           "was it restarted? save again")  # fmt: skip
        last = work[-1]
        if last.get("error") is not None:
            raise CliError(Exit.FAILED, f"agent {agent}: {shown(last['error'])}")
        if last.get("ended"):
            return
        progress(str(last.get("stage", "save")), int(last.get("done") or 0), last.get("total"))
        if time.monotonic() + POLL_S > deadline_s:
            raise CliError(Exit.NO_ANSWER, f"the save of {board} as {name} goes on",
                           "see 'boardhand root views', or give more with --timeout-s")  # fmt: skip
        time.sleep(POLL_S)


def show_views(target: Target, *, as_json: bool) -> int:
    """List what the agents have of roots and views. Exit 4 when an agent that is online did not answer.

    Raises:
        CliError: the MQTT server cannot be reached.
    """
    with Session(target) as session:
        agents = AgentsQuestion(session, "roots", {}).ask()
    answered = [agent for agent in agents if agent.done and agent.answers]
    silent = [f"agent {agent.name} {_why(agent)}" for agent in agents if agent not in answered]
    if as_json:
        print(json.dumps({"agents": [{"agent": a.name, **a.answers[0]} for a in answered], "silent": silent}))
    else:
        for agent in answered:
            _print_agent(agent.name, agent.answers[0])
        for line in silent:
            print(line)
        if not agents:
            print("no agent is there")
    return Exit.NO_ANSWER if any(agent.problem for agent in agents) else Exit.OK


def _why(agent: AskedAgent) -> str:
    return shown(agent.refusal.message) if agent.refusal is not None else str(agent.problem)


def _print_agent(name: str, answer: dict[str, Any]) -> None:
    print(f"{name}: {len(answer.get('roots', []))} roots, {answer.get('free_bytes', 0) / 1e9:.1f} GB free")
    for view in answer.get("views", []):
        upper, running = shown(view.get("upper", "?")), "running" if view.get("running") else "not running"
        print(f"  {shown(view.get('board'))}: root {shown(view.get('root'))}, written to {upper}, {running}")
    for work in answer.get("work", []):
        state = shown(work.get("error") or ("done" if work.get("ended") else work.get("stage", "")))
        print(f"  {shown(work.get('board'))} saved as {shown(work.get('name'))}: {state}")
