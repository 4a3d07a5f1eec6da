"""`boardhand agent reload`: the settings file of a running agent, read again."""

import json
import time
from typing import Any, NoReturn

from cli.exits import CliError, Exit, exit_of
from cli.plain_text import shown
from cli.requests import json_object, unreadable
from cli.session import Session, new_id
from cli.target import Target
from wire.topics import Topics

ANSWER_TIMEOUT_S = 120.0
"""The agent waits a minute for power commands under way."""
_EXITS = {"configuration": Exit.USAGE}
_ADVICE = {
    "configuration": "mend the file and reload again; the old settings go on",
    "refused": "restart the agent, or reload with --partial",
    "busy": "reload again when it has ended; the old settings go on",
}


def run(target: Target, name: str | None, *, partial: bool, check: bool, as_json: bool) -> int:
    """Ask the agent, and print what it took up.

    Raises:
        CliError: it did not, and why; or there are several agents and none was named.
    """
    with Session(target) as session:
        agent = _agent(session, name)
        answer = _ask(session, agent, {"partial": partial, "check": check})
    if as_json:
        print(json.dumps({"agent": agent, **answer}))
    else:
        _print(agent, answer, check=check)
    return Exit.OK


def _agent(session: Session, name: str | None) -> str:
    """The agent that is meant, which is online."""
    topics, target = Topics(session.prefix), session.target
    states: dict[str, str] = {}
    for message in session.retained(topics.every_agent("state")):
        parsed, said = topics.parse_agent(message.topic), json_object(message.payload)
        if parsed is not None and said is not None:
            states[parsed.board] = shown(said.get("state"), 40)
    where = f"at {target.host}:{target.port} under '{target.prefix}'"
    if name is not None and states.get(name) != "online":
        raise CliError(Exit.NO_ANSWER, f"agent {name} is {states.get(name, 'not known')} {where}", "start it")
    online = [agent for agent, state in sorted(states.items()) if state == "online"]
    if name is None and len(online) > 1:
        raise CliError(Exit.USAGE, f"there are several agents: {', '.join(online)}", "say which with --agent")
    if name is None and not online:
        raise CliError(Exit.NO_ANSWER, f"no agent is online {where}", "start it with 'boardhand agent'")
    return online[0] if name is None else name


def _ask(session: Session, agent: str, data: dict[str, object]) -> dict[str, Any]:
    """Asked once: an agent that goes on from what it has read is not to read it again in the middle."""
    topics, transaction = Topics(session.prefix), "cli-" + new_id()
    session.subscribe(topics.agent_response(agent, "reload"))
    request = json.dumps({"transaction": transaction, "data": data}).encode()
    session.publish(topics.agent_request(agent, "reload"), request)
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        message = session.receive(left_s)
        said = None if message is None else json_object(message.payload)
        if message is None or said is None or said.get("transaction") != transaction:
            continue
        if said.get("ok") is not True:
            _refused(agent, said.get("error"))
        answer = said.get("data")
        if not isinstance(answer, dict):
            raise unreadable("answer to 'reload'", said)
        return answer
    raise CliError(Exit.NO_ANSWER, f"agent {agent} did not answer in {ANSWER_TIMEOUT_S:g} s", "look at its log")


def _refused(agent: str, error: object) -> NoReturn:
    told = error if isinstance(error, dict) else {}
    kind, text = str(told.get("kind", "internal")), shown(told.get("message", "no reason given"), 2000)
    code = _EXITS.get(kind, exit_of(kind))
    raise CliError(code, f"agent {agent}: {text}", _ADVICE.get(kind, "look at the agent's log"))


def _print(name: str, answer: dict[str, Any], *, check: bool) -> None:
    for change in answer.get("changes", []):
        print(f"{shown(str(change.get('key')))} {shown(str(change.get('what')))}")
    for late in answer.get("restart", []):
        print(f"{shown(str(late.get('key')))} needs a restart: {shown(str(late.get('why')), 200)}")
    count = len(answer.get("changes", []))
    done = "would be taken up" if check else "taken up"
    what = "nothing is different" if not count else f"{count} change{'s' if count > 1 else ''} {done}"
    print(f"agent {name}: {what} ({answer.get('took_ms', 0):g} ms)")
