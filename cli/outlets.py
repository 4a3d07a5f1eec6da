"""`boardhand outlets`: controllers and their outlets, as they say of themselves now."""

import json
import sys

from cli.agent_requests import AgentsQuestion, AskedAgent
from cli.boards import lines
from cli.exits import CliError, Exit, advice_of, exit_of
from cli.plain_text import shown
from cli.session import Session
from cli.target import Target
from wire.payloads import ControllerInfo, decode

COLUMNS = ("OUTLET", "POWER", "BOARD", "NAME")


def run(target: Target, controller: str | None, *, as_json: bool) -> int:
    """Ask every agent, and print what its controllers answered; an agent that did not answer is named."""
    with Session(target) as session:
        agents = AgentsQuestion(session, "outlets", {}).ask()
    found = [
        (agent.name, info)
        for agent in agents
        for answer in agent.answers
        for info in map(_controller, answer.get("controllers", []))
        if controller in {None, info.name}
    ]
    if as_json:
        shown_infos = [{"agent": name, **info.model_dump(mode="json", exclude_none=True)} for name, info in found]
        silent = [agent.name for agent in agents if not agent.done]
        print(json.dumps({"controllers": shown_infos, "silent": silent}))
    else:
        print("\n\n".join("\n".join(_block(name, info)) for name, info in found), end="\n" if found else "")
    if not agents:
        print(f"no agents at {target.host}:{target.port} under '{target.prefix}'", file=sys.stderr)
    _check(agents, controller, found)
    return Exit.OK


def _controller(data: object) -> ControllerInfo:
    return decode(ControllerInfo, json.dumps(data).encode())


def _block(agent: str, info: ControllerInfo) -> list[str]:
    about = ", ".join(shown(part) for part in (info.driver, info.description) if part)
    head = f"{info.name} ({about}) of agent {agent}"
    known = [f"  {shown(text)}" for text in (info.device, info.problem) if text]
    rows = [
        (f"{info.name}:{shown(outlet.outlet)}", outlet.power.value, outlet.board or "", shown(outlet.name or ""))
        for outlet in info.outlets
    ]
    return [head, *known, *(f"  {line}" for line in (lines(rows, COLUMNS) if rows else []))]


def _check(agents: list[AskedAgent], controller: str | None, found: list[tuple[str, ControllerInfo]]) -> None:
    for agent in agents:
        if agent.refusal is not None:
            kind = agent.refusal.kind.value
            raise CliError(exit_of(kind), f"agent {agent.name}: {shown(agent.refusal.message)}", advice_of(kind))
        if not agent.done:
            raise CliError(
                Exit.NO_ANSWER, f"agent {agent.name} {agent.problem}: its controllers are missing here",
                "see 'boardhand boards'",
            )  # fmt: skip
    if controller is not None and not found:
        raise CliError(Exit.NO_ANSWER, f"no agent has a controller {controller}", "see 'boardhand outlets'")
