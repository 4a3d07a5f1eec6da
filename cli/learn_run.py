"""`boardhand learn`: starts an agent's experiment, shows it as it goes, and writes down what it found."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.agent_requests import AgentsQuestion
from cli.exits import CliError, Exit, advice_of, exit_of, usage
from cli.learn_text import stanzas, table
from cli.plain_text import shown
from cli.session import Session
from cli.target import Target

ASK_EVERY_S = 0.5
ANSWER_TIMEOUT_S = 30.0
"""The agent asks all its controllers before it begins."""


@dataclass(frozen=True, slots=True)
class LearnOrder:
    """What the command line asks for."""

    agent: str | None = None
    only: tuple[str, ...] = ()
    consoles: tuple[str, ...] = ()
    also_on: bool = False
    rules: dict[str, float] = field(default_factory=dict)
    do: str = "start"
    write: Path | None = None


def run(target: Target, order: LearnOrder, *, as_json: bool) -> int:
    """Do it.

    Raises:
        CliError: no agent, several agents, or the agent said no.
    """
    if order.write is not None and not order.write.is_file():
        raise usage(f"--write {order.write}: there is no such file", "name the agent's settings file")
    with Session(target) as session:
        agent = _agent(session, order.agent)
        data: dict[str, object] = {"do": order.do, "only": list(order.only), "also_on": order.also_on, **order.rules}
        data["consoles"] = list(order.consoles)
        first = _ask(session, agent, data)
        if order.do == "plan":
            print(json.dumps(first) if as_json else "\n".join(_plan(first)))
            return Exit.OK
        if order.do == "stop":
            print(json.dumps(first) if as_json else "learning stops; the outlets go back to what they were found as")
            return Exit.OK
        try:
            found = _follow(session, agent, as_json=as_json)
        except KeyboardInterrupt:
            print("stopping; the outlets go back to what they were found as", file=sys.stderr)
            _ask(session, agent, {"do": "stop"})
            found = _follow(session, agent, as_json=as_json)
    print(json.dumps(found) if as_json else "\n".join(table(found)))
    return _end(found, order)


def _end(found: dict[str, Any], order: LearnOrder) -> int:
    if found.get("problem"):
        raise CliError(Exit.FAILED, f"learning failed: {shown(found['problem'])}", "look at the agent's log")
    if found.get("unrestored"):
        names = ", ".join(shown(name) for name in found["unrestored"])
        raise CliError(Exit.FAILED, f"{names}: would not go back to what they were", "put them back by hand")
    if order.write is not None and found.get("rows"):
        text = order.write.read_text(encoding="utf-8")
        added = stanzas(found["rows"], text)
        order.write.write_text(text.rstrip("\n") + "\n" + added, encoding="utf-8")
        print(f"{order.write}: {len(found['rows'])} boards added; see 'boardhand agent reload'", file=sys.stderr)
    return Exit.INTERRUPTED if found.get("stopped") else Exit.OK


def _agent(session: Session, wanted: str | None) -> str:
    agents = AgentsQuestion(session, "learn", {"do": "state"}).ask()
    online = [agent.name for agent in agents if agent.online and wanted in {None, agent.name}]
    if len(online) == 1:
        return online[0]
    if wanted is not None:
        raise CliError(Exit.NO_ANSWER, f"agent {shown(wanted)} is not online", "see 'boardhand boards'")
    if not online:
        raise CliError(Exit.NO_ANSWER, "no agent is online", "start one with 'boardhand agent'")
    raise usage(f"several agents are online: {', '.join(online)}", "name one with --agent")


def _ask(session: Session, agent: str, data: dict[str, object]) -> dict[str, Any]:
    agents = AgentsQuestion(session, "learn", data).ask(ANSWER_TIMEOUT_S)
    found = next((asked for asked in agents if asked.name == agent), None)
    if found is not None and found.answers:
        return found.answers[0]
    if found is None or found.refusal is None:
        raise CliError(Exit.NO_ANSWER, f"agent {agent} did not answer", "see 'boardhand boards'")
    kind = found.refusal.kind.value
    raise CliError(exit_of(kind), f"agent {agent}: {shown(found.refusal.message)}", advice_of(kind))


def _follow(session: Session, agent: str, *, as_json: bool) -> dict[str, Any]:
    seen = 0
    while True:
        state = _ask(session, agent, {"do": "state", "seen": seen})
        for line in state.get("lines", []):
            if as_json:
                print(json.dumps(line), flush=True)
            else:
                print(f"{line['at_s']:7.1f} s  {line['percent']:3.0f} %  {shown(line['message'])}", file=sys.stderr)
        seen = state.get("told", seen)
        if state.get("state") != "running":
            state.pop("lines", None)
            return state
        session.receive(ASK_EVERY_S)


def _plan(answer: dict[str, Any]) -> list[str]:
    lines = [f"{shown(outlet)}: would be tried" for outlet in answer.get("free", {})]
    return lines + [f"{shown(outlet)}: left alone, {shown(why)}" for outlet, why in answer.get("left", {}).items()]
