"""`boardhand learn`: starts an agent's experiment, shows it as it goes, and writes down what it found."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.agent_requests import AgentsQuestion
from cli.exits import CliError, Exit, advice_of, exit_of, usage
from cli.learn_text import put_back, table
from cli.learn_view import View, view_for
from cli.plain_text import shown
from cli.session import Session
from cli.target import Target
from wire.topics import Topics

ASK_EVERY_S = 0.5
ANSWER_TIMEOUT_S = 30.0
"""The agent asks all its controllers before it begins."""
OF_THE_MOMENT = ("lines", "outlets", "left_s", "told")
"""What the state says for those who watch, and not for the result."""
AGAIN = "the agent goes on; 'boardhand learn --last' follows it"


@dataclass(frozen=True, slots=True)
class LearnOrder:
    """What the command line asks for. `do` is `start`, `plan`, `stop`, or `last`: what is under way or was found."""

    agent: str | None = None
    only: tuple[str, ...] = ()
    consoles: tuple[str, ...] = ()
    also_on: bool = False
    rules: dict[str, float] = field(default_factory=dict)
    do: str = "start"
    write: Path | None = None
    dry_run: bool = False


def run(target: Target, order: LearnOrder, *, as_json: bool) -> int:
    """Do it.

    Raises:
        CliError: no agent, several agents, the agent said no, or the file cannot be written.
    """
    if order.write is not None:
        from cli.learn_write import check

        check(order.write)
    with Session(target) as session:
        agent = _agent(session, order.agent)
        if order.do in {"plan", "stop"}:
            return _short(session, agent, order, as_json=as_json)
        taken = _boards(session) if order.write is not None else set()
        found = _watched(session, agent, order, view_for(as_json=as_json))
    if not as_json:
        print("\n".join(table(found)))
        if found.get("stopped") and (told := put_back(found)):
            print(told, file=sys.stderr)
    written = _write(found, order, taken, as_json=as_json)
    if as_json:
        print(json.dumps({**found, **written}))
    return _end(found)


def _short(session: Session, agent: str, order: LearnOrder, *, as_json: bool) -> int:
    first = _ask(session, agent, _data(order))
    if as_json:
        print(json.dumps(first))
    elif order.do == "plan":
        print("\n".join(_plan(first)))
    else:
        print("learning stops; the outlets go back to what they were found as")
    return Exit.OK


def _watched(session: Session, agent: str, order: LearnOrder, viewing: AbstractContextManager[View]) -> dict[str, Any]:
    """The result. Ctrl-C stops the experiment, and waits until everything is put back; once more, and nobody waits."""
    with viewing as view:
        try:
            if order.do == "start":
                with _interrupt_held():
                    _ask(session, agent, _data(order))
            return _follow(session, agent, view, again=order.do == "last")
        except KeyboardInterrupt:
            view.say("stopping; the outlets go back to what they were found as")
        try:
            _stop(session, agent)
            return _follow(session, agent, view)
        except KeyboardInterrupt:
            said = f"agent {agent} still puts the outlets back"
            raise CliError(Exit.INTERRUPTED, said, "'boardhand learn --last' says when it has") from None


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Ctrl-C counts when the block has ended: a stop that overtakes the start would stop nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


def _stop(session: Session, agent: str) -> None:
    try:
        _ask(session, agent, {"do": "stop"})
    except CliError as problem:
        if problem.code is not Exit.NO_ANSWER:
            raise
        # It has ended by itself, or was not begun: the state says which.


def _data(order: LearnOrder) -> dict[str, object]:
    data: dict[str, object] = {"do": order.do, "only": list(order.only), "also_on": order.also_on, **order.rules}
    return data | {"consoles": list(order.consoles)}


def _write(found: dict[str, Any], order: LearnOrder, taken: set[str], *, as_json: bool) -> dict[str, str | None]:
    """Write the boards down; what was written, for JSON."""
    if order.write is None:
        return {}
    from cli.learn_write import WITHOUT_TRYING, plan

    try:
        made = plan(order.write, found.get("rows", []), taken)
        if not order.dry_run:
            made.write()
    except CliError as problem:
        if as_json:
            print(json.dumps(found))
        raise CliError(problem.code, problem.message, f"{problem.advice}; {WITHOUT_TRYING}") from None
    if order.dry_run and not as_json:
        sys.stdout.write(made.diff())
    for note in made.additions.notes:
        print(f"boardhand: {shown(note)}", file=sys.stderr)
    print(shown(made.told(done=not order.dry_run), 2000), file=sys.stderr)
    return {"written": str(made.path) if made.changes and not order.dry_run else None, "diff": made.diff()}


def _end(found: dict[str, Any]) -> int:
    if found.get("problem"):
        raise CliError(Exit.FAILED, f"learning failed: {shown(found['problem'])}", "look at the agent's log")
    if found.get("unrestored"):
        names = ", ".join(shown(name) for name in found["unrestored"])
        raise CliError(Exit.FAILED, f"{names}: would not go back to what they were", "put them back by hand")
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


def _boards(session: Session) -> set[str]:
    """The names that boards have, of whatever agent: a name is the farm's."""
    topics = Topics(session.prefix)
    found = (topics.parse_board(message.topic) for message in session.retained(topics.every_board("state")))
    return {parsed.board for parsed in found if parsed is not None}


def _ask(session: Session, agent: str, data: dict[str, object]) -> dict[str, Any]:
    agents = AgentsQuestion(session, "learn", data).ask(ANSWER_TIMEOUT_S)
    found = next((asked for asked in agents if asked.name == agent), None)
    if found is not None and found.answers:
        return found.answers[0]
    if found is None or found.refusal is None:
        raise CliError(Exit.NO_ANSWER, f"agent {agent} did not answer", "see 'boardhand boards'")
    kind = found.refusal.kind.value
    raise CliError(exit_of(kind), f"agent {agent}: {shown(found.refusal.message)}", advice_of(kind))


def _follow(session: Session, agent: str, view: View, *, again: bool = False) -> dict[str, Any]:
    """The result, at the end. `again`: nothing was started; what had ended before is not told line by line."""
    seen = 0
    while True:
        try:
            state = _ask(session, agent, {"do": "state", "seen": seen})
        except CliError as problem:
            raise CliError(problem.code, problem.message, f"{problem.advice}; {AGAIN}") from None
        if state.get("state") == "idle":
            said = f"agent {agent} has learnt nothing since it was started"
            raise CliError(Exit.NO_ANSWER, said, "start it: 'boardhand learn'")
        if not again or state.get("state") == "running":
            view.take(state)
        again, seen = False, state.get("told", seen)
        if state.get("state") != "running":
            return {key: value for key, value in state.items() if key not in OF_THE_MOMENT}
        session.receive(ASK_EVERY_S)


def _plan(answer: dict[str, Any]) -> list[str]:
    lines = [f"{shown(outlet)}: would be tried" for outlet in answer.get("free", {})]
    return lines + [f"{shown(outlet)}: left alone, {shown(why)}" for outlet, why in answer.get("left", {}).items()]
